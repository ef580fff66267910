"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, InputDependentModule


class LinearAttention(InputDependentModule):
    """Causal linear attention with a feature map, and with the sum of the keys as a normalizer.

    Options as `ssm_core.layers.LinearAttention`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import LinearAttention
    >>> key = jax.random.key(0)
    >>> layer = LinearAttention(d_model=4, heads=2, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LinearAttention = equinox.field(static=True)

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
        key: jax.Array,
        dtype: Any = jnp.float32,
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
        super().__init__(definition, key, dtype)


MODULES.update(
    LinearAttention=LinearAttention,
)
