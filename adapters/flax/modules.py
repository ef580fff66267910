"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core import layers, models
from ssm_core.adapters.flax.base import MODULES, InputDependentModule, TimeInvariantModule
from ssm_core.adapters.flax.blocks import LanguageModule, SequenceModule


class GLA(InputDependentModule):
    """Gated linear attention: every channel of the keys forgets at a rate of its own, of the input.

    Options as `ssm_core.layers.GLA`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = GLA(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.GLA

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        gate_rank: int = 16,
        gate_normalizer: float = 16.0,
        output_gate: bool = True,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.GLA(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            gate_rank=gate_rank,
            gate_normalizer=gate_normalizer,
            output_gate=output_gate,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class HGRN2(InputDependentModule):
    """The hierarchically gated RNN with states expanded to matrices: what is not forgotten is not written.

    Options as `ssm_core.layers.HGRN2`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = HGRN2(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.HGRN2

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        expand_k: float = 1.0,
        lower_bound: float | None = 0.0,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.HGRN2(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            lower_bound=lower_bound,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class Lightning(InputDependentModule):
    """Lightning attention as in MiniMax-01: constant decays, a norm over all heads and a gate.

    Options as `ssm_core.layers.Lightning`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = Lightning(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.Lightning

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        head_dim: int | None = None,
        slopes: str = "minimax",
        layer_idx: int = 0,
        num_layers: int = 1,
        epsilon: float = 1e-06,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Lightning(
            d_model=d_model,
            heads=heads,
            head_dim=head_dim,
            slopes=slopes,
            layer_idx=layer_idx,
            num_layers=num_layers,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class LinearAttention(InputDependentModule):
    """Causal linear attention with a feature map, and with the sum of the keys as a normalizer.

    Options as `ssm_core.layers.LinearAttention`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = LinearAttention(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.LinearAttention

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        feature_map: str | None = "elu",
        normalize: bool = True,
        output_norm: bool = True,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.LinearAttention(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            feature_map=feature_map,
            normalize=normalize,
            output_norm=output_norm,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class Mamba(InputDependentModule):
    """The block of Mamba: a gated selective state space model whose steps, B and C are functions of the input.

    Options as `ssm_core.layers.Mamba`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = Mamba(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            dt_rank=dt_rank,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            conv_bias=conv_bias,
            bias=bias,
            norm_epsilon=norm_epsilon,
            discretization=discretization,
        )
        super().__init__(definition, rngs, param_dtype)


class Mamba2(InputDependentModule):
    """The block of Mamba-2: heads of features with one decay each, computed as products of matrices.

    Options as `ssm_core.layers.Mamba2`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = Mamba2(d_model=4, d_state=8, head_dim=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Mamba2(
            d_model=d_model,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            head_dim=head_dim,
            n_groups=n_groups,
            A_min=A_min,
            A_max=A_max,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            dt_limit=dt_limit,
            conv_bias=conv_bias,
            bias=bias,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class Mamba3(InputDependentModule):
    """The block of Mamba-3: no convolution, but steps that mix the input with the one before, and rotating states.

    Options as `ssm_core.layers.Mamba3`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = Mamba3(d_model=4, d_state=8, head_dim=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.Mamba3(
            d_model=d_model,
            d_state=d_state,
            expand=expand,
            head_dim=head_dim,
            n_groups=n_groups,
            rank=rank,
            rope_fraction=rope_fraction,
            A_floor=A_floor,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            out_norm=out_norm,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class MLSTM(InputDependentModule):
    """The mLSTM layer of xLSTM: gates of a head and a step, exponential ones for the input.

    Options as `ssm_core.layers.MLSTM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = MLSTM(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.MLSTM

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        qk_dim_factor: float = 0.5,
        v_dim_factor: float = 1.0,
        gate_soft_cap: float = 15.0,
        bias: bool = False,
        epsilon: float = 1e-06,
        norm_epsilon: float = 1e-06,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.MLSTM(
            d_model=d_model,
            heads=heads,
            qk_dim_factor=qk_dim_factor,
            v_dim_factor=v_dim_factor,
            gate_soft_cap=gate_soft_cap,
            bias=bias,
            epsilon=epsilon,
            norm_epsilon=norm_epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class RetNet(InputDependentModule):
    """The multi-scale retention of RetNet: every head forgets at a constant rate of its own.

    Options as `ssm_core.layers.RetNet`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = RetNet(d_model=4, heads=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RetNet

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        expand_k: float = 1.0,
        expand_v: float = 2.0,
        rotation: str = "half",
        row_norm: bool = False,
        norm_weight: bool = True,
        epsilon: float = 1e-05,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RetNet(
            d_model=d_model,
            heads=heads,
            expand_k=expand_k,
            expand_v=expand_v,
            rotation=rotation,
            row_norm=row_norm,
            norm_weight=norm_weight,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class RWKV5(InputDependentModule):
    """The time mix of RWKV-5: constant decays of every channel, and a bonus for the step itself.

    Options as `ssm_core.layers.RWKV5`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = RWKV5(d_model=4, head_dim=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RWKV5

    def __init__(
        self,
        d_model: int,
        *,
        head_dim: int = 64,
        layer_idx: int = 0,
        num_layers: int = 1,
        epsilon: float = 0.00064,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RWKV5(
            d_model=d_model,
            head_dim=head_dim,
            layer_idx=layer_idx,
            num_layers=num_layers,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class RWKV6(InputDependentModule):
    """The time mix of RWKV-6: decays of every channel and step, and a token shift that depends on the input.

    Options as `ssm_core.layers.RWKV6`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = RWKV6(d_model=4, head_dim=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RWKV6

    def __init__(
        self,
        d_model: int,
        *,
        head_dim: int = 64,
        mix_rank: int = 32,
        decay_rank: int = 64,
        layer_idx: int = 0,
        num_layers: int = 1,
        epsilon: float = 0.00064,
        chunk: int = 64,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RWKV6(
            d_model=d_model,
            head_dim=head_dim,
            mix_rank=mix_rank,
            decay_rank=decay_rank,
            layer_idx=layer_idx,
            num_layers=num_layers,
            epsilon=epsilon,
            chunk=chunk,
        )
        super().__init__(definition, rngs, param_dtype)


class RWKVChannelMix(InputDependentModule):
    """The channel mix of RWKV: what a block does to the features of a step and of the one before.

    Options as `ssm_core.layers.RWKVChannelMix`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = RWKVChannelMix(d_model=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
    (2, 10, 4)
    """

    definition: layers.RWKVChannelMix

    def __init__(
        self,
        d_model: int,
        *,
        width: int | None = None,
        gated: bool = True,
        layer_idx: int = 0,
        num_layers: int = 1,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.RWKVChannelMix(
            d_model=d_model,
            width=width,
            gated=gated,
            layer_idx=layer_idx,
            num_layers=num_layers,
        )
        super().__init__(definition, rngs, param_dtype)


class DSS(TimeInvariantModule):
    """A layer of diagonal state spaces, one a channel, whose kernel is normalized over a length.

    Options as `ssm_core.layers.DSS`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = DSS(d_model=4, length=10, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            length=length,
            d_state=d_state,
            dt_min=dt_min,
            dt_max=dt_max,
            epsilon=epsilon,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class LinOSS(TimeInvariantModule):
    """A layer of P forced harmonic oscillators between two matrices, in discrete time.

    Options as `ssm_core.layers.LinOSS`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = LinOSS(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            scheme=scheme,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class LMU(TimeInvariantModule):
    """A layer of Legendre memory units, one a channel: the state holds the last theta steps in Legendre polynomials.

    Options as `ssm_core.layers.LMU`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = LMU(d_model=4, d_state=6, theta=100, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            theta=theta,
            discretization=discretization,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class LRU(TimeInvariantModule):
    """A layer of one diagonal recurrence with as many inputs and outputs as there are channels, in discrete time.

    Options as `ssm_core.layers.LRU`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = LRU(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            r_min=r_min,
            r_max=r_max,
            max_phase=max_phase,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class RTF(TimeInvariantModule):
    """A layer of rational transfer functions, one a channel, trained by their coefficients and free of states.

    Options as `ssm_core.layers.RTF`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = RTF(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            init=init,
            constraint=constraint,
            n_ssm=n_ssm,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
        )
        super().__init__(definition, rngs, param_dtype)


class S4(TimeInvariantModule):
    """A layer of state space models with a matrix that is diagonal plus low rank, one a channel, as HiPPO's are.

    Options as `ssm_core.layers.S4`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = S4(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            init=init,
            rank=rank,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            min_decay=min_decay,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class S4D(TimeInvariantModule):
    """A layer of diagonal state space models, one a channel, with a nonlinear mix of the channels.

    Options as `ssm_core.layers.S4D`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = S4D(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            init=init,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            real=real,
            trainable_B=trainable_B,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class S5(TimeInvariantModule):
    """A layer of one diagonal state space model with as many inputs and outputs as there are channels.

    Options as `ssm_core.layers.S5`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
        max_real: float = 0.0001,
        liquid: bool = False,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        skip: bool = True,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = layers.S5(
            d_model=d_model,
            d_state=d_state,
            blocks=blocks,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            conj_sym=conj_sym,
            clip_eigs=clip_eigs,
            max_real=max_real,
            liquid=liquid,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class SSM(TimeInvariantModule):
    """A layer of state space models with a full matrix, one a channel: the linear state space layer without structure.

    Options as `ssm_core.layers.SSM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = SSM(d_model=4, d_state=8, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 10, 4))).shape
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
            d_model=d_model,
            d_state=d_state,
            init=init,
            dt_min=dt_min,
            dt_max=dt_max,
            discretization=discretization,
            n_ssm=n_ssm,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            skip=skip,
        )
        super().__init__(definition, rngs, param_dtype)


class LanguageModel(LanguageModule):
    """A language model around any layer.

    Options as `ssm_core.models.LanguageModel`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = LanguageModel(vocab_size=10, d_model=8, n_layers=2, layer="S4D", channel_mix="mlp", rngs=nnx.Rngs(0))
    >>> model(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.LanguageModel

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer: str = "S4D",
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.LanguageModel(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer=layer,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, rngs, param_dtype)


class MambaLM(LanguageModule):
    """The language model of Mamba: `LanguageModel` with blocks of `Mamba`.

    Options as `ssm_core.models.MambaLM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = MambaLM(vocab_size=10, d_model=8, n_layers=2, rngs=nnx.Rngs(0))
    >>> model(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.MambaLM

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.MambaLM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, rngs, param_dtype)


class Mamba2LM(LanguageModule):
    """The language model of Mamba-2: `LanguageModel` with blocks of `Mamba2`.

    Options as `ssm_core.models.Mamba2LM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = Mamba2LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, rngs=nnx.Rngs(0))
    >>> model(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.Mamba2LM

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.Mamba2LM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, rngs, param_dtype)


class Mamba3LM(LanguageModule):
    """The language model of Mamba-3: `LanguageModel` with blocks of `Mamba3`.

    Options as `ssm_core.models.Mamba3LM`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = Mamba3LM(vocab_size=10, d_model=8, n_layers=2, layer_options={"head_dim": 4}, rngs=nnx.Rngs(0))
    >>> model(jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 10)
    """

    definition: models.Mamba3LM

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        *,
        layer_options: Mapping[str, Any] | None = None,
        tied: bool = True,
        epsilon: float = 1e-05,
        channel_mix: str | None = None,
        mix_width: int | None = None,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.Mamba3LM(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            layer_options={} if layer_options is None else layer_options,
            tied=tied,
            epsilon=epsilon,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, rngs, param_dtype)


class SequenceModel(SequenceModule):
    """Encoder, residual blocks of norm, layer and dropout, pooling, head.

    Options as `ssm_core.models.SequenceModel`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = SequenceModel(d_input=1, d_output=10, d_model=8, n_layers=2, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((3, 20, 1))).shape
    (3, 10)
    """

    definition: models.SequenceModel

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 64,
        n_layers: int = 4,
        *,
        layer: str = "S4D",
        layer_options: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        pool: str | None = "mean",
        channel_mix: str | None = None,
        mix_width: int | None = None,
        rngs: nnx.Rngs,
        param_dtype: Any = jnp.float32,
    ) -> None:
        definition = models.SequenceModel(
            d_input=d_input,
            d_output=d_output,
            d_model=d_model,
            n_layers=n_layers,
            layer=layer,
            layer_options={} if layer_options is None else layer_options,
            dropout=dropout,
            pool=pool,
            channel_mix=channel_mix,
            mix_width=mix_width,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    GLA=GLA,
    HGRN2=HGRN2,
    Lightning=Lightning,
    LinearAttention=LinearAttention,
    Mamba=Mamba,
    Mamba2=Mamba2,
    Mamba3=Mamba3,
    MLSTM=MLSTM,
    RetNet=RetNet,
    RWKV5=RWKV5,
    RWKV6=RWKV6,
    RWKVChannelMix=RWKVChannelMix,
    DSS=DSS,
    LinOSS=LinOSS,
    LMU=LMU,
    LRU=LRU,
    RTF=RTF,
    S4=S4,
    S4D=S4D,
    S5=S5,
    SSM=SSM,
    LanguageModel=LanguageModel,
    MambaLM=MambaLM,
    Mamba2LM=Mamba2LM,
    Mamba3LM=Mamba3LM,
    SequenceModel=SequenceModel,
)
