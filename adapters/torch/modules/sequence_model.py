"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ssm_core import models
from ssm_core.adapters.torch.base import MODULES
from ssm_core.adapters.torch.blocks import SequenceModule


class SequenceModel(SequenceModule):
    """Encoder, residual blocks of norm, layer and dropout, pooling, head.

    Options as `ssm_core.models.SequenceModel`.

    >>> import torch
    >>> from ssm_core.adapters.torch import SequenceModel
    >>> model = SequenceModel(d_input=1, d_output=10, d_model=8, n_layers=2)
    >>> model(torch.zeros((3, 20, 1))).shape
    torch.Size([3, 10])
    """

    definition: models.SequenceModel

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 64,
        n_layers: int = 4,
        *,
        layer: str = "S4D",
        layer_options: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        pool: str | None = "mean",
        channel_mix: str | None = None,
        mix_width: int | None = None,
        postnorm: bool = False,
        epsilon: float = 1e-05,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = models.SequenceModel(
            d_input=d_input,
            d_output=d_output,
            d_model=d_model,
            n_layers=n_layers,
            layer=layer,
            layer_options={} if layer_options is None else layer_options,
            dropout=dropout,
            pool=pool,
            channel_mix=channel_mix,
            mix_width=mix_width,
            postnorm=postnorm,
            epsilon=epsilon,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    SequenceModel=SequenceModel,
)
