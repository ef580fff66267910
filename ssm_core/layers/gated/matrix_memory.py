"""Layers around gated linear attention: everything but what enters the recurrence and what leaves it.

A layer gives q, k, v and decays of its input, and its output of what is read; sequences and steps are here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

from ..._arrays.errors import OptionError
from ..._arrays.library import Array, Namespace, namespace
from ...functions.affine import affine
from ...gated.decay_run import NORMALIZERS, Rule, run_decay, step_decay
from ...recurrences.segments import Segments
from .. import parametrizations as common
from ..options import settle
from ..parameters import Parameter, Parameters, as_map, uniform
from .base import Advance, InputDependent, State, in_heads
from .feature_maps import FEATURE_MAPS, check_feature_map

Signals = dict[str, Array]


class MatrixMemory(InputDependent):
    """What the layers of gated linear attention share: the state is what they carry besides, and the memory.

    All functions of features take sequences (B, L, ...) and steps (B, ...).
    """

    modes: ClassVar[tuple[str, ...]] = ("auto", "chunk", "scan")
    timed: ClassVar[bool] = False
    heads: int
    chunk: int

    @property
    @abstractmethod
    def key_dim(self) -> int:
        """K, features of a key."""

    @property
    @abstractmethod
    def value_dim(self) -> int:
        """V, features of a value."""

    @property
    def rule(self) -> Rule:
        """How the memory is read."""
        return Rule(scale=self.key_dim**-0.5)

    @abstractmethod
    def _signals(self, params: Parameters, u: Array, beside: Any, xp: Namespace) -> tuple[Signals, Any]:
        """The arguments of the recurrence by their names, and what its output waits for."""

    def _constant_decay(self, params: Parameters, like: Array, xp: Namespace) -> Array | None:
        """Log decays (heads,) or (heads, K) that no input changes, where they are not among the signals."""
        return None

    @abstractmethod
    def _output(self, params: Parameters, y: Array, waiting: Any, xp: Namespace) -> Array:
        """(..., H) of what is read (..., heads, V)."""

    def carried_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Of the state besides the memory."""
        return {}

    def _before(self, u: Array, carried: State, segments: Segments, xp: Namespace) -> tuple[Any, State]:
        """What steps have of those before them besides the memory, and what is carried on."""
        return None, carried

    def _before_step(self, u: Array, carried: State, xp: Namespace) -> tuple[Any, State]:
        """The same for one step."""
        return None, carried

    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        heads, K, V = self.heads, self.key_dim, self.value_dim
        memory = {"S": (batch, heads, K, V), "n": (batch, heads, K), "m": (batch, heads)}
        parts = NORMALIZERS.get(self.rule.normalize or "", 1)
        return self.carried_shapes(batch) | dict(list(memory.items())[:parts])

    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        xp, n = namespace(self.name, u=u), len(self.carried_shapes(1))
        beside, carried = self._before(u, tuple(state[:n]), segments, xp)
        signals, waiting = self._signals(params, u, beside, xp)
        g = self._constant_decay(params, u, xp)
        signals = signals if g is None else {**signals, "log_decay": g}
        chunk = 1 if mode == "scan" else self.chunk
        y, memory = run_decay(signals, self.rule, segments=segments, initial=tuple(state[n:]), chunk=chunk)
        return self._output(params, y, waiting, xp), (*carried, *memory)

    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        n, rule = len(self.carried_shapes(1)), self.rule

        def kept(like: Array) -> Array | None:
            g = self._constant_decay(params, like, xp)
            return g if g is None else xp.exp(g)[(..., *(None,) * (3 - g.ndim))]

        held = kept(next(iter(params.values())))

        def advance(u: Array, state: State) -> tuple[Array, State]:
            beside, carried = self._before_step(u, tuple(state[:n]), xp)
            signals, waiting = self._signals(params, u, beside, xp)
            if held is not None:
                signals["decay"] = held if held.dtype == u.dtype else kept(u)
            y, memory = step_decay(signals, tuple(state[n:]), rule)
            return self._output(params, y, waiting, xp), (*carried, *memory)

        return advance

    def projected(self, params: Parameters, name: str, u: Array, xp: Namespace) -> Array:
        """A linear map of u, by heads."""
        return in_heads(affine_map(params, name, u), self.heads, xp)


class SharedHeads(MatrixMemory):
    """Layers whose heads of keys and values may each serve several of the queries, with a feature map."""

    kv_heads: int | None
    feature_map: str | None

    def check_heads(self) -> None:
        """Raise for heads that cannot be shared so, and unknown feature maps."""
        if self.kv_heads is not None:
            common.whole(self.name, kv_heads=self.kv_heads)
            if self.heads % self.kv_heads:
                raise OptionError(f"{self.name}: kv_heads = {self.kv_heads} must divide heads = {self.heads}.")
        check_feature_map(self.name, self.feature_map)

    @property
    def memories(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    def maps_of_heads(self, gain: float) -> tuple[Parameter, ...]:
        """The weights of q, k and v."""
        sizes = {
            "q_proj": self.heads * self.key_dim,
            "k_proj": self.memories * self.key_dim,
            "v_proj": self.memories * self.value_dim,
        }
        return tuple(xavier(name, self.d_model, n, gain) for name, n in sizes.items())

    def of_heads(self, params: Parameters, u: Array, xp: Namespace) -> tuple[Array, Array, Array]:
        """q (..., heads, K) and k behind the feature map, and v."""
        f = FEATURE_MAPS[self.feature_map]
        q, k, v = (
            in_heads(affine_map(params, f"{name}_proj", u), heads, xp)
            for name, heads in (("q", self.heads), ("k", self.memories), ("v", self.memories))
        )
        return f(q, xp), f(k, xp), v

    def for_queries(self, x: Array, xp: Namespace) -> Array:
        """(..., kv_heads, D), each for its neighboring heads of q."""
        return x if self.memories == self.heads else xp.repeat(x, self.heads // self.memories, axis=x.ndim - 2)


def affine_map(params: Parameters, name: str, u: Array) -> Array:
    """W u + b of the map of that name."""
    return affine(u, params[f"{name}_weight"], params.get(f"{name}_bias"))


def xavier(name: str, n_in: int, n_out: int, gain: float = 1.0) -> Parameter:
    """Weight (out, in), uniform in +- gain sqrt(6 / (in + out))."""
    bound = gain * (6 / (n_in + n_out)) ** 0.5
    return as_map(uniform(f"{name}_weight", (n_out, n_in), -bound, bound))


def head_width(layer: str, option: str, expand: Any, d_model: int, heads: int) -> int:
    """Features of a head of expand * d_model in all; raises unless these are whole numbers."""
    if isinstance(expand, bool) or not isinstance(expand, int | float) or not 0 < expand * d_model < math.inf:
        raise OptionError(f"{layer}: {option} = {expand!r} must be a positive number.")
    width = int(expand * d_model)
    if width % heads or width < heads:
        raise OptionError(f"{layer}: heads = {heads} must divide {option} * d_model = {width}.")
    return width // heads


def check_sizes(layer: Any, *names: str) -> None:
    """Raise unless these options are whole numbers of at least 1, as d_model, heads and chunk are."""
    settle(layer)
    common.whole(layer.name, **{name: getattr(layer, name) for name in ("d_model", "heads", "chunk", *names)})
