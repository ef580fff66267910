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
        norm_weights: bool = False,
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
            norm_weights=norm_weights,
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
        dt_tie: bool = True,
        bandlimit: float | None = None,
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
            dt_tie=dt_tie,
            bandlimit=bandlimit,
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
        postnorm: bool = False,
        epsilon: float = 1e-05,
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
            postnorm=postnorm,
            epsilon=epsilon,
        )
        super().__init__(definition, rngs, param_dtype)


MODULES.update(
    Mamba=Mamba,
    Mamba2=Mamba2,
    Mamba3=Mamba3,
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
