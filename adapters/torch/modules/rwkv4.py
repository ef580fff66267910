"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class RWKV4(InputDependentModule):
    """The time mix of RWKV-4: a mean of all values so far, whose weights decay, behind a gate.

    Options as `ssm_core.layers.RWKV4`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import RWKV4
    >>> layer = RWKV4(d_model=4)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.RWKV4

    def __init__(
        self,
        d_model: int,
        *,
        width: int | None = None,
        layer_idx: int = 0,
        num_layers: int = 1,
        chunk: int = 64,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.RWKV4(
            d_model=d_model,
            width=width,
            layer_idx=layer_idx,
            num_layers=num_layers,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    RWKV4=RWKV4,
)
