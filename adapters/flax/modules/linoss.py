"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, TimeInvariantModule


class LinOSS(TimeInvariantModule):
    """A layer of P forced harmonic oscillators between two matrices, in discrete time.

    Options as `ssm_core.layers.LinOSS`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import LinOSS
    >>> import jax
    >>> layer = LinOSS(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LinOSS

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        scheme: str = "imex",
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LinOSS(
            d_model=d_model,
            d_state=d_state,
            scheme=scheme,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    LinOSS=LinOSS,
)
