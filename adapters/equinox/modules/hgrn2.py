"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, InputDependentModule


class HGRN2(InputDependentModule):
    """The hierarchically gated RNN with states expanded to matrices: what is not forgotten is not written.

    Options as `ssm_core.layers.HGRN2`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import HGRN2
    >>> key = jax.random.key(0)
    >>> layer = HGRN2(d_model=4, heads=2, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.HGRN2 = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        expand_k: float = 1.0,
        lower_bound: float | str | None = 0.0,
        epsilon: float = 1e-05,
        chunk: int = 64,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.HGRN2(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            lower_bound=lower_bound,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    HGRN2=HGRN2,
)
