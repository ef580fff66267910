"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.adapters.flax.base import MODULES, InputDependentModule


class GatedDeltaProduct(InputDependentModule):
    """Gated DeltaNet with several keys and values a step: a product of generalized Householder matrices.

    Options as `ssm_core.layers.GatedDeltaProduct`, calls and steps as `SSMModule`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import GatedDeltaProduct
    >>> import jax
    >>> layer = GatedDeltaProduct(d_model=4, heads=2, head_dim=2, rngs=nnx.Rngs(0))
    >>> jax.jit(layer)(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.GatedDeltaProduct

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 6,
        head_dim: int = 256,
        expand_v: float = 2.0,
        num_v_heads: int | None = None,
        num_householder: int = 2,
        d_conv: int = 4,
        conv_bias: bool = False,
        negative_eigenvalues: bool = True,
        forget_gate: bool = True,
        output_gate: bool = True,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.GatedDeltaProduct(
            d_model=d_model,
            heads=heads,
            head_dim=head_dim,
            expand_v=expand_v,
            num_v_heads=num_v_heads,
            num_householder=num_householder,
            d_conv=d_conv,
            conv_bias=conv_bias,
            negative_eigenvalues=negative_eigenvalues,
            forget_gate=forget_gate,
            output_gate=output_gate,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    GatedDeltaProduct=GatedDeltaProduct,
)
