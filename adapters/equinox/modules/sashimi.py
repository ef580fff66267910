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


class SaShiMi(LanguageModule):
    """SaShiMi, a U-shaped autoregressive model of quantized sound, sample by sample, around any layer.

    Options as `ssm_core.models.SaShiMi`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import SaShiMi
    >>> key = jax.random.key(0)
    >>> model = SaShiMi(vocab_size=16, d_model=4, n_layers=1, layer_options={"d_state": 4}, pool=(2,), key=key)
    >>> equinox.filter_jit(model)(jnp.asarray([[8, 9, 10]])).shape
    (1, 3, 16)
    """

    definition: models.SaShiMi = equinox.field(static=True)

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
        key: jax.Array,
        dtype: Any = jnp.float32,
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
        super().__init__(definition, key, dtype)


MODULES.update(
    SaShiMi=SaShiMi,
)
