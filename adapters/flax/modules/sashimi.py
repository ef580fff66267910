"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import models
from ssm_core.adapters.flax.base import MODULES
from ssm_core.adapters.flax.blocks import LanguageModule


class SaShiMi(LanguageModule):
    """SaShiMi, a U-shaped autoregressive model of quantized sound, sample by sample, around any layer.

    Options as `ssm_core.models.SaShiMi`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import SaShiMi
    >>> import jax
    >>> model = SaShiMi(vocab_size=16, d_model=4, n_layers=1, layer_options={"d_state": 4}, pool=(2,), rngs=nnx.Rngs(0))
    >>> jax.jit(model)(jnp.asarray([[8, 9, 10]])).shape
    (1, 3, 16)
    """

    definition: models.SaShiMi

    def __init__(
        self,
        vocab_size: int = 256,
        d_model: int = 64,
        n_layers: int = 8,
        *,
        layer: str = "S4",
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = False,
        epsilon: float = 1e-05,
        channel_mix: str | None = "mlp",
        pool: tuple[int, ...] = (4, 4),
        expand: int = 2,
        ff: int = 2,
        unet: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.SaShiMi(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer=layer,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            pool=pool,
            expand=expand,
            ff=ff,
            unet=unet,
            dropout=dropout,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    SaShiMi=SaShiMi,
)
