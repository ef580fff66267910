"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, TimeInvariantModule


class DLinOSS(TimeInvariantModule):
    """A layer of P damped harmonic oscillators between two matrices, in discrete time.

    Options as `ssm_core.layers.DLinOSS`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import DLinOSS
    >>> layer = DLinOSS(d_model=4, d_state=8)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.DLinOSS

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        r_min: float = 0.9,
        r_max: float = 1.0,
        theta_max: float = 3.141592653589793,
        dt_std: float = 0.5,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.DLinOSS(
            d_model=d_model,
            d_state=d_state,
            r_min=r_min,
            r_max=r_max,
            theta_max=theta_max,
            dt_std=dt_std,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    DLinOSS=DLinOSS,
)
