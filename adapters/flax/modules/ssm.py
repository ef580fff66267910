"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, TimeInvariantModule


class SSM(TimeInvariantModule):
    """A layer of state space models with a full matrix, one a channel: the linear state space layer without structure.

    Options as `ssm_core.layers.SSM`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import SSM
    >>> import jax
    >>> layer = SSM(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.SSM

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "legs",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "bilinear",
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.SSM(
            d_model=d_model,
            d_state=d_state,
            init=init,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    SSM=SSM,
)
