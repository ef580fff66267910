"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

import math
from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, TimeInvariantModule


class LRU(TimeInvariantModule):
    """A layer of one diagonal recurrence with as many inputs and outputs as there are channels, in discrete time.

    Options as `ssm_core.layers.LRU`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import LRU
    >>> layer = LRU(d_model=4, d_state=8)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.LRU

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = math.tau,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.LRU(
            d_model=d_model,
            d_state=d_state,
            r_min=r_min,
            r_max=r_max,
            max_phase=max_phase,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    LRU=LRU,
)
