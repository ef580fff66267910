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
from .._arrays.library import Namespace
from .._arrays.numbers import flag
from ..functions.norms import EPSILON
from ..layers import parametrizations as common
from ..layers.gated.base import check_epsilon
from ..layers.layer import Layer
from ..layers.options import settle, thawed
from ..layers.parameters import Parameter, Parameters
from ..layers.registry import LAYERS, make
from .parts import BlockParts
from .pointwise import ChannelMix, Function, Norm

NORMS = ("layer", "rms", "rms_offset", None)
CHANNEL_MIXES = ("mlp", "gated_mlp", None, "RWKVChannelMix")
MIX, MIX_NORM = "channel_mix", "channel_norm"  # among the parameters
LAYER_MIXES = ("RWKVChannelMix",)  # channel mixes that look at the step before: layers, with a state


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


def of_place(layer: str | None, i: int, n: int) -> dict[str, Any]:
    """The options of a layer that say it is the i-th of n; of RWKV-7 who gives the first values, and who takes them."""
    known = set() if layer not in LAYERS else {f.name for f in fields(LAYERS[layer])}
    found: dict[str, Any] = {"layer_idx": i, "num_layers": n} if {"layer_idx", "num_layers"} <= known else {}
    handed = {"first_values": "taken" if i else "given"} if "first_values" in known and n > 1 else {}
    return found | handed


def below(prefix: str, parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """The same parameters by longer names."""
    return tuple(replace(p, name=f"{prefix}{p.name}") for p in parameters)


def under(params: Parameters, prefix: str) -> Parameters:
    """The parameters whose names begin so, by the rest of their names."""
    return {name[len(prefix) :]: p for name, p in params.items() if name.startswith(prefix)}
