"""RG-LRU: the recurrent block of Griffin, a real-gated linear recurrent unit beside a GELU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..._arrays.errors import OptionError, unknown
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine, parted
from ...functions.short_convolution import short_convolution, short_stepper
from ...functions.special import activation
from ...gated.rg_lru import kept_and_entering, run_rg_lru, strongest
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, Random, as_map, constant, normal
from ..registry import registered
from .base import Advance, InputDependent, State

ACTIVATIONS = ("gelu_tanh", "gelu", "silu")


@registered
@dataclass(frozen=True)
class RGLRU(InputDependent):
    """The recurrent block of Griffin: a real-gated linear recurrent unit behind a short convolution, and a gate.

    x = conv(W_x u + b_x);   i = sigmoid(D_i x + b_i),   r = sigmoid(D_r x + b_r),   log a = -8 r softplus(Lambda)
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t x_t, and i_t x_t in the first step of a sequence
    y = W_out (h gelu(W_y u + b_y)) + b_out

    D_i and D_r are block diagonal, a block a head. u (B, L, H), y (B, L, H). The state is the last inputs of the
    convolution (B, W, K - 1), h (B, W), and 1 where the sequence has begun, else 0 (B,), with H = d_model,
    W = lru_width and K = d_conv.

    d_model       H, the number of channels
    lru_width     W, channels of the recurrence; H if None
    heads         blocks of the gates: Griffin has as many as its attention has heads
    d_conv        K, taps of the causal convolution
    activation    of the gate: "gelu_tanh", "gelu" or "silu"
    a_min, a_max  softplus(Lambda) begins as -log of radii between them, uniform in the square

    Parameters, all real float32: linear_x_weight, linear_y_weight (W, H), linear_out_weight (H, W), conv_1d_weight
    (W, K), rg_lru_input_gate_weight, rg_lru_recurrent_gate_weight (heads, W / heads, W / heads), whose bias is
    (heads, W / heads), rg_lru_recurrent_param (W,), Lambda; all maps and the convolution have a bias.

    De et al., Griffin: mixing gated linear recurrences with local attention for efficient language models, 2024,
    https://arxiv.org/abs/2402.19427.

    >>> import numpy, ssm_core
    >>> layer = ssm_core.layers.RGLRU(d_model=4, heads=2)
    >>> layer.apply(layer.initial_parameters(seed=0), numpy.zeros((2, 10, 4), numpy.float32)).shape
    (2, 10, 4)
    """

    d_model: int
    lru_width: int | None = None
    heads: int = 1
    d_conv: int = 4
    activation: str = "gelu_tanh"
    a_min: float = 0.9
    a_max: float = 0.999

    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)
        common.whole("RGLRU", d_model=self.d_model, heads=self.heads, d_conv=self.d_conv)
        if self.lru_width is not None:
            common.whole("RGLRU", lru_width=self.lru_width)
        if self.width % self.heads:
            raise OptionError(f"RGLRU: heads = {self.heads} must divide lru_width = {self.width}.")
        if self.activation not in ACTIVATIONS:
            raise unknown("RGLRU", "activation", self.activation, ACTIVATIONS)
        radii = (self.a_min, self.a_max)
        if (
            any(isinstance(a, bool) or not isinstance(a, int | float) for a in radii)
            or not 0 < radii[0] <= radii[1] < 1
        ):
            raise OptionError(f"RGLRU: needs 0 < a_min <= a_max < 1 (a_min: {self.a_min}, a_max: {self.a_max}).")

    @property
    def width(self) -> int:
        """W, the channels of the recurrence."""
        return self.d_model if self.lru_width is None else self.lru_width

    def parameters(self) -> tuple[Parameter, ...]:
        H, W, block = self.d_model, self.width, self.width // self.heads
        blocks = (self.heads, block, block)
        return (
            *_affine("linear_x", H, W),
            *_affine("linear_y", H, W),
            *_affine("linear_out", W, H),
            normal("conv_1d_weight", (W, self.d_conv), math.sqrt(0.01 / self.d_conv)),
            constant("conv_1d_bias", (W,), lambda: 0.0),
            Parameter("rg_lru_recurrent_param", (W,), self._first_decays, no_weight_decay=True),
            normal("rg_lru_input_gate_weight", blocks, block**-0.5),
            constant("rg_lru_input_gate_bias", blocks[:2], lambda: 0.0),
            normal("rg_lru_recurrent_gate_weight", blocks, block**-0.5),
            constant("rg_lru_recurrent_gate_bias", blocks[:2], lambda: 0.0),
        )

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        W = self.width
        return {"inputs": (batch, W, self.d_conv - 1), "h": (batch, W), "begun": (batch,)}

    def _first_decays(self, random: Random) -> Array:
        """Lambda with softplus(Lambda) = -log a, a^2 uniform between a_min^2 and a_max^2."""
        squares = random.uniform((self.width,), self.a_min**2, self.a_max**2)
        xp = namespace("RGLRU", squares=squares)
        return xp.log(xp.expm1(-xp.log(squares) / 2))

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp = namespace(self.name, u=u)
        x = affine(u, params["linear_x_weight"], params["linear_x_bias"])
        x, inputs = short_convolution(x, params["conv_1d_weight"], params["conv_1d_bias"], state[0], segments, xp)
        i, r = self._gates(self._gate_maps(params, xp), x, xp)
        v = {"x": x, "input_gate": i, "recurrent_gate": r, "recurrent_param": params["rg_lru_recurrent_param"]}
        h, last = run_rg_lru(v, segments=segments, initial=(state[1], state[2]))
        return self._output(params, u, h), (inputs, *last)

    def _gate_maps(self, params: Parameters, xp: Namespace) -> tuple[Array, Array]:
        """Weight (heads, D, 2 D) and bias (heads, 1, 2 D) of both gates together."""
        weight, bias = (
            xp.concat([params[f"rg_lru_{name}_gate_{part}"] for name in ("input", "recurrent")], axis=-1)
            for part in ("weight", "bias")
        )
        return weight, bias[:, None, :]

    def _gates(self, maps: tuple[Array, Array], x: Array, xp: Namespace) -> tuple[Array, ...]:
        """Both gates of x (..., W), before their sigmoids, as one product."""
        weight, bias = maps
        block = self.width // self.heads
        if self.heads == 1:
            return parted(affine(x, xp.matrix_transpose(weight[0, ...]), bias[0, 0, ...]), block, block)
        rows = xp.permute_dims(xp.reshape(x, (-1, self.heads, block)), (1, 0, 2))
        gates = xp.permute_dims(xp.matmul(rows, weight) + bias, (1, 0, 2))
        return tuple(xp.reshape(gate, x.shape) for gate in parted(gates, block, block))

    def _output(self, params: Parameters, u: Array, h: Array) -> Array:
        gate = activation(self.activation)(affine(u, params["linear_y_weight"], params["linear_y_bias"]))
        return affine(gate * h, params["linear_out_weight"], params["linear_out_bias"])

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        sigmoid, most = activation("sigmoid"), strongest(params["rg_lru_recurrent_param"])
        convolve = short_stepper(params["conv_1d_weight"], params["conv_1d_bias"], xp)
        maps = self._gate_maps(params, xp)

        def advance(u: Array, state: State) -> tuple[Array, State]:
            inputs, h, begun = state
            x, inputs = convolve(affine(u, params["linear_x_weight"], params["linear_x_bias"]), inputs)
            i, r = self._gates(maps, x, xp)
            log_a, share = kept_and_entering(r, most, xp)
            goes_on = (begun != 0)[:, None]
            h = xp.where(goes_on, xp.exp(log_a) * h, 0.0) + xp.where(goes_on, share, 1.0) * sigmoid(i) * x
            return self._output(params, u, h), (inputs, h, xp.ones_like(begun))

        return advance


def _affine(name: str, n_in: int, n_out: int) -> tuple[Parameter, Parameter]:
    """Weight (out, in) of variance 1 / in, and a bias of zeros."""
    return (
        as_map(normal(f"{name}_weight", (n_out, n_in), n_in**-0.5)),
        constant(f"{name}_bias", (n_out,), lambda: 0.0),
    )
