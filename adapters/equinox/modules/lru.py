"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

import math
from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, TimeInvariantModule


class LRU(TimeInvariantModule):
    """A layer of one diagonal recurrence with as many inputs and outputs as there are channels, in discrete time.

    Options as `ssm_core.layers.LRU`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import LRU
    >>> key = jax.random.key(0)
    >>> layer = LRU(d_model=4, d_state=8, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LRU = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = math.tau,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LRU(
            d_model=d_model,
            d_state=d_state,
            r_min=r_min,
            r_max=r_max,
            max_phase=max_phase,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    LRU=LRU,
)
