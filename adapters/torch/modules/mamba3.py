"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class Mamba3(InputDependentModule):
    """The block of Mamba-3: no convolution, but steps that mix the input with the one before, and rotating states.

    Options as `ssm_core.layers.Mamba3`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import Mamba3
    >>> layer = Mamba3(d_model=4, d_state=8, head_dim=4)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.Mamba3

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        expand: int = 2,
        head_dim: int = 64,
        n_groups: int = 1,
        rank: int = 1,
        rope_fraction: float = 0.5,
        A_floor: float = 0.0001,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        out_norm: bool = False,
        epsilon: float = 1e-05,
        chunk: int = 128,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.Mamba3(
            d_model=d_model,
            d_state=d_state,
            expand=expand,
            head_dim=head_dim,
            n_groups=n_groups,
            rank=rank,
            rope_fraction=rope_fraction,
            A_floor=A_floor,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            out_norm=out_norm,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    Mamba3=Mamba3,
)
