"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, InputDependentModule


class Mamba(InputDependentModule):
    """The block of Mamba: a gated selective state space model whose steps, B and C are functions of the input.

    Options as `ssm_core.layers.Mamba`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import Mamba
    >>> key = jax.random.key(0)
    >>> layer = Mamba(d_model=4, d_state=8, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Mamba = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        conv_bias: bool = True,
        bias: bool = False,
        norm_epsilon: float | None = None,
        discretization: str = "mamba",
        norm_weights: bool = False,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Mamba(
            d_model=d_model,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            dt_rank=dt_rank,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            conv_bias=conv_bias,
            bias=bias,
            norm_epsilon=norm_epsilon,
            discretization=discretization,
            norm_weights=norm_weights,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    Mamba=Mamba,
)
