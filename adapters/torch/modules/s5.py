"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, TimeInvariantModule


class S5(TimeInvariantModule):
    """A layer of one diagonal state space model with as many inputs and outputs as there are channels.

    Options as `ssm_core.layers.S5`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import S5
    >>> layer = S5(d_model=4, d_state=8)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.S5

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        blocks: int = 1,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "zoh",
        conj_sym: bool = True,
        clip_eigs: bool = False,
        max_real: float = 0.0001,
        liquid: bool = False,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.S5(
            d_model=d_model,
            d_state=d_state,
            blocks=blocks,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            conj_sym=conj_sym,
            clip_eigs=clip_eigs,
            max_real=max_real,
            liquid=liquid,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    S5=S5,
)
