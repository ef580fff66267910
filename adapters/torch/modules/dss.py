"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, TimeInvariantModule


class DSS(TimeInvariantModule):
    """A layer of diagonal state spaces, one a channel, whose kernel is normalized over a length.

    Options as `ssm_core.layers.DSS`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import DSS
    >>> layer = DSS(d_model=4, length=10, d_state=8)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.DSS

    def __init__(
        self,
        d_model: int,
        *,
        length: int,
        d_state: int = 64,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        epsilon: float = 1e-07,
        n_ssm: int | None = 1,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.DSS(
            d_model=d_model,
            length=length,
            d_state=d_state,
            dt_min=dt_min,
            dt_max=dt_max,
            epsilon=epsilon,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    DSS=DSS,
)
