"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class Lightning(InputDependentModule):
    """Lightning attention as in MiniMax-01: constant decays, a norm over all heads and a gate.

    Options as `ssm_core.layers.Lightning`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import Lightning
    >>> layer = Lightning(d_model=4, heads=2)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.Lightning

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        head_dim: int | None = None,
        slopes: str = "minimax",
        layer_idx: int = 0,
        num_layers: int = 1,
        epsilon: float = 1e-06,
        chunk: int = 64,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.Lightning(
            d_model=d_model,
            heads=heads,
            head_dim=head_dim,
            slopes=slopes,
            layer_idx=layer_idx,
            num_layers=num_layers,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    Lightning=Lightning,
)
