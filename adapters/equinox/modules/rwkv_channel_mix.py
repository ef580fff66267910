"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, InputDependentModule


class RWKVChannelMix(InputDependentModule):
    """The channel mix of RWKV: what a block does to the features of a step and of the one before.

    Options as `ssm_core.layers.RWKVChannelMix`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import RWKVChannelMix
    >>> key = jax.random.key(0)
    >>> layer = RWKVChannelMix(d_model=4, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RWKVChannelMix = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        width: int | None = None,
        gated: bool = True,
        layer_idx: int = 0,
        num_layers: int = 1,
        time_mix: bool = False,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RWKVChannelMix(
            d_model=d_model,
            width=width,
            gated=gated,
            layer_idx=layer_idx,
            num_layers=num_layers,
            time_mix=time_mix,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    RWKVChannelMix=RWKVChannelMix,
)
