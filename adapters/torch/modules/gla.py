"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import layers
from ssm_core.adapters.torch.base import MODULES, InputDependentModule


class GLA(InputDependentModule):
    """Gated linear attention: every channel of the keys forgets at a rate of its own, of the input.

    Options as `ssm_core.layers.GLA`, calls and steps as `SSMModule`.

    >>> import torch
    >>> from ssm_core.adapters.torch import GLA
    >>> layer = GLA(d_model=4, heads=2)
    >>> layer(torch.zeros((2, 10, 4))).shape
    torch.Size([2, 10, 4])
    """

    definition: layers.GLA

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        gate_rank: int = 16,
        gate_normalizer: float = 16.0,
        output_gate: bool = True,
        kv_heads: int | None = None,
        feature_map: str | None = None,
        lower_bound: float | None = None,
        epsilon: float = 1e-05,
        chunk: int = 64,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        definition = layers.GLA(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            gate_rank=gate_rank,
            gate_normalizer=gate_normalizer,
            output_gate=output_gate,
            kv_heads=kv_heads,
            feature_map=feature_map,
            lower_bound=lower_bound,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, device, dtype)


MODULES.update(
    GLA=GLA,
)
