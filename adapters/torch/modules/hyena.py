"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, SSMModule


class Hyena(SSMModule):
    """Hyena: products of the input with itself, and between them convolutions as long as the sequence.

    Options as `ssm_core.layers.Hyena`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import Hyena
    >>> layer = Hyena(d_model=4, l_max=16)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.Hyena

    def __init__(
        self,
        d_model: int,
        *,
        l_max: int = 1024,
        order: int = 2,
        filter_order: int = 64,
        emb_dim: int = 3,
        short_filter_order: int = 3,
        num_inner_mlps: int = 2,
        w: float = 1.0,
        fast_decay_pct: float = 0.3,
        slow_decay_pct: float = 1.5,
        target: float = 0.01,
        shift: float = 0.0,
        trained_embedding: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.Hyena(
            d_model=d_model,
            l_max=l_max,
            order=order,
            filter_order=filter_order,
            emb_dim=emb_dim,
            short_filter_order=short_filter_order,
            num_inner_mlps=num_inner_mlps,
            w=w,
            fast_decay_pct=fast_decay_pct,
            slow_decay_pct=slow_decay_pct,
            target=target,
            shift=shift,
            trained_embedding=trained_embedding,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    Hyena=Hyena,
)
