"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class RWKVChannelMix(InputDependentModule):
    """The channel mix of RWKV: what a block does to the features of a step and of the one before.

    Options as `ssm_core.layers.RWKVChannelMix`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import RWKVChannelMix
    >>> import jax
    >>> layer = RWKVChannelMix(d_model=4, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RWKVChannelMix

    def __init__(
        self,
        d_model: int,
        *,
        width: int | None = None,
        gated: bool = True,
        layer_idx: int = 0,
        num_layers: int = 1,
        time_mix: bool = False,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RWKVChannelMix(
            d_model=d_model,
            width=width,
            gated=gated,
            layer_idx=layer_idx,
            num_layers=num_layers,
            time_mix=time_mix,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    RWKVChannelMix=RWKVChannelMix,
)
