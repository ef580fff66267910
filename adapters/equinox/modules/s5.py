"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, TimeInvariantModule


class S5(TimeInvariantModule):
    """A layer of one diagonal state space model with as many inputs and outputs as there are channels.

    Options as `ssm_core.layers.S5`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import S5
    >>> key = jax.random.key(0)
    >>> layer = S5(d_model=4, d_state=8, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.S5 = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        blocks: int = 1,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "zoh",
        conj_sym: bool = True,
        clip_eigs: bool = False,
        max_real: float = 0.0001,
        liquid: bool = False,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.S5(
            d_model=d_model,
            d_state=d_state,
            blocks=blocks,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            conj_sym=conj_sym,
            clip_eigs=clip_eigs,
            max_real=max_real,
            liquid=liquid,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    S5=S5,
)
