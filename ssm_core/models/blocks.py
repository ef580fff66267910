"""Blocks, of which models are patterns: a mixer along time and a channel mix at every step, each with its residual.

    x = x + dropout(mixer(norm(x)))
    x = x + dropout(channel_mix(channel_norm(x)))      where there is a channel mix

or with the norms behind the residuals, x = norm(x + dropout(mixer(x))).

x (B, L, H), or (B, H) at one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._arrays.errors import OptionError, unknown
from .._arrays.library import Array, Namespace
from .._arrays.numbers import flag
from ..functions.affine import affine
from ..functions.norms import EPSILON, layer_norm, normed
from ..functions.special import activation
from ..layers import parametrizations as common
from ..layers.gated.base import check_epsilon
from ..layers.layer import Layer
from ..layers.options import settle, thawed
from ..layers.parameters import Parameter, Parameters, constant, linear
from ..layers.registry import make

Function = Callable[[Array], Array]  # of features, the same at every step

NORMS = ("layer", "rms", None)
CHANNEL_MIXES = ("mlp", "gated_mlp", None)


@dataclass(frozen=True)
class Norm:
    """kind over the last axis: "layer" (x - mean) / sqrt(var + epsilon), "rms" x / sqrt(mean(x^2) + epsilon), or None.

    Both are weighted feature by feature, and the layer norm has a bias.
    """

    kind: str | None
    d_model: int
    epsilon: float = EPSILON

    def parameters(self) -> tuple[Parameter, ...]:
        weight = constant("weight", (self.d_model,), lambda: 1.0)
        bias = constant("bias", (self.d_model,), lambda: 0.0)
        found: dict[str | None, tuple[Parameter, ...]] = {"layer": (weight, bias), "rms": (weight,)}
        return found.get(self.kind, ())

    def function(self, params: Parameters, xp: Namespace) -> Function:
        """x -> the norm of x."""
        if self.kind is None:
            return unchanged
        weight = params["weight"]
        if self.kind == "rms":
            return lambda x: normed(x, weight, epsilon=self.epsilon)
        return lambda x: layer_norm(x, weight, params["bias"], xp, self.epsilon)


@dataclass(frozen=True)
class ChannelMix:
    """What a block does to the features of every step by itself.

    mlp        W_down gelu(W_up x + b_up) + b_down
    gated_mlp  W_down (silu(W_gate x) * W_up x)

    kind     one of the two
    d_model  H
    width    hidden features; as None 4 H, or 8 H / 3 of a gated one, which then has as many weights

    Shazeer, GLU variants improve Transformer, 2020, https://arxiv.org/abs/2002.05202.
    """

    kind: str
    d_model: int
    width: int | None = None

    def maps(self) -> dict[str, tuple[int, int]]:
        """(features in, features out) of its linear maps by their names, in their order."""
        H, gated = self.d_model, self.kind == "gated_mlp"
        width = self.width or (-(-8 * H // 3) if gated else 4 * H)
        return ({"gate": (H, width)} if gated else {}) | {"up": (H, width), "down": (width, H)}

    @property
    def bias(self) -> bool:
        """Whether its linear maps have a bias."""
        return self.kind == "mlp"

    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(
            p for name, sizes in self.maps().items() for p in linear(f"{name}.", *sizes)[: 2 if self.bias else 1]
        )

    def function(self, params: Parameters) -> Function:
        """x -> the mix of x."""
        maps = {
            name: linear_map(params[f"{name}.weight"], params[f"{name}.bias"] if self.bias else None)
            for name in self.maps()
        }
        return lambda x: self.compose(x, maps)

    def compose(self, x: Array, maps: Any) -> Array:
        """The mix from its linear maps by name, whichever framework they are of."""
        if self.kind == "mlp":
            y: Array = maps["down"](activation("gelu")(maps["up"](x)))
            return y
        y = maps["down"](activation("silu")(maps["gate"](x)) * maps["up"](x))
        return y


@dataclass(frozen=True)
class Block:
    """A block without its weights.

    d_model        H
    layer          name of the mixer, a layer such as "S4D"
    layer_options  its options but d_model
    norm           "layer", "rms" or None; the channel mix has one of the same kind
    epsilon        of the norms
    channel_mix    "mlp", "gated_mlp" or None
    mix_width      hidden features of the channel mix, see `ChannelMix`
    dropout        rate, in training only; it lives in the frameworks' modules; None without any
    mixer_name     of the mixer among the parameters
    postnorm       the norms are behind the residuals
    """

    d_model: int
    layer: str
    layer_options: Mapping[str, Any]
    norm: str | None = "layer"
    epsilon: float = EPSILON
    channel_mix: str | None = None
    mix_width: int | None = None
    dropout: float | None = None
    mixer_name: str = "mixer"
    postnorm: bool = False

    def __post_init__(self) -> None:
        settle(self)

    def mixer(self) -> Layer:
        """The layer along time."""
        return make(self.layer, {"d_model": self.d_model, **thawed(self.layer_options)})

    def norms(self) -> dict[str, Norm]:
        """Of the mixer, and of the channel mix if there is one."""
        one = Norm(self.norm, self.d_model, self.epsilon)
        return {"norm": one} | ({} if self.channel_mix is None else {"channel_norm": one})

    def mix(self) -> ChannelMix | None:
        """The channel mix, if there is one."""
        return None if self.channel_mix is None else ChannelMix(self.channel_mix, self.d_model, self.mix_width)

    def parameters(self) -> tuple[Parameter, ...]:
        norms, mix = self.norms(), self.mix()
        found = [*below("norm.", norms["norm"].parameters()), *below(f"{self.mixer_name}.", self.mixer().parameters())]
        if mix is not None:
            found.extend(below("channel_norm.", norms["channel_norm"].parameters()))
            found.extend(below("channel_mix.", mix.parameters()))
        return tuple(found)

    def mixer_parameters(self, params: Parameters) -> Parameters:
        """Those of the mixer, by its own names."""
        return under(params, f"{self.mixer_name}.")

    def parts(self, params: Parameters, mixer: Callable[..., Any], xp: Namespace) -> BlockParts:
        """The block as functions, around a run or a step of the mixer."""
        norms, mix = self.norms(), self.mix()
        functions = {name: norm.function(under(params, f"{name}."), xp) for name, norm in norms.items()}
        mixing = None if mix is None else mix.function(under(params, "channel_mix."))
        return BlockParts(functions["norm"], mixer, functions.get("channel_norm"), mixing, postnorm=self.postnorm)

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
        mixer = self.mixer()
        output, channels = getattr(mixer, "output", ""), getattr(mixer, "channels", 1)
        if output in (None, "half_glu", "half_glu2") and channels > 1:
            raise OptionError(
                f"{operation}: a layer of output {output!r} has channels * d_model features (channels: {channels}), "
                "but the residual needs d_model. Use output='linear' or 'glu'."
            )


@dataclass(frozen=True)
class BlockParts:
    """A block as functions of arrays, whichever framework they are of.

    norm          of the features before the mixer, or behind its residual
    mixer         of a run: (z, **options of a layer) -> y, and with return_state (y, state); of a step:
                  (z, state) -> (y, state)
    channel_norm  before the channel mix, or behind its residual
    channel_mix   None without one
    dropout       of what is added
    postnorm      whether the norms are behind the residuals
    """

    norm: Function
    mixer: Callable[..., Any]
    channel_norm: Function | None = None
    channel_mix: Function | None = None
    dropout: Function | None = None
    postnorm: bool = False

    def run(self, x: Array, *, return_state: bool = False, **options: Any) -> Any:
        """x (B, L, H) through the block, and with return_state the mixer's last state."""
        y = self.mixer(x if self.postnorm else self.norm(x), return_state=return_state, **options)
        y, state = y if return_state else (y, None)
        x = self._mixed(self._added(x, y, self.norm))
        return (x, state) if return_state else x

    def step(self, x: Array, state: Any) -> tuple[Array, Any]:
        """x (B, H) through the block, and the mixer's state after it."""
        y, state = self.mixer(x if self.postnorm else self.norm(x), state)
        return self._mixed(self._added(x, y, self.norm)), state

    def _mixed(self, x: Array) -> Array:
        """x and the channel mix of it."""
        if self.channel_mix is None or self.channel_norm is None:
            return x
        y = self.channel_mix(x if self.postnorm else self.channel_norm(x))
        return self._added(x, y, self.channel_norm)

    def _added(self, x: Array, y: Array, norm: Function) -> Array:
        x = x + (y if self.dropout is None else self.dropout(y))
        return norm(x) if self.postnorm else x


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
