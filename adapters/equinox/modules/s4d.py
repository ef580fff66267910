"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, TimeInvariantModule


class S4D(TimeInvariantModule):
    """A layer of diagonal state space models, one a channel, with a nonlinear mix of the channels.

    Options as `ssm_core.layers.S4D`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import S4D
    >>> key = jax.random.key(0)
    >>> layer = S4D(d_model=4, d_state=8, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.S4D = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "lin",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "zoh",
        real: bool = False,
        trainable_B: bool = True,
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        dt_tie: bool = True,
        bandlimit: float | None = None,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.S4D(
            d_model=d_model,
            d_state=d_state,
            init=init,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            real=real,
            trainable_B=trainable_B,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
            dt_tie=dt_tie,
            bandlimit=bandlimit,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    S4D=S4D,
)
