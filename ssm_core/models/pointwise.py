"""What blocks do to the features of every step by itself: norms, channel mixes, linear maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._arrays.library import Array, Namespace
from ..functions.affine import affine
from ..functions.norms import EPSILON, layer_norm, normed
from ..functions.special import activation
from ..layers.parameters import Parameter, Parameters, constant, linear

Function = Callable[[Array], Array]  # of features, the same at every step


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


def unchanged(x: Array) -> Array:
    return x


def linear_map(weight: Array, bias: Array | None) -> Function:
    """x -> W x + b."""
    return lambda x: affine(x, weight, bias)
