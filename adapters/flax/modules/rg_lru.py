"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class RGLRU(InputDependentModule):
    """The recurrent block of Griffin: a real-gated linear recurrent unit behind a short convolution, and a gate.

    Options as `ssm_core.layers.RGLRU`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import RGLRU
    >>> import jax
    >>> layer = RGLRU(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RGLRU

    def __init__(
        self,
        d_model: int,
        *,
        lru_width: int | None = None,
        heads: int = 1,
        d_conv: int = 4,
        activation: str = "gelu_tanh",
        a_min: float = 0.9,
        a_max: float = 0.999,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RGLRU(
            d_model=d_model,
            lru_width=lru_width,
            heads=heads,
            d_conv=d_conv,
            activation=activation,
            a_min=a_min,
            a_max=a_max,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    RGLRU=RGLRU,
)
