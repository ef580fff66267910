"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, TimeInvariantModule


class DLinOSS(TimeInvariantModule):
    """A layer of P damped harmonic oscillators between two matrices, in discrete time.

    Options as `ssm_core.layers.DLinOSS`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import DLinOSS
    >>> import jax
    >>> layer = DLinOSS(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.DLinOSS

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        r_min: float = 0.9,
        r_max: float = 1.0,
        theta_max: float = 3.141592653589793,
        dt_std: float = 0.5,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.DLinOSS(
            d_model=d_model,
            d_state=d_state,
            r_min=r_min,
            r_max=r_max,
            theta_max=theta_max,
            dt_std=dt_std,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    DLinOSS=DLinOSS,
)
