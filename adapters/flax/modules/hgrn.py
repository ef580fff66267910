"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class HGRN(InputDependentModule):
    """The hierarchically gated recurrent network: what is not forgotten is not written.

    Options as `ssm_core.layers.HGRN`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import HGRN
    >>> import jax
    >>> layer = HGRN(d_model=4, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.HGRN

    def __init__(
        self,
        d_model: int,
        *,
        expand: int = 1,
        lower_bound: float = 0.0,
        epsilon: float = 1e-05,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.HGRN(
            d_model=d_model,
            expand=expand,
            lower_bound=lower_bound,
            epsilon=epsilon,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    HGRN=HGRN,
)
