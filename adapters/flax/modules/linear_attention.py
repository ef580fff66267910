"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class LinearAttention(InputDependentModule):
    """Causal linear attention with a feature map, and with the sum of the keys as a normalizer.

    Options as `ssm_core.layers.LinearAttention`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import LinearAttention
    >>> import jax
    >>> layer = LinearAttention(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LinearAttention

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        feature_map: str | None = "elu",
        normalize: bool = True,
        output_norm: bool = True,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LinearAttention(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            feature_map=feature_map,
            normalize=normalize,
            output_norm=output_norm,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    LinearAttention=LinearAttention,
)
