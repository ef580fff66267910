"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, TimeInvariantModule


class RTF(TimeInvariantModule):
    """A layer of rational transfer functions, one a channel, trained by their coefficients and free of states.

    Options as `ssm_core.layers.RTF`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import RTF
    >>> key = jax.random.key(0)
    >>> layer = RTF(d_model=4, d_state=8, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RTF = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        init: str = "zeros",
        constraint: str | None = None,
        n_ssm: int | None = None,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RTF(
            d_model=d_model,
            d_state=d_state,
            init=init,
            constraint=constraint,
            n_ssm=n_ssm,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    RTF=RTF,
)
