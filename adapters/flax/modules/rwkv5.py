"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class RWKV5(InputDependentModule):
    """The time mix of RWKV-5: constant decays of every channel, and a bonus for the step itself.

    Options as `ssm_core.layers.RWKV5`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import RWKV5
    >>> import jax
    >>> layer = RWKV5(d_model=4, head_dim=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RWKV5

    def __init__(
        self,
        d_model: int,
        *,
        head_dim: int = 64,
        layer_idx: int = 0,
        num_layers: int = 1,
        epsilon: float = 0.00064,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RWKV5(
            d_model=d_model,
            head_dim=head_dim,
            layer_idx=layer_idx,
            num_layers=num_layers,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    RWKV5=RWKV5,
)
