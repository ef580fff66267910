"""Channel mixes of PyTorch's own linear maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssm_core import models

from .base import module


def mix_module(definition: Any, device: Any, dtype: torch.dtype | None) -> nn.Module:
    """The features of every step by themselves, or a layer that looks at the step before."""
    if isinstance(definition, models.ChannelMix):
        return ChannelMix(definition, device, dtype)
    found: nn.Module = module(definition, device=device, dtype=dtype)
    return found


class ChannelMix(nn.Module):
    """The features of every step by themselves."""

    def __init__(self, definition: models.ChannelMix, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.definition = definition
        for name, sizes in definition.maps().items():
            self.add_module(name, nn.Linear(*sizes, bias=definition.biased, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., H) mixed."""
        return self.definition.compose(x, self._modules)
