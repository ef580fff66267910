"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class LocalAttention(InputDependentModule):
    """Softmax attention of every step to itself and the steps just before: the attention of Griffin.

    Options as `ssm_core.layers.LocalAttention`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import LocalAttention
    >>> import jax
    >>> layer = LocalAttention(d_model=8, heads=2, window=4, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 8))).shape
    (2, 10, 8)
    """

    definition: layers.LocalAttention

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        window: int = 2048,
        rotary: float = 0.5,
        theta: float = 10000.0,
        bias: bool = False,
        output_bias: bool = True,
        chunk: int = 1024,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LocalAttention(
            d_model=d_model,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            window=window,
            rotary=rotary,
            theta=theta,
            bias=bias,
            output_bias=output_bias,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    LocalAttention=LocalAttention,
)
