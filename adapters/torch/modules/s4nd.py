"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, SSMModule


class S4ND(SSMModule):
    """State space models along every axis: a convolution whose kernel is an outer product of one an axis.

    Options as `ssm_core.layers.S4ND`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import S4ND
    >>> layer = S4ND(d_model=4, d_state=8)
    >>> layer(torch.zeros((2, 6, 5, 4))).shape
    torch.Size([2, 6, 5, 4])
    """

    definition: layers.S4ND

    def __init__(
        self,
        d_model: int,
        *,
        dims: int = 2,
        d_state: int = 64,
        layer: str = "S4D",
        layer_options: Mapping[str, Any] | tuple[Mapping[str, Any], ...] | None = None,
        rank: int = 1,
        channels: int = 1,
        bidirectional: bool = True,
        bandlimit: float | None = None,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.S4ND(
            d_model=d_model,
            dims=dims,
            d_state=d_state,
            layer=layer,
            layer_options={} if layer_options is None else layer_options,
            rank=rank,
            channels=channels,
            bidirectional=bidirectional,
            bandlimit=bandlimit,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    S4ND=S4ND,
)
