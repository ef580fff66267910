"""Modules of Equinox, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from ssm_core import layers
from ssm_core.adapters.equinox.base import MODULES, InputDependentModule


class KDA(InputDependentModule):
    """Kimi delta attention: the gated delta rule whose channels of keys have decays of their own.

    Options as `ssm_core.layers.KDA`, calls and steps as `SSMModule`.

    >>> import equinox
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ssm_core.adapters.equinox import KDA
    >>> key = jax.random.key(0)
    >>> layer = KDA(d_model=4, heads=2, head_dim=2, key=key)
    >>> equinox.filter_jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.KDA = equinox.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 16,
        head_dim: int = 128,
        expand_v: float = 1.0,
        num_v_heads: int | None = None,
        d_conv: int = 4,
        conv_bias: bool = False,
        gate_bias: bool = False,
        negative_eigenvalues: bool = False,
        lower_bound: float | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        epsilon: float = 1e-05,
        chunk: int = 64,
        key: jax.Array,
        dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.KDA(
            d_model=d_model,
            heads=heads,
            head_dim=head_dim,
            expand_v=expand_v,
            num_v_heads=num_v_heads,
            d_conv=d_conv,
            conv_bias=conv_bias,
            gate_bias=gate_bias,
            negative_eigenvalues=negative_eigenvalues,
            lower_bound=lower_bound,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, key, dtype)


MODULES.update(
    KDA=KDA,
)
