"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, InputDependentModule


class GLA(InputDependentModule):
    """Gated linear attention: every channel of the keys forgets at a rate of its own, of the input.

    Options as `ssm_core.layers.GLA`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import GLA
    >>> key = jax.random.key(0)
    >>> layer = GLA(d_model=4, heads=2, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.GLA = equinox.field(static=True)

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
        key: jax.Array,
        dtype: Any = jnp.float32,
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
        super().__init__(definition, key, dtype)


MODULES.update(
    GLA=GLA,
)
