"""Layers around a recurrence whose steps depend on the input: everything but the recurrence itself.

A layer gives its parameters, the shapes of its state, a run over sequences and a step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..._arrays.errors import OptionError, ShapeError, describe, unknown
from ..._arrays.idioms import clip, moved
from ..._arrays.library import (
    Array,
    Namespace,
    bringing,
    computable,
    compute_dtype,
    device,
    in_dtype_of,
    is_array,
    namespace,
    owned,
    real_floating,
    require_arrays,
)
from ..._arrays.numbers import whole
from ..._arrays.values import check_positive
from ...recurrences.broken import kept_apart
from ...recurrences.fold import in_chunks
from ...recurrences.segments import Segments, Signals
from ...recurrences.shards import whole_sequence
from ..calls import applies
from ..layer import Mixer, Stepper, as_precise, check_batch, check_signal, once_per_kind
from ..parameters import Parameter, Parameters, Random, linear

State = tuple[Array, ...]
Advance = Callable[[Array, State], tuple[Array, State]]


class InputDependent(Mixer):
    """What Mamba and its successors share. The state is a tuple of real arrays."""

    modes: ClassVar[tuple[str, ...]] = ("auto", "scan")
    recomputes: ClassVar[bool] = True
    lean: ClassVar[bool] = False  # whether `_run` takes None for zeros, and want_state=False to leave out the last one

    @abstractmethod
    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of the state, in order."""

    @abstractmethod
    def _run(
        self, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        """y (B, L, H) and the last state. The scale multiplies dt: a number, or an array that broadcasts to (B, L)."""

    @abstractmethod
    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        """One step, of arrays that are known to fit."""

    @applies
    def apply(
        self,
        params: Parameters,
        u: Array,
        *,
        state: State | None = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        cu_seqlens: Array | None = None,
        rate: Any = 1.0,
        step_scale: Array | None = None,
        mode: str = "auto",
        recompute: int | None = None,
    ) -> Any:
        """y (B, L, H) from u (B, L, H), and the last state with return_state.

        state       a tuple as of `initial_state`, zero if None
        lengths     integer (B,), right-padding: the state is that at the length; y beyond is unspecified
        reset       bool (B, L): the state is zeroed before that step. True at the first valid step is left-padding
        cu_seqlens  integer (n + 1,) with B = 1: n sequences packed one after another; states have batch n
        rate        multiplies dt: a number or an array ()
        step_scale  (B, L): multiplies dt step by step
        mode        one of `modes`: the same function
        recompute   steps of a piece whose inside is computed again in the backward: memory then holds u, y, the states
                    between pieces, and the inside of one piece. None keeps all of it
        """
        if not isinstance(mode, str) or mode not in self.modes:
            raise unknown(self.name, "mode", mode, self.modes)
        recompute = None if recompute is None else whole(self.name, recompute=recompute)
        masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
        options = {"return_state": return_state, "rate": rate, "step_scale": step_scale}
        if recompute is not None:
            whole_sequence(self.name, "Leave out recompute: pieces of it follow one another.")
        entry = self.entry(params, u, state, **options, **masks)
        dtype = compute_dtype(entry.xp, entry.x, entry.step_scale, *entry.params.values(), *(entry.state or ()))
        inner = self._run if recompute is None else partial(self._run_in_pieces, recompute)
        lean = self.lean and recompute is None
        if lean:
            inner = partial(self._run, want_state=return_state)  # type: ignore[call-arg]

        def run(signals: Signals, state: Any, segments: Segments) -> tuple[Array, State]:
            x, scale = segments.masked(signals["x"], 1, entry.xp), signals["scale"]
            scale = entry.rate if scale is None else entry.rate * scale
            state = self._zeros(entry.params, x.shape[0], entry.xp) if state is None and not lean else state
            state = state if state is None else tuple(entry.xp.astype(s, dtype, copy=False) for s in state)
            return inner(entry.params, x, state, segments=segments, scale=scale, mode=mode)

        first = None if state is None else tuple(computable(s, entry.xp) for s in entry.state)
        x, scale = (s if s is None else entry.xp.astype(s, dtype, copy=False) for s in (entry.x, entry.step_scale))
        signals = {"x": x, "scale": scale}
        signals, first, broken = kept_apart(entry.segments, signals, first, entry.xp, axis=1, scales=("scale",))
        if scale is not None:  # where sequences are cut, what is not finite stays with its own
            check_positive(self.name, entry.xp, step_scale=signals["scale"] if entry.segments.cut else scale)
        y, last = entry.segments.run(self.name, run, signals, first, axis=1, apart=return_state)
        y = in_dtype_of(u, broken.marked(y, 1, entry.xp), entry.xp)
        last = broken.marked_state(last, entry.xp)
        return (y, last) if return_state else y

    def _run_in_pieces(
        self, steps: int, params: Parameters, u: Array, state: State, *, segments: Segments, scale: Any, mode: str
    ) -> tuple[Array, State]:
        """`_run` by pieces of so many steps, one after another, each computed again in the backward."""
        if 0 in u.shape:
            return self._run(params, u, state, segments=segments, scale=scale, mode=mode)
        xp = namespace(self.name, u=u)
        signals = {"u": u, "k": xp.arange(u.shape[1], device=device(u))[None, :], "reset": segments.reset}
        if is_array(scale) and scale.ndim == 2:
            signals["scale"] = scale
        lengths = segments.lengths

        def body(state: State, v: Signals) -> tuple[State, Array]:
            v = {name: moved(x, 0, 1, xp) for name, x in v.items()}
            left = None
            if lengths is not None:
                left = clip(lengths - xp.astype(v["k"][:, 0], lengths.dtype), 0, v["u"].shape[1])
            inner = Segments(v["u"].shape[1], v.get("reset"), left)
            y, state = self._run(params, v["u"], state, segments=inner, scale=v.get("scale", scale), mode=mode)
            return state, moved(y, 1, 0, xp)

        return in_chunks(body, state, signals, axis=1, chunk=steps)

    def initial_state(self, params: Parameters, batch: int) -> State:
        """Zeros."""
        batch = check_batch(self.name, batch)
        params = self.prepared(params)
        return self._zeros(params, batch, namespace(self.name, **params))

    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """(u_t (B, H), state) -> (y_t (B, H), state)."""
        bring = bringing(params)
        rate = self.check_rate(bring(rate))
        params = self.prepared(params)
        xp = namespace(self.name, **params)
        advance, check = self._advance(params, rate, xp), once_per_kind(partial(self._check_step, params))

        def step(u_t: Array, state: State) -> tuple[Array, State]:
            u_t, state = bring((u_t, state))
            check(u_t, state)
            y, state = advance(*as_precise(computable(u_t, xp), state, xp))
            return in_dtype_of(u_t, y, xp), owned(state)

        return step

    def _zeros(self, params: Parameters, batch: int, xp: Namespace) -> State:
        like = next(iter(params.values()))
        shapes = self.state_shapes(batch).values()
        return tuple(xp.zeros(shape, dtype=like.dtype, device=device(like)) for shape in shapes)

    def _check_step(self, params: Parameters, u_t: Array, state: State) -> None:
        operation = f"{self.name}.step"
        check_signal(operation, u_t, self.input_width, step=True)
        self.check_state(operation, state, u_t.shape[0], u_t)
        namespace(operation, u_t=u_t, params=next(iter(params.values())))

    def check_state(self, operation: str, state: Any, batch: int, u: Array) -> None:
        wanted = self.state_shapes(batch)
        several = isinstance(state, tuple | list)
        if not several or len(state) != len(wanted):
            raise ShapeError(
                f"{operation}: state must be a tuple of {len(wanted)} arrays ({', '.join(wanted)}), not a "
                f"{type(state).__name__}{f' of {len(state)}' if several else ''}. Start from initial_state({batch})."
            )
        for (name, shape), x in zip(wanted.items(), state, strict=True):
            require_arrays(operation, **{name: x})
            namespace(operation, u=u, **{name: x})
            real_floating(operation, **{name: x})
            if tuple(x.shape) != shape:
                raise ShapeError(
                    f"{operation}: {name} of the state must be {shape} ({describe(u=u, **{name: x})}). "
                    f"Start from initial_state({batch})."
                )


def projection(prefix: str, n_in: int, n_out: int, bias: bool) -> tuple[Parameter, ...]:
    """Weight (out, in), and bias (out,) if there is one, uniform in +-1/sqrt(in)."""
    found = linear(prefix, n_in, n_out)
    return found if bias else found[:1]


def step_bias(name: str, n: int, dt_min: float, dt_max: float, dt_floor: float) -> Parameter:
    """The bias (n,) whose softplus is log-uniform between dt_min and dt_max, and at least dt_floor."""

    def draw(random: Random) -> Array:
        logs = random.uniform((n,), float(np.log(dt_min)), float(np.log(dt_max)))
        xp = namespace(name, logs=logs)
        dt = clip(xp.exp(logs), dt_floor)
        return dt + xp.log(-xp.expm1(-dt))  # the inverse of softplus

    return Parameter(name, (n,), draw, no_weight_decay=True)


def in_heads(x: Array, heads: int, xp: Namespace) -> Array:
    """(..., heads * D) as (..., heads, D)."""
    return xp.reshape(x, (*x.shape[:-1], heads, x.shape[-1] // heads))


def joined_heads(x: Array, xp: Namespace) -> Array:
    """(..., heads, D) as (..., heads * D)."""
    return xp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))


def check_divides(layer: str, name: str, parts: int, whole: str, n: int) -> None:
    """Raise unless an option divides a number, named as the formula of it."""
    if n % parts:
        raise OptionError(f"{layer}: {name} = {parts} must divide {whole} = {n}.")


def check_epsilon(layer: str, **options: Any) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise OptionError(f"{layer}: {name} = {value!r} must lie in (0, 1).")


def per_step(scale: Any) -> Any:
    """A scale (B, L) against (B, L, ...); numbers stay."""
    return scale[..., None] if is_array(scale) and scale.ndim == 2 else scale
