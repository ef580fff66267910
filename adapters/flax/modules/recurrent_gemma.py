"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import models
from ssm_core.adapters.flax.base import MODULES
from ssm_core.adapters.flax.blocks import LanguageModule


class RecurrentGemmaLM(LanguageModule):
    """The language model of RecurrentGemma, or Griffin: blocks of `RGLRU` and `LocalAttention`, gated MLPs.

    Options as `ssm_core.models.RecurrentGemmaLM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import RecurrentGemmaLM
    >>> import jax
    >>> model = RecurrentGemmaLM(10, 8, 3, attention_options={"heads": 2, "window": 4}, rngs=nnx.Rngs(0))
    >>> jax.jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.RecurrentGemmaLM

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-06,
        mix_width: int | None = None,
        attention_options: Mapping[str, Any] | None = None,
        block_types: tuple[str, ...] = ("recurrent", "recurrent", "attention"),
        activation: str = "gelu_tanh",
        logit_cap: float | None = 30.0,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.RecurrentGemmaLM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            mix_width=mix_width,
            attention_options={} if attention_options is None else attention_options,
            block_types=block_types,
            activation=activation,
            logit_cap=logit_cap,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    RecurrentGemmaLM=RecurrentGemmaLM,
)
