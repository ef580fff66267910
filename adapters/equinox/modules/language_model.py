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


class LanguageModel(LanguageModule):
    """A language model around any layer.

    Options as `ssm_core.models.LanguageModel`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import LanguageModel
    >>> key = jax.random.key(0)
    >>> model = LanguageModel(vocab_size=10, d_model=8, n_layers=2, layer="S4D", channel_mix="mlp", key=key)
    >>> equinox.filter_jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.LanguageModel = equinox.field(static=True)

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer: str = "S4D",
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = models.LanguageModel(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer=layer,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, key, dtype)


class MambaLM(LanguageModule):
    """The language model of Mamba: `LanguageModel` with blocks of `Mamba`.

    Options as `ssm_core.models.MambaLM`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import MambaLM
    >>> key = jax.random.key(0)
    >>> model = MambaLM(vocab_size=10, d_model=8, n_layers=2, key=key)
    >>> equinox.filter_jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.MambaLM = equinox.field(static=True)

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = models.MambaLM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, key, dtype)


class Mamba2LM(LanguageModule):
    """The language model of Mamba-2: `LanguageModel` with blocks of `Mamba2`.

    Options as `ssm_core.models.Mamba2LM`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import Mamba2LM
    >>> key = jax.random.key(0)
    >>> model = Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, key=key)
    >>> equinox.filter_jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.Mamba2LM = equinox.field(static=True)

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = models.Mamba2LM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, key, dtype)


class Mamba3LM(LanguageModule):
    """The language model of Mamba-3: `LanguageModel` with blocks of `Mamba3`.

    Options as `ssm_core.models.Mamba3LM`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import Mamba3LM
    >>> key = jax.random.key(0)
    >>> model = Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, key=key)
    >>> equinox.filter_jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.Mamba3LM = equinox.field(static=True)

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = models.Mamba3LM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    LanguageModel=LanguageModel,
    MambaLM=MambaLM,
    Mamba2LM=Mamba2LM,
    Mamba3LM=Mamba3LM,
)
