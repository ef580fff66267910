"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, InputDependentModule


class Lightning(InputDependentModule):
    """Lightning attention as in MiniMax-01: constant decays, a norm over all heads and a gate.

    Options as `ssm_core.layers.Lightning`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import Lightning
    >>> key = jax.random.key(0)
    >>> layer = Lightning(d_model=4, heads=2, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Lightning = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        head_dim: int | None = None,
        slopes: str = "minimax",
        layer_idx: int = 0,
        num_layers: int = 1,
        epsilon: float = 1e-06,
        chunk: int = 64,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Lightning(
            d_model=d_model,
            heads=heads,
            head_dim=head_dim,
            slopes=slopes,
            layer_idx=layer_idx,
            num_layers=num_layers,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    Lightning=Lightning,
)
