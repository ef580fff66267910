"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class RetNet(InputDependentModule):
    """The multi-scale retention of RetNet: every head forgets at a constant rate of its own.

    Options as `ssm_core.layers.RetNet`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import RetNet
    >>> import jax
    >>> layer = RetNet(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RetNet

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        expand_k: float = 1.0,
        expand_v: float = 2.0,
        rotation: str = "half",
        row_norm: bool = False,
        norm_weight: bool = True,
        output_gate: bool = True,
        kv_heads: int | None = None,
        feature_map: str | None = None,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RetNet(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            rotation=rotation,
            row_norm=row_norm,
            norm_weight=norm_weight,
            output_gate=output_gate,
            kv_heads=kv_heads,
            feature_map=feature_map,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    RetNet=RetNet,
)
