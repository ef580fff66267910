"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class MLSTM(InputDependentModule):
    """The mLSTM layer of xLSTM: gates of a head and a step, exponential ones for the input.

    Options as `ssm_core.layers.MLSTM`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import MLSTM
    >>> layer = MLSTM(d_model=4, heads=2)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.MLSTM

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        qk_dim_factor: float = 0.5,
        v_dim_factor: float = 1.0,
        gate_soft_cap: float = 15.0,
        bias: bool = False,
        norm_bias: bool = False,
        epsilon: float = 1e-06,
        norm_epsilon: float = 1e-06,
        chunk: int = 64,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.MLSTM(
            d_model=d_model,
            heads=heads,
            qk_dim_factor=qk_dim_factor,
            v_dim_factor=v_dim_factor,
            gate_soft_cap=gate_soft_cap,
            bias=bias,
            norm_bias=norm_bias,
            epsilon=epsilon,
            norm_epsilon=norm_epsilon,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    MLSTM=MLSTM,
)
