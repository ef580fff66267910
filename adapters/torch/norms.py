"""Norms of models: PyTorch's own, and those that it has not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssm_core import models
from ssm_core._arrays.library import namespace

from .base import redraw
from .projections import held


class Norm(nn.Module):
    """A norm that PyTorch has not: a root mean square norm with a bias, or weighted by 1 + weight."""

    def __init__(self, definition: models.Norm, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.definition = definition
        for p in definition.parameters():
            self.register_parameter(p.name, nn.Parameter(torch.empty(p.shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every parameter to its first value."""
        redraw(self, {p.name: p for p in self.definition.parameters()})

    def arrays(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {p.name: held(self, p.name) for p in self.definition.parameters()}

    def forward(self, x: Tensor) -> Tensor:
        """x (..., H) normed."""
        return self.definition.function(self.arrays(), namespace("Norm", x=x))(x)


def norm_module(definition: models.Norm, device: Any, dtype: torch.dtype | None) -> nn.Module:
    """The module of a norm."""
    options: dict[str, Any] = {"eps": definition.epsilon, "device": device, "dtype": dtype}
    if definition.kind is None:
        return nn.Identity()
    if definition.kind == "layer":
        return nn.LayerNorm(definition.d_model, bias=definition.biased, **options)
    if definition.kind == "rms" and not definition.biased:
        return nn.RMSNorm(definition.d_model, **options)
    return Norm(definition, device, dtype)
