"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class MLSTM(InputDependentModule):
    """The mLSTM layer of xLSTM: gates of a head and a step, exponential ones for the input.

    Options as `ssm_core.layers.MLSTM`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import MLSTM
    >>> import jax
    >>> layer = MLSTM(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.MLSTM

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        qk_dim_factor: float = 0.5,
        v_dim_factor: float = 1.0,
        gate_soft_cap: float = 15.0,
        bias: bool = False,
        norm_bias: bool = False,
        epsilon: float = 1e-06,
        norm_epsilon: float = 1e-06,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.MLSTM(
            d_model=d_model,
            heads=heads,
            qk_dim_factor=qk_dim_factor,
            v_dim_factor=v_dim_factor,
            gate_soft_cap=gate_soft_cap,
            bias=bias,
            norm_bias=norm_bias,
            epsilon=epsilon,
            norm_epsilon=norm_epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    MLSTM=MLSTM,
)
