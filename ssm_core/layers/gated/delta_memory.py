"""Layers around the gated delta rule: short convolutions before it, norm and gate behind it.

A layer gives the gates of its input; q, k and v, sequences and steps are here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine
from ...functions.norms import l2_normed, normed
from ...functions.short_convolution import short_convolutions, short_stepper
from ...functions.special import activation
from ...gated.delta_run import run_delta, step_delta
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, Random, constant, uniform
from .base import Advance, InputDependent, State, check_epsilon, in_heads, joined_heads, step_bias
from .matrix_memory import xavier

GAIN = 2**-2.5  # of the first weights
L2_EPSILON = 1e-6  # of the norms of q and k


class DeltaMemory(InputDependent):
    """What the layers of delta rules share: the state is the inputs of three short convolutions, and the memory.

    All functions of features take sequences (B, L, ...) and steps (B, ...).
    """

    modes: ClassVar[tuple[str, ...]] = ("auto", "chunk", "scan")
    timed: ClassVar[bool] = False
    gate: ClassVar[str] = "silu"  # of the output, where there is one
    substeps: int = 1
    heads: int
    d_conv: int
    conv_bias: bool
    epsilon: float
    chunk: int

    @property
    def value_heads(self) -> int:
        """Heads of v, each with a memory."""
        return self.heads

    @property
    @abstractmethod
    def key_dim(self) -> int:
        """K, features of a key."""

    @property
    @abstractmethod
    def value_dim(self) -> int:
        """V, features of a value."""

    @abstractmethod
    def _gates(self, params: Parameters, u: Array, xp: Namespace) -> dict[str, Array]:
        """The arguments of the recurrence besides q, k and v, by their names."""

    @abstractmethod
    def _output_gate(self, params: Parameters, u: Array) -> Array | None:
        """What the outputs (..., value_heads V) are multiplied by, before its activation."""

    @property
    def widths(self) -> dict[str, int]:
        """Features of q, k and v."""
        keys, values = self.heads * self.key_dim, self.value_heads * self.value_dim
        return {"q": keys, "k": self.substeps * keys, "v": self.substeps * values}

    def check_delta(self, *sizes: str) -> None:
        settle(self)
        names = ("d_model", "heads", "d_conv", "chunk", *sizes)
        common.whole(self.name, **{name: getattr(self, name) for name in names})
        check_epsilon(self.name, epsilon=self.epsilon)

    def entering_parameters(self) -> tuple[Parameter, ...]:
        """The maps to q, k and v, and their convolutions."""
        taps, found = 1 / math.sqrt(self.d_conv), []
        for name, n in self.widths.items():
            found.append(xavier(f"{name}_proj", self.d_model, n, GAIN))
        for name, n in self.widths.items():
            found.append(uniform(f"{name}_conv1d_weight", (n, self.d_conv), -taps, taps))
            if self.conv_bias:
                found.append(uniform(f"{name}_conv1d_bias", (n,), -taps, taps))
        return tuple(found)

    def leaving_parameters(self) -> tuple[Parameter, ...]:
        """The norm, and the map back."""
        n = self.value_heads * self.value_dim
        norm = constant("o_norm_weight", (self.value_dim,), lambda: 1.0)
        return norm, xavier("o_proj", n, self.d_model, GAIN)

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        inputs = {f"{name}_inputs": (batch, n, self.d_conv - 1) for name, n in self.widths.items()}
        return inputs | {"S": (batch, self.value_heads, self.key_dim, self.value_dim)}

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp, entering = namespace(self.name, u=u), []
        for name, before in zip("qkv", state[:3], strict=True):
            x, taps = affine(u, params[f"{name}_proj_weight"], None), params[f"{name}_conv1d_weight"]
            entering.append((x, taps, params.get(f"{name}_conv1d_bias"), before))
        convolved, inputs = short_convolutions(entering, segments, xp)
        signals = self._entering(convolved, xp) | self._gates(params, u, xp)
        options = {"segments": segments, "initial": state[3], "chunk": 1 if mode == "scan" else self.chunk}
        y, S = run_delta(signals, scale=self.key_dim**-0.5, **options)
        return self._leaving(params, u, y, xp), (*inputs, S)

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        convolve = [
            short_stepper(params[f"{name}_conv1d_weight"], params.get(f"{name}_conv1d_bias"), xp) for name in "qkv"
        ]

        def advance(u: Array, state: State) -> tuple[Array, State]:
            projected = (affine(u, params[f"{name}_proj_weight"], None) for name in "qkv")
            steps = [f(x, before) for f, x, before in zip(convolve, projected, state[:3], strict=True)]
            signals = self._entering([x for x, _ in steps], xp) | self._gates(params, u, xp)
            y, S = step_delta(signals, state[3], scale=self.key_dim**-0.5, xp=xp)
            return self._leaving(params, u, y, xp), (*(last for _, last in steps), S)

        return advance

    def _entering(self, convolved: list[Array], xp: Namespace) -> dict[str, Array]:
        """q, k and v by heads, q and k of norm 1; of several substeps k and v have an axis more."""
        q, k, v = (activation("silu")(x) for x in convolved)
        q, k, v = (
            in_heads(q, self.heads, xp),
            self.in_substeps(k, self.heads, xp),
            self.in_substeps(v, self.value_heads, xp),
        )
        return {"q": l2_normed(q, xp, epsilon=L2_EPSILON), "k": l2_normed(k, xp, epsilon=L2_EPSILON), "v": v}

    def in_substeps(self, x: Array, heads: int, xp: Namespace) -> Array:
        """(..., R heads D) as (..., R, heads, D), and of one substep as (..., heads, D)."""
        if self.substeps == 1:
            return in_heads(x, heads, xp)
        return in_heads(in_heads(x, self.substeps, xp), heads, xp)

    def _leaving(self, params: Parameters, u: Array, y: Array, xp: Namespace) -> Array:
        y = joined_heads(normed(y, params["o_norm_weight"], epsilon=self.epsilon), xp)
        gate = self._output_gate(params, u)
        y = y if gate is None else y * activation(self.gate)(gate)
        return affine(y, params["o_proj_weight"], None)


class GroupedValues(DeltaMemory):
    """Heads of head_dim features, of which several heads of v may share q and k."""

    head_dim: int
    expand_v: float
    num_v_heads: int | None

    def check_groups(self) -> None:
        if self.num_v_heads is not None:
            common.whole(self.name, num_v_heads=self.num_v_heads)
        if self.value_heads % self.heads:
            raise OptionError(f"{self.name}: heads = {self.heads} must divide num_v_heads = {self.num_v_heads}.")
        expand = self.expand_v
        if isinstance(expand, bool) or not isinstance(expand, int | float) or not 0 < expand * self.head_dim < math.inf:
            raise OptionError(f"{self.name}: expand_v = {expand!r} must be a positive number.")
        if expand * self.head_dim != int(expand * self.head_dim):
            raise OptionError(f"{self.name}: expand_v * head_dim = {expand * self.head_dim} must be a whole number.")

    @property
    def value_heads(self) -> int:
        return self.heads if self.num_v_heads is None else self.num_v_heads

    @property
    def key_dim(self) -> int:
        return self.head_dim

    @cached_property
    def value_dim(self) -> int:
        return int(self.expand_v * self.head_dim)


def log_rates(name: str, n: int, low: float, high: float) -> Parameter:
    """A_log (n,), of rates uniform between the two."""

    def draw(random: Random) -> Array:
        drawn = random.uniform((n,), low, high)
        return namespace(name, drawn=drawn).log(drawn)

    return Parameter("A_log", (n,), draw, no_weight_decay=True)


def decay_parameters(layer: Any, heads: int, width: int, lowest: float) -> tuple[Parameter, Parameter]:
    """A_log (heads,), and dt_bias (width,) whose softplus is log-uniform."""
    return (
        log_rates(layer.name, heads, lowest, 16.0),
        step_bias("dt_bias", width, layer.dt_min, layer.dt_max, layer.dt_floor),
    )


def check_decays(layer: Any) -> None:
    common.check_steps(layer.name, layer.dt_min, layer.dt_max)
    check_epsilon(layer.name, dt_floor=layer.dt_floor)


def strength(params: Parameters, u: Array, negative: bool) -> Array:
    """sigmoid(W_b u), twice that where eigenvalues may be negative."""
    beta = activation("sigmoid")(affine(u, params["b_proj_weight"], None))
    return 2 * beta if negative else beta
