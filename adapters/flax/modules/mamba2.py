"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class Mamba2(InputDependentModule):
    """The block of Mamba-2: heads of features with one decay each, computed as products of matrices.

    Options as `ssm_core.layers.Mamba2`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import Mamba2
    >>> import jax
    >>> layer = Mamba2(d_model=4, d_state=8, head_dim=4, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Mamba2

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        head_dim: int = 64,
        n_groups: int = 1,
        A_min: float = 1.0,
        A_max: float = 16.0,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        conv_bias: bool = True,
        bias: bool = False,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Mamba2(
            d_model=d_model,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            head_dim=head_dim,
            n_groups=n_groups,
            A_min=A_min,
            A_max=A_max,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            dt_limit=dt_limit,
            conv_bias=conv_bias,
            bias=bias,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    Mamba2=Mamba2,
)
