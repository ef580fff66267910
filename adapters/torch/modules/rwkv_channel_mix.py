"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class RWKVChannelMix(InputDependentModule):
    """The channel mix of RWKV: what a block does to the features of a step and of the one before.

    Options as `ssm_core.layers.RWKVChannelMix`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import RWKVChannelMix
    >>> layer = RWKVChannelMix(d_model=4)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.RWKVChannelMix

    def __init__(
        self,
        d_model: int,
        *,
        width: int | None = None,
        gated: bool = True,
        layer_idx: int = 0,
        num_layers: int = 1,
        time_mix: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.RWKVChannelMix(
            d_model=d_model,
            width=width,
            gated=gated,
            layer_idx=layer_idx,
            num_layers=num_layers,
            time_mix=time_mix,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    RWKVChannelMix=RWKVChannelMix,
)
