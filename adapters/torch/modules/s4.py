"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, TimeInvariantModule


class S4(TimeInvariantModule):
    """A layer of state space models with a matrix that is diagonal plus low rank, one a channel, as HiPPO's are.

    Options as `ssm_core.layers.S4`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import S4
    >>> layer = S4(d_model=4, d_state=8)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.S4

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "legs",
        rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "bilinear",
        min_decay: float = 0.0001,
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.S4(
            d_model=d_model,
            d_state=d_state,
            init=init,
            rank=rank,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            min_decay=min_decay,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    S4=S4,
)
