"""Mamba and its successors as Flax NNX modules; all arithmetic is in `ssm_core.layers`."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ssm_core import layers
from ssm_core.gated.ssd import CHUNK

from .base import SSMModule


class InputDependentModule(SSMModule):
    """A module whose sequences may be packed one after another, and whose state is a tuple."""

    definition: layers.InputDependent

    def __call__(
        self,
        u: jax.Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: jax.Array | None = None,
        reset: jax.Array | None = None,
        cu_seqlens: jax.Array | None = None,
        rate: Any = 1.0,
        step_scale: jax.Array | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """y (B, L, H) from u (B, L, H); with return_state the pair (y, state). Options as the definition's `apply`."""
        return self.definition.apply(
            self.arrays(), u, state=state, return_state=return_state, lengths=lengths, reset=reset,
            cu_seqlens=cu_seqlens, rate=rate, step_scale=step_scale, mode=mode, recompute=recompute,
        )  # fmt: skip


class Mamba(InputDependentModule):
    """Mamba: a selective state space model between two gates. Options as `ssm_core.layers.Mamba`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> Mamba(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Mamba

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        conv_bias: bool = True,
        bias: bool = False,
        norm_epsilon: float | None = None,
        discretization: str = "mamba",
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Mamba(
            d_model, d_state, d_conv, expand, dt_rank, dt_min, dt_max, dt_floor, conv_bias, bias, norm_epsilon,
            discretization,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)


class Mamba2(InputDependentModule):
    """Mamba-2: heads with one decay each, as products of matrices. Options as `ssm_core.layers.Mamba2`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> Mamba2(d_model=4, d_state=8, head_dim=4, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Mamba2

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        head_dim: int = 64,
        n_groups: int = 1,
        A_min: float = 1.0,
        A_max: float = 16.0,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        conv_bias: bool = True,
        bias: bool = False,
        epsilon: float = 1e-05,
        chunk: int = CHUNK,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Mamba2(
            d_model, d_state, d_conv, expand, head_dim, n_groups, A_min, A_max, dt_min, dt_max, dt_floor, dt_limit,
            conv_bias, bias, epsilon, chunk,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)


class Mamba3(InputDependentModule):
    """Mamba-3: trapezoidal steps and states that rotate. Options as `ssm_core.layers.Mamba3`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> Mamba3(d_model=4, d_state=8, head_dim=4, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Mamba3

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        expand: int = 2,
        head_dim: int = 64,
        n_groups: int = 1,
        rank: int = 1,
        rope_fraction: float = 0.5,
        A_floor: float = 0.0001,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_floor: float = 0.0001,
        out_norm: bool = False,
        epsilon: float = 1e-05,
        chunk: int = CHUNK,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Mamba3(
            d_model, d_state, expand, head_dim, n_groups, rank, rope_fraction, A_floor, dt_min, dt_max, dt_floor,
            out_norm, epsilon, chunk,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)


MIXERS: dict[str, Any] = {cls.__name__: cls for cls in (Mamba, Mamba2, Mamba3)}
