"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import models
from ssm_core.adapters.equinox.base import MODULES
from ssm_core.adapters.equinox.models import LanguageModule


class RWKV4LM(LanguageModule):
    """The language model of RWKV-4: `RWKV4` and `RWKVChannelMix` in every block, and layer norms.

    Options as `ssm_core.models.RWKV4LM`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import RWKV4LM
    >>> key = jax.random.key(0)
    >>> model = RWKV4LM(vocab_size=10, d_model=8, n_layers=2, key=key)
    >>> equinox.filter_jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.RWKV4LM = equinox.field(static=True)

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = False,
        epsilon: float = 1e-05,
        mix_width: int | None = None,
        halved_every: int | None = None,
        entry_norm: bool = True,
        norm_bias: bool = True,
        last_epsilon: float | None = None,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = models.RWKV4LM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            mix_width=mix_width,
            halved_every=halved_every,
            entry_norm=entry_norm,
            norm_bias=norm_bias,
            last_epsilon=last_epsilon,
        )
        super().__init__(definition, key, dtype)


class RWKV7LM(LanguageModule):
    """The language model of RWKV-7: `RWKV7` and `RWKVChannelMix` in every block, and layer norms.

    Options as `ssm_core.models.RWKV7LM`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import RWKV7LM
    >>> key = jax.random.key(0)
    >>> model = RWKV7LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, key=key)
    >>> equinox.filter_jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.RWKV7LM = equinox.field(static=True)

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = False,
        epsilon: float = 1e-05,
        mix_width: int | None = None,
        entry_norm: bool = True,
        norm_bias: bool = True,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = models.RWKV7LM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            mix_width=mix_width,
            entry_norm=entry_norm,
            norm_bias=norm_bias,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    RWKV4LM=RWKV4LM,
    RWKV7LM=RWKV7LM,
)
