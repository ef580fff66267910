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
from ..._arrays.library import (
    Array,
    Namespace,
    computable,
    device,
    in_dtype_of,
    moved,
    namespace,
    real_floating,
    require_arrays,
)
from ..._arrays.values import check_positive
from ...gated.checks import check_chunk
from ...recurrences.fold import fold
from ...recurrences.segments import check_cu_seqlens, check_lengths, check_masks, resets_of, side_by_side, steps_within
from ..layer import Layer, Stepper, check_batch, check_rate, check_signal, once_per_kind
from ..parameters import Parameter, Parameters, Random, linear

State = tuple[Array, ...]
Advance = Callable[[Array, State], tuple[Array, State]]


class InputDependent(Layer):
    """What Mamba and its successors share. The state is a tuple of real arrays, the first of them the last inputs."""

    d_model: int
    modes: ClassVar[tuple[str, ...]] = ("auto", "scan")

    @abstractmethod
    def state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of the state, in order."""

    @abstractmethod
    def _run(
        self,
        params: Parameters,
        u: Array,
        state: State,
        reset: Array | None,
        lengths: Array | None,
        scale: Any,
        mode: str,
        xp: Namespace,
    ) -> tuple[Array, State]:
        """y (B, L, H) and the last state. The scale multiplies dt: a number, or an array that broadcasts to (B, L)."""

    @abstractmethod
    def _advance(self, params: Parameters, rate: Any, xp: Namespace) -> Advance:
        """One step, of arrays that are known to fit."""

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
        xp = check_signal(self.name, u, self.d_model)
        B, L, _ = u.shape
        check_rate(self.name, rate, None)
        if mode not in self.modes:
            raise unknown(self.name, "mode", mode, self.modes)
        if recompute is not None:
            check_chunk(self.name, recompute, "recompute")
        run = self._run if recompute is None else partial(self._run_in_pieces, recompute)
        n = B
        if cu_seqlens is not None:
            check_cu_seqlens(self.name, cu_seqlens, B, L, reset=reset, lengths=lengths)
            n = cu_seqlens.shape[0] - 1
        self._check_inputs(u, lengths, reset, step_scale)
        if state is not None:
            self._check_state(self.name, state, n, u)
        rate = rate.item() if isinstance(rate, np.generic) else rate
        given = {"u": u, "lengths": lengths, "reset": reset, "step_scale": step_scale, "rate": rate}
        given |= {"cu_seqlens": cu_seqlens, "state": None if state is None else state[0]}
        params = self.prepared(params, **given)
        x, scale = computable(u, xp), computable(step_scale, xp)
        if lengths is not None:  # whatever stands beyond, NaN among it
            x = xp.where(steps_within(lengths, L, xp)[..., None], x, xp.zeros_like(x))
        first = self._zeros(params, n, xp) if state is None else tuple(computable(s, xp) for s in state)
        if cu_seqlens is None or (state is None and not return_state):
            reset = reset if cu_seqlens is None else resets_of(cu_seqlens, L, xp)
            first = self._zeros(params, B, xp) if cu_seqlens is not None else first
            y, last = run(params, x, first, reset, lengths, rate if scale is None else rate * scale, mode, xp)
        else:

            def one_each(signals: tuple[Any, ...], lengths: Array) -> tuple[Array, Any]:
                x, scale = signals
                scale = rate if scale is None else rate * scale
                return run(params, x, first, None, lengths, scale, mode, xp)

            y, last = side_by_side(self.name, one_each, (x, scale), cu_seqlens, 1)
        y = in_dtype_of(u, y, xp)
        return (y, last) if return_state else y

    def _run_in_pieces(
        self,
        steps: int,
        params: Parameters,
        u: Array,
        state: State,
        reset: Array | None,
        lengths: Array | None,
        scale: Any,
        mode: str,
        xp: Namespace,
    ) -> tuple[Array, State]:
        """`_run` by pieces of so many steps, one after another, each computed again in the backward."""
        if 0 in u.shape:
            return self._run(params, u, state, reset, lengths, scale, mode, xp)
        named = {"u": u, "k": xp.arange(u.shape[1], device=device(u))[None, :]}
        if reset is not None:
            named["reset"] = reset
        if len(getattr(scale, "shape", ())) == 2:
            named["scale"] = scale

        def body(state: State, *pieces: Array) -> tuple[State, Array]:
            v = {name: moved(x, 0, 1, xp) for name, x in zip(named, pieces, strict=True)}
            left = None
            if lengths is not None:
                left = xp.clip(lengths - xp.astype(v["k"][:, 0], lengths.dtype), 0, v["u"].shape[1])
            y, state = self._run(params, v["u"], state, v.get("reset"), left, v.get("scale", scale), mode, xp)
            return state, moved(y, 1, 0, xp)

        y, state = fold(body, state, tuple(moved(x, 1, 0, xp) for x in named.values()), chunk=steps)
        return moved(y, 0, 1, xp), state

    def initial_state(self, params: Parameters, batch: int) -> State:
        """Zeros."""
        check_batch(self.name, batch)
        params = self.prepared(params)
        return self._zeros(params, batch, namespace(self.name, **params))

    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """(u_t (B, H), state) -> (y_t (B, H), state)."""
        check_rate(self.name, rate, None)
        rate = rate.item() if isinstance(rate, np.generic) else rate
        params = self.prepared(params)
        xp = namespace(self.name, **params)
        advance, check = self._advance(params, rate, xp), once_per_kind(partial(self._check_step, params))

        def step(u_t: Array, state: State) -> tuple[Array, State]:
            check(u_t, state)
            y, state = advance(computable(u_t, xp), state)
            return in_dtype_of(u_t, y, xp), state

        return step

    def _zeros(self, params: Parameters, batch: int, xp: Namespace) -> State:
        like = next(iter(params.values()))
        shapes = self.state_shapes(batch).values()
        return tuple(xp.zeros(shape, dtype=like.dtype, device=device(like)) for shape in shapes)

    def _check_step(self, params: Parameters, u_t: Array, state: State) -> None:
        operation = f"{self.name}.step"
        check_signal(operation, u_t, self.d_model, step=True)
        self._check_state(operation, state, u_t.shape[0], u_t)
        namespace(operation, u_t=u_t, params=next(iter(params.values())))

    def _check_state(self, operation: str, state: Any, batch: int, u: Array) -> None:
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

    def _check_inputs(self, u: Array, lengths: Any, reset: Any, step_scale: Any) -> None:
        B, L, _ = u.shape
        wanted = {"lengths": ((B,), lengths), "reset": ((B, L), reset), "step_scale": ((B, L), step_scale)}
        given = describe(u=u, **{name: x for name, (_, x) in wanted.items()})
        for name, (shape, x) in wanted.items():
            if x is not None:
                require_arrays(self.name, **{name: x})
                if tuple(x.shape) != shape:
                    raise ShapeError(f"{self.name}: {name} must be {shape} ({given}).")
        check_masks(self.name, given, reset, lengths, step_scale)
        check_lengths(self.name, lengths, L)
        if step_scale is not None:
            check_positive(self.name, namespace(self.name, step_scale=step_scale), step_scale=step_scale)


def projection(prefix: str, n_in: int, n_out: int, bias: bool) -> tuple[Parameter, ...]:
    """Weight (out, in), and bias (out,) if there is one, uniform in +-1/sqrt(in)."""
    found = linear(prefix, n_in, n_out)
    return found if bias else found[:1]


def step_bias(name: str, n: int, dt_min: float, dt_max: float, dt_floor: float) -> Parameter:
    """The bias (n,) whose softplus is log-uniform between dt_min and dt_max, and at least dt_floor."""

    def draw(random: Random) -> Array:
        logs = random.uniform((n,), float(np.log(dt_min)), float(np.log(dt_max)))
        xp = namespace(name, logs=logs)
        dt = xp.clip(xp.exp(logs), dt_floor)
        return dt + xp.log(-xp.expm1(-dt))  # the inverse of softplus

    return Parameter(name, (n,), draw, special=True)


def check_bools(layer: str, **options: Any) -> None:
    for name, value in options.items():
        if not isinstance(value, bool):
            raise OptionError(f"{layer}: {name} = {value!r} must be True or False.")


def check_epsilon(layer: str, **options: Any) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise OptionError(f"{layer}: {name} = {value!r} must lie in (0, 1).")


def per_step(scale: Any) -> Any:
    """A scale (B, L) against (B, L, ...); numbers stay."""
    shape = getattr(scale, "shape", ())
    return scale[..., None] if len(shape) == 2 else scale
