"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, TimeInvariantModule


class LMU(TimeInvariantModule):
    """A layer of Legendre memory units, one a channel: the state holds the last theta steps in Legendre polynomials.

    Options as `ssm_core.layers.LMU`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import LMU
    >>> key = jax.random.key(0)
    >>> layer = LMU(d_model=4, d_state=6, theta=100, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LMU = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        theta: float = 1000.0,
        discretization: str = "zoh",
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LMU(
            d_model=d_model,
            d_state=d_state,
            theta=theta,
            discretization=discretization,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    LMU=LMU,
)
