"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import models
from ssm_core.adapters.flax.base import MODULES
from ssm_core.adapters.flax.blocks import LanguageModule


class XLSTMLM(LanguageModule):
    """The language model of xLSTM: `LanguageModel` with blocks of `MLSTM` and gated MLPs, and logits that are capped.

    Options as `ssm_core.models.XLSTMLM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import XLSTMLM
    >>> import jax
    >>> model = XLSTMLM(vocab_size=10, d_model=8, n_layers=2, layer_options={"heads": 2}, rngs=nnx.Rngs(0))
    >>> jax.jit(model)(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.XLSTMLM

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = False,
        epsilon: float = 1e-06,
        channel_mix: str | None = "gated_mlp",
        mix_width: int | None = None,
        logit_cap: float | None = 30.0,
        out_norm: bool = True,
        bias: bool = False,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.XLSTMLM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
            logit_cap=logit_cap,
            out_norm=out_norm,
            bias=bias,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    XLSTMLM=XLSTMLM,
)
