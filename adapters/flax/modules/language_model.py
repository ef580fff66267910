"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import models
from ssm_core.adapters.flax.base import MODULES
from ssm_core.adapters.flax.blocks import LanguageModule


class LanguageModel(LanguageModule):
    """A language model around any layer.

    Options as `ssm_core.models.LanguageModel`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import LanguageModel
    >>> import jax
    >>> model = LanguageModel(vocab_size=10, d_model=8, n_layers=2, layer="S4D", channel_mix="mlp", rngs=nnx.Rngs(0))
    >>> jax.jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.LanguageModel

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
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
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
        super().__init__(definition, rngs, param_dtype)


class MambaLM(LanguageModule):
    """The language model of Mamba: `LanguageModel` with blocks of `Mamba`.

    Options as `ssm_core.models.MambaLM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import MambaLM
    >>> import jax
    >>> model = MambaLM(vocab_size=10, d_model=8, n_layers=2, rngs=nnx.Rngs(0))
    >>> jax.jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.MambaLM

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
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
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
        super().__init__(definition, rngs, param_dtype)


class Mamba2LM(LanguageModule):
    """The language model of Mamba-2: `LanguageModel` with blocks of `Mamba2`.

    Options as `ssm_core.models.Mamba2LM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import Mamba2LM
    >>> import jax
    >>> model = Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, rngs=nnx.Rngs(0))
    >>> jax.jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.Mamba2LM

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
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
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
        super().__init__(definition, rngs, param_dtype)


class Mamba3LM(LanguageModule):
    """The language model of Mamba-3: `LanguageModel` with blocks of `Mamba3`.

    Options as `ssm_core.models.Mamba3LM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import Mamba3LM
    >>> import jax
    >>> model = Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, rngs=nnx.Rngs(0))
    >>> jax.jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.Mamba3LM

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
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
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
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    LanguageModel=LanguageModel,
    MambaLM=MambaLM,
    Mamba2LM=Mamba2LM,
    Mamba3LM=Mamba3LM,
)
