"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class Lightning(InputDependentModule):
    """Lightning attention as in MiniMax-01: constant decays, a norm over all heads and a gate.

    Options as `ssm_core.layers.Lightning`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import Lightning
    >>> import jax
    >>> layer = Lightning(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Lightning

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
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
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
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    Lightning=Lightning,
)
