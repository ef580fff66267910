"""The layers as Flax NNX modules, one explicit class each; all arithmetic is in `ssm_core.layers`."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ssm_core import layers

from .base import SSMModule


class S4D(SSMModule):
    """S4D: a diagonal state space model in every channel. Options as `ssm_core.layers.S4D`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> S4D(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.S4D

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "lin",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "zoh",
        real: bool = False,
        trainable_B: bool = True,
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.S4D(
            d_model, d_state, init, dt_min, dt_max, discretization, real, trainable_B, n_ssm, channels,
            bidirectional, activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (channels, H, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class S4(SSMModule):
    """S4: a diagonal plus low-rank state space model in every channel. Options as `ssm_core.layers.S4`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> S4(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.S4

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "legs",
        rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "bilinear",
        min_decay: float = 0.0001,
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.S4(
            d_model, d_state, init, rank, dt_min, dt_max, discretization, min_decay, n_ssm, channels,
            bidirectional, activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (channels, H, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class DSS(SSMModule):
    """DSS: diagonal state spaces whose kernel is a softmax over time. Options as `ssm_core.layers.DSS`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> DSS(d_model=4, length=10, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.DSS

    def __init__(
        self,
        d_model: int,
        *,
        length: int,
        d_state: int = 64,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        epsilon: float = 1e-07,
        n_ssm: int | None = 1,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.DSS(
            d_model, length, d_state, dt_min, dt_max, epsilon, n_ssm, channels, bidirectional, activation,
            output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (channels, H, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class SSM(SSMModule):
    """SSM: a state space model with a full trainable matrix in every channel. Options as `ssm_core.layers.SSM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> SSM(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.SSM

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "legs",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "bilinear",
        n_ssm: int | None = None,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.SSM(
            d_model, d_state, init, dt_min, dt_max, discretization, n_ssm, channels, bidirectional,
            activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (channels, H, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class LMU(SSMModule):
    """LMU: a memory of the last theta steps in every channel. Options as `ssm_core.layers.LMU`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> LMU(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LMU

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        theta: float = 1000.0,
        discretization: str = "zoh",
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LMU(
            d_model, d_state, theta, discretization, channels, bidirectional, activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (channels, H, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class S5(SSMModule):
    """S5: one diagonal state space model for all channels together. Options as `ssm_core.layers.S5`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.S5

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        blocks: int = 1,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        discretization: str = "zoh",
        conj_sym: bool = True,
        clip_eigs: bool = False,
        max_real: float = 1e-4,
        liquid: bool = False,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.S5(
            d_model, d_state, blocks, dt_min, dt_max, discretization, conj_sym, clip_eigs, max_real, liquid,
            bidirectional, activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (H, H, L) from every input to every output."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class LRU(SSMModule):
    """LRU: the linear recurrent unit. Options as `ssm_core.layers.LRU`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> LRU(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LRU

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = math.tau,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LRU(
            d_model, d_state, r_min, r_max, max_phase, bidirectional, activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (H, H, L) from every input to every output."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class RTF(SSMModule):
    """RTF: a rational transfer function in every channel. Options as `ssm_core.layers.RTF`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> RTF(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RTF

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
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RTF(
            d_model, d_state, init, constraint, n_ssm, bidirectional, activation, output,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels (1, H, L), or (2, H, L) in two directions."""
        return self.definition.kernel(self.arrays(), length, rate=rate)


class LinOSS(SSMModule):
    """LinOSS: a layer of forced harmonic oscillators. Options as `ssm_core.layers.LinOSS`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> LinOSS(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LinOSS

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        scheme: str = "imex",
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LinOSS(
            d_model, d_state, scheme, bidirectional, activation, output, skip,
        )  # fmt: skip
        super().__init__(definition, rngs, param_dtype)

    def kernel(self, length: int, *, rate: Any = 1.0) -> jax.Array:
        """The convolution kernels of the oscillators (1, 2P, L)."""
        return self.definition.kernel(self.arrays(), length, rate=rate)
