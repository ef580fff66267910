"""What follows the systems of a time-invariant layer: y = map(activation(v + D u))."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._arrays.errors import unknown
from .._arrays.library import Array, Namespace
from ..functions.affine import affine, glu
from ..functions.special import ACTIVATIONS, activation
from .parameters import Parameter, Parameters, linear, normal

OUTPUTS = ("glu", "half_glu", "half_glu2", "linear", None)


@dataclass(frozen=True)
class OutputMap:
    """The direct term D u, an activation, and a map of all channels.

    With w = W v + b: "glu" is the gated linear unit of w (2 H), "linear" is w (H), "half_glu" v sigmoid(w), "half_glu2"
    the same with v as it is before the activation; these two and None give channels * H features.
    """

    d_model: int
    channels: int
    activation: str | None
    output: str | None
    skip: bool

    def check(self, layer: str) -> None:
        """Raise for names that are unknown."""
        if self.activation not in ACTIVATIONS:
            raise unknown(layer, "activation", self.activation, ACTIVATIONS)
        if self.output not in OUTPUTS:
            raise unknown(layer, "output", self.output, OUTPUTS)

    def parameters(self) -> tuple[Parameter, ...]:
        """D (channels, H), output_weight and output_bias, as far as there are any."""
        H, found = self.d_model, []
        if self.skip:
            found.append(normal("D", (self.channels, H)))
        if self.output is not None:
            n_in = self.channels * H
            n_out = {"glu": 2 * H, "linear": H}.get(self.output, n_in)
            found.extend(linear("output_", n_in, n_out))
        return tuple(found)

    def bound(self, params: Parameters, xp: Namespace) -> Callable[[Array, Array], Array]:
        """(v (...[, channels], H), u (..., H)) -> y; channels are joined (channel slow, feature fast)."""
        several, nonlinear, gate = self.channels > 1, activation(self.activation), activation("sigmoid")
        D = weight = bias = None
        if self.skip:
            D = params["D"] if several else params["D"][0, ...]
        if self.output is not None:
            weight, bias = params["output_weight"], params["output_bias"]

        def mapped(v: Array, u: Array) -> Array:
            if D is not None:
                v = D * (u[..., None, :] if several else u) + v  # in this order features stay last in memory
            if several:
                v = xp.reshape(v, (*v.shape[:-2], self.channels * self.d_model))
            passed, v = v, nonlinear(v)
            if weight is None:
                return v
            w = affine(v, weight, bias)
            if self.output in ("half_glu", "half_glu2"):
                return (v if self.output == "half_glu" else passed) * gate(w)
            return w if self.output == "linear" else glu(w)

        return mapped
