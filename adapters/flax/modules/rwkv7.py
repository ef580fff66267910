"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class RWKV7(InputDependentModule):
    """The time mix of RWKV-7: a delta rule that removes and adds with different keys, at rates of every channel.

    Options as `ssm_core.layers.RWKV7`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import RWKV7
    >>> import jax
    >>> layer = RWKV7(d_model=4, head_dim=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RWKV7

    def __init__(
        self,
        d_model: int,
        *,
        head_dim: int = 64,
        decay_rank: int | None = None,
        a_rank: int | None = None,
        v_rank: int | None = None,
        gate_rank: int | None = None,
        first_values: str | None = None,
        layer_idx: int = 0,
        num_layers: int = 1,
        epsilon: float = 0.00064,
        key_epsilon: float = 0.0,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RWKV7(
            d_model=d_model,
            head_dim=head_dim,
            decay_rank=decay_rank,
            a_rank=a_rank,
            v_rank=v_rank,
            gate_rank=gate_rank,
            first_values=first_values,
            layer_idx=layer_idx,
            num_layers=num_layers,
            epsilon=epsilon,
            key_epsilon=key_epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    RWKV7=RWKV7,
)
