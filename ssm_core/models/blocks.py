"""Blocks, of which models are patterns: a mixer along time and a channel mix at every step, each with its residual.

    x = x + dropout(mixer(norm(x)))
    x = x + dropout(channel_mix(channel_norm(x)))      where there is a channel mix

or with the norms behind the residuals, x = norm(x + dropout(mixer(x))).

x (B, L, H), or (B, H) at one step. What stands behind the H features, as the values of RWKV-7's first layer, goes by
the norms to the mixer and on to the next block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from .._arrays.errors import OptionError, unknown
from .._arrays.library import Array, Namespace, namespace
from .._arrays.numbers import flag
from ..functions.affine import affine
from ..functions.norms import EPSILON, layer_norm, normed
from ..functions.special import activation
from ..layers import parametrizations as common
from ..layers.gated.base import check_epsilon
from ..layers.layer import Layer
from ..layers.options import settle, thawed
from ..layers.parameters import Parameter, Parameters, constant, linear
from ..layers.registry import LAYERS, make

Function = Callable[[Array], Array]  # of features, the same at every step

NORMS = ("layer", "rms", "rms_offset", None)
CHANNEL_MIXES = ("mlp", "gated_mlp", None, "RWKVChannelMix")
MIX, MIX_NORM = "channel_mix", "channel_norm"  # among the parameters
LAYER_MIXES = ("RWKVChannelMix",)  # channel mixes that look at the step before: layers, with a state


@dataclass(frozen=True)
class Norm:
    """kind over the last axis: "layer" (x - mean) / sqrt(var + epsilon), "rms" x / sqrt(mean(x^2) + epsilon), or None.

    Both are weighted feature by feature, "rms_offset" by 1 + weight. The layer norm has a bias, the others have none,
    unless `bias` says otherwise.
    """

    kind: str | None
    d_model: int
    epsilon: float = EPSILON
    bias: bool | None = None

    @property
    def biased(self) -> bool:
        """Whether there is a bias."""
        return self.kind == "layer" if self.bias is None else self.bias

    def parameters(self) -> tuple[Parameter, ...]:
        if self.kind is None:
            return ()
        first = 0.0 if self.kind == "rms_offset" else 1.0
        weight = constant("weight", (self.d_model,), lambda: first)
        return (weight, constant("bias", (self.d_model,), lambda: 0.0)) if self.biased else (weight,)

    def function(self, params: Parameters, xp: Namespace) -> Function:
        """x -> the norm of x."""
        if self.kind is None:
            return unchanged
        weight, bias = params["weight"], params.get("bias")
        if self.kind == "layer":
            return lambda x: layer_norm(x, weight, bias, xp, self.epsilon)
        weight = 1 + weight if self.kind == "rms_offset" else weight
        if bias is None:
            return lambda x: normed(x, weight, epsilon=self.epsilon)
        return lambda x: normed(x, weight, epsilon=self.epsilon) + bias


@dataclass(frozen=True)
class ChannelMix:
    """What a block does to the features of every step by itself.

    mlp        W_down gelu(W_up x + b_up) + b_down
    gated_mlp  W_down (silu(W_gate x) * W_up x)

    kind        one of the two
    d_model     H
    width       hidden features; as None 4 H, or 8 H / 3 of a gated one, which then has as many weights
    activation  in place of the gelu or the silu, such as "gelu_tanh"
    bias        whether the maps have one; as None an mlp's have, a gated one's have not

    Shazeer, GLU variants improve Transformer, 2020, https://arxiv.org/abs/2002.05202.
    """

    kind: str
    d_model: int
    width: int | None = None
    activation: str | None = None
    bias: bool | None = None

    def maps(self) -> dict[str, tuple[int, int]]:
        """(features in, features out) of its linear maps by their names, in their order."""
        H, gated = self.d_model, self.kind == "gated_mlp"
        width = self.width or (-(-8 * H // 3) if gated else 4 * H)
        return ({"gate": (H, width)} if gated else {}) | {"up": (H, width), "down": (width, H)}

    @property
    def biased(self) -> bool:
        """Whether its linear maps have a bias."""
        return self.kind == "mlp" if self.bias is None else self.bias

    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(
            p for name, sizes in self.maps().items() for p in linear(f"{name}.", *sizes)[: 2 if self.biased else 1]
        )

    def function(self, params: Parameters) -> Function:
        """x -> the mix of x."""
        maps = {name: linear_map(params[f"{name}.weight"], params.get(f"{name}.bias")) for name in self.maps()}
        return lambda x: self.compose(x, maps)

    def compose(self, x: Array, maps: Any) -> Array:
        """The mix from its linear maps by name, whichever framework they are of."""
        if self.kind == "mlp":
            y: Array = maps["down"](activation(self.activation or "gelu")(maps["up"](x)))
            return y
        y = maps["down"](activation(self.activation or "silu")(maps["gate"](x)) * maps["up"](x))
        return y


@dataclass(frozen=True)
class Block:
    """A block without its weights.

    d_model        H
    layer          name of the mixer, a layer such as "S4D"
    layer_options  its options but d_model
    norm           "layer", "rms", "rms_offset" or None; the channel mix has one of the same kind
    epsilon        of the norms
    norm_bias      whether the norms have a bias, see `Norm`
    channel_mix    "mlp", "gated_mlp", "RWKVChannelMix" or None
    mix_width      hidden features of the channel mix, see `ChannelMix`
    mix_options    its other options
    dropout        rate, in training only; it lives in the frameworks' modules; None without any
    mixer_name     of the mixer among the parameters
    postnorm       the norms are behind the residuals
    """

    d_model: int
    layer: str
    layer_options: Mapping[str, Any]
    norm: str | None = "layer"
    epsilon: float = EPSILON
    norm_bias: bool | None = None
    channel_mix: str | None = None
    mix_width: int | None = None
    mix_options: Mapping[str, Any] = field(default_factory=dict)
    dropout: float | None = None
    mixer_name: str = "mixer"
    postnorm: bool = False

    def __post_init__(self) -> None:
        settle(self)

    def placed(self, i: int, n: int) -> Block:
        """The i-th of n such blocks: its layers know their place where they have an option for it."""
        mixer = of_place(self.layer, i, n) | thawed(self.layer_options)
        mix = of_place(self.channel_mix, i, n) | thawed(self.mix_options)
        return replace(self, layer_options=mixer, mix_options=mix)

    def mixer(self) -> Layer:
        """The layer along time."""
        return self._mixer

    @cached_property
    def _mixer(self) -> Layer:
        return make(self.layer, {"d_model": self.d_model, **thawed(self.layer_options)})

    def norms(self) -> dict[str, Norm]:
        """Of the mixer, and of the channel mix if there is one."""
        one = Norm(self.norm, self.d_model, self.epsilon, self.norm_bias)
        return {"norm": one} | ({} if self.channel_mix is None else {MIX_NORM: one})

    def mix(self) -> ChannelMix | Layer | None:
        """The channel mix, if there is one: a layer, where it has a state."""
        return self._mix

    @cached_property
    def _mix(self) -> ChannelMix | Layer | None:
        if self.channel_mix is None:
            return None
        if self.channel_mix in LAYER_MIXES:
            options = {"d_model": self.d_model, "width": self.mix_width, **thawed(self.mix_options)}
            return make(self.channel_mix, options)
        return ChannelMix(self.channel_mix, self.d_model, self.mix_width, **thawed(self.mix_options))

    def layers(self) -> dict[str, Layer]:
        """What has a state, by its name among the parameters: the mixer, and maybe the channel mix."""
        found, mix = {self.mixer_name: self.mixer()}, self.mix()
        return found | {MIX: mix} if isinstance(mix, Layer) else found

    def parameters(self) -> tuple[Parameter, ...]:
        norms, mix = self.norms(), self.mix()
        found = [*below("norm.", norms["norm"].parameters()), *below(f"{self.mixer_name}.", self.mixer().parameters())]
        if mix is not None:
            found.extend(below(f"{MIX_NORM}.", norms[MIX_NORM].parameters()))
            found.extend(below(f"{MIX}.", mix.parameters()))
        return tuple(found)

    def mixer_parameters(self, params: Parameters) -> Parameters:
        """Those of the mixer, by its own names."""
        return under(params, f"{self.mixer_name}.")

    def parts(
        self,
        params: Parameters,
        along: Mapping[str, Callable[..., Any]],
        xp: Namespace,
        dropout: Function | None = None,
    ) -> BlockParts:
        """The block as functions, around runs or steps of its layers by their names."""
        norms, mix = self.norms(), self.mix()
        functions = {name: norm.function(under(params, f"{name}."), xp) for name, norm in norms.items()}
        mixing = mix.function(under(params, f"{MIX}.")) if isinstance(mix, ChannelMix) else None
        return self.composed(functions | ({} if mixing is None else {MIX: mixing}) | dict(along), dropout)

    def composed(self, parts: Mapping[str, Any], dropout: Function | None = None) -> BlockParts:
        """The block of functions by their names, whichever framework they are of."""
        stateful = self.channel_mix in LAYER_MIXES
        mix = (parts.get(MIX_NORM), parts.get(MIX), stateful)
        return BlockParts(self.d_model, parts["norm"], parts[self.mixer_name], *mix, dropout, self.postnorm)

    def start(self, starts: Sequence[Callable[[int], Any]]) -> Callable[[int], Any]:
        """The first state of so many sequences, from those of the layers in their order."""
        return starts[0] if len(starts) == 1 else lambda batch: tuple(start(batch) for start in starts)

    def check(self, operation: str) -> None:
        """Raise for options that no block can have."""
        if self.norm not in NORMS:
            raise unknown(operation, "norm", self.norm, NORMS)
        if self.channel_mix not in CHANNEL_MIXES:
            raise unknown(operation, "channel_mix", self.channel_mix, CHANNEL_MIXES)
        flag(operation, postnorm=self.postnorm)
        check_epsilon(operation, epsilon=self.epsilon)
        if self.mix_width is not None:
            common.whole(operation, mix_width=self.mix_width)
            if self.channel_mix is None:
                raise OptionError(f"{operation}: mix_width = {self.mix_width} needs a channel_mix, such as 'mlp'.")
        dropout = self.dropout
        if dropout is not None and not (isinstance(dropout, int | float) and 0 <= dropout < 1):
            raise OptionError(f"{operation}: dropout = {dropout!r} must lie in [0, 1).")
        mixer, _ = self.mixer(), self.mix()
        output, channels = getattr(mixer, "output", ""), getattr(mixer, "channels", 1)
        if output in (None, "half_glu", "half_glu2") and channels > 1:
            raise OptionError(
                f"{operation}: a layer of output {output!r} has channels * d_model features (channels: {channels}), "
                "but the residual needs d_model. Use output='linear' or 'glu'."
            )


@dataclass(frozen=True)
class BlockParts:
    """A block as functions of arrays, whichever framework they are of.

    d_model       H: what is behind so many features goes by the norms
    norm          of the features before the mixer, or behind its residual
    mixer         of a run: (z, **options of a layer) -> y, and with return_state (y, state); of a step:
                  (z, state) -> (y, state)
    channel_norm  before the channel mix, or behind its residual
    channel_mix   None without one
    stateful      whether the channel mix is called as the mixer is, and has a state: the block's is then a pair
    dropout       of what is added
    postnorm      whether the norms are behind the residuals
    """

    d_model: int
    norm: Function
    mixer: Callable[..., Any]
    channel_norm: Function | None = None
    channel_mix: Callable[..., Any] | None = None
    stateful: bool = False
    dropout: Function | None = None
    postnorm: bool = False

    def run(
        self,
        x: Array,
        *,
        state: Any = None,
        return_state: bool = False,
        between: Function | None = None,
        **options: Any,
    ) -> Any:
        """x (B, L, H) through the block, and with return_state the last state of its layers.

        between is done to the features before the channel mix.
        """
        before = (None, None) if state is None else self._apart(state)
        options["return_state"] = return_state

        def mixer(z: Array) -> Any:
            return self.mixer(z, state=before[0], **options)

        def mix(z: Array) -> Any:  # its modes are not the mixer's
            return self.channel_mix(z, state=before[1], **options | {"mode": "auto"})  # type: ignore[misc]

        x, after = self._through(x, mixer, mix, return_state, between)
        return (x, after) if return_state else x

    def step(self, x: Array, state: Any, *, between: Function | None = None) -> tuple[Array, Any]:
        """x (B, H) through the block, and the state of its layers after it."""
        before = self._apart(state)
        mix = self.channel_mix
        return self._through(
            x,
            lambda z: self.mixer(z, before[0]),
            lambda z: mix(z, before[1]),  # type: ignore[misc]
            True,
            between,
        )

    def _apart(self, state: Any) -> Any:
        """The states of the mixer and of the channel mix."""
        return state if self.stateful else (state, None)

    def _through(
        self, x: Array, mixer: Function, mix: Function, stepping: bool, between: Function | None
    ) -> tuple[Array, Any]:
        """x and the states behind both, of functions that give (y, state) where states are kept."""
        H, behind = self.d_model, None
        if x.shape[-1] > H:
            x, behind = x[..., :H], x[..., H:]
        z = x if self.postnorm else self.norm(x)
        y: Any = mixer(z if behind is None else _joined(z, behind))
        y, state = y if stepping else (y, None)
        if y.shape[-1] > H:
            y, behind = y[..., :H], y[..., H:]
        x = self._added(x, y, self.norm)
        if self.channel_mix is not None and self.channel_norm is not None:
            x = x if between is None else between(x)
            z = x if self.postnorm else self.channel_norm(x)
            y = mix(z) if self.stateful else self.channel_mix(z)
            if self.stateful:
                y, after = y if stepping else (y, None)
                state = (state, after)
            x = self._added(x, y, self.channel_norm)
        return x if behind is None else _joined(x, behind), state

    def _added(self, x: Array, y: Array, norm: Function) -> Array:
        x = x + (y if self.dropout is None else self.dropout(y))
        return norm(x) if self.postnorm else x


@dataclass(frozen=True)
class Parts:
    """A model as functions of arrays, whichever framework they are of.

    enter   inputs -> features (..., H)
    blocks  of a run: `BlockParts.run` or what is called alike; of a step: `BlockParts.step`
    leave   features -> outputs
    own     enter is not the definition's: it says which inputs there are
    beside  (n, features): what the mixer of every block takes behind its input; None: nothing
    maps    the linear maps between levels, by name
    """

    enter: Function
    blocks: Sequence[Callable[..., Any]]
    leave: Function
    own: bool = False
    beside: Array | None = None
    maps: Mapping[str, Function] = field(default_factory=dict)


def of_place(layer: str | None, i: int, n: int) -> dict[str, Any]:
    """The options of a layer that say it is the i-th of n; of RWKV-7 who gives the first values, and who takes them."""
    known = set() if layer not in LAYERS else {f.name for f in fields(LAYERS[layer])}
    found: dict[str, Any] = {"layer_idx": i, "num_layers": n} if {"layer_idx", "num_layers"} <= known else {}
    handed = {"first_values": "taken" if i else "given"} if "first_values" in known and n > 1 else {}
    return found | handed


def _joined(x: Array, behind: Array) -> Array:
    return namespace("models", x=x).concat([x, behind], axis=-1)


def unchanged(x: Array) -> Array:
    return x


def linear_map(weight: Array, bias: Array | None) -> Function:
    """x -> W x + b."""
    return lambda x: affine(x, weight, bias)


def below(prefix: str, parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """The same parameters by longer names."""
    return tuple(replace(p, name=f"{prefix}{p.name}") for p in parameters)


def under(params: Parameters, prefix: str) -> Parameters:
    """The parameters whose names begin so, by the rest of their names."""
    return {name[len(prefix) :]: p for name, p in params.items() if name.startswith(prefix)}
