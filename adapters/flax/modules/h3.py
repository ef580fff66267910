"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class H3(InputDependentModule):
    """Hungry hungry hippos: a shift of the keys, their product with the values, and a diagonal system of it.

    Options as `ssm_core.layers.H3`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import H3
    >>> import jax
    >>> layer = H3(d_model=4, d_state=8, head_dim=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.H3

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        head_dim: int = 1,
        init: str = "lin",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "bilinear",
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.H3(
            d_model=d_model,
            d_state=d_state,
            head_dim=head_dim,
            init=init,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    H3=H3,
)
