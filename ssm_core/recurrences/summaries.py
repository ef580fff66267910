"""What a chunk of steps does to the state before it, and how neighbors compose: x -> P x + s.

P is the product of the gates of the chunk, and s its last state from zero. The chunk after it has (P', s'), and both
together are one chunk: (P' P, P' s + s'). So a sequence may be cut anywhere, its pieces summarized apart, and the
summaries joined in any order that keeps neighbors together: over processes, or in a tree.

A summary has `after(state)`, the state after the chunk, and `then(later)`, the summary of both. It is as precise as the
states: float32 or better.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays.errors import ShapeError, describe
from .._arrays.idioms import clip, matmul, taken_along
from .._arrays.library import Array, Namespace, compute_dtype, device, is_array, namespace
from .._arrays.numbers import plain
from .._arrays.values import overflow_ignored
from .linear import checked_scan
from .pairs import halved, joined
from .segments import Segments


class Elementwise(NamedTuple):
    """x -> P x + s, entry by entry: P broadcasts to s."""

    through: Array
    state: Array

    def after(self, state: Array) -> Array:
        return _scaled(self.through, state) + self.state

    def then(self, later: Elementwise) -> Elementwise:
        return Elementwise(later.through * self.through, later.after(self.state))


class Matrix(NamedTuple):
    """x -> P x + s with matrices P (..., N, N); with `halves` complex states x mean (Re x, Im x)."""

    through: Array
    state: Array
    halves: bool = False

    def after(self, state: Array) -> Array:
        xp = namespace("after", state=state, through=self.through)
        x = joined(state, xp) if self.halves else state
        x = _multiplied(self.through, x[..., None], xp)[..., 0]
        return (halved(x, xp) if self.halves else x) + self.state

    def then(self, later: Matrix) -> Matrix:
        xp = namespace("then", through=self.through, later=later.through)
        return Matrix(matmul(later.through, self.through, xp), later.after(self.state), self.halves)


class Columns(NamedTuple):
    """S -> P S + s with matrices P (..., K, K) and states (..., K, V)."""

    through: Array
    state: Array

    def after(self, state: Array) -> Array:
        return _multiplied(self.through, state, namespace("after", state=state, through=self.through)) + self.state

    def then(self, later: Columns) -> Columns:
        xp = namespace("then", through=self.through, later=later.through)
        return Columns(matmul(later.through, self.through, xp), later.after(self.state))


class Carried(NamedTuple):
    """(x, b) -> (P x + c b + s, e b + last) of a state that holds its last input too, joined along the last axis.

    c is what the first step makes of the input before it, and e is 1 for a chunk of no steps and else 0.
    """

    through: Array
    before: Array
    empty: Array
    state: Array  # (s, last)

    def after(self, state: Array) -> Array:
        xp = namespace("after", state=state, through=self.through)
        n = state.shape[-1] // 2
        x, b = state[..., :n], state[..., n:]
        moved = xp.concat([_scaled(self.through, x) + _scaled(self.before, b), _scaled(self.empty, b)], axis=-1)
        return moved + self.state

    def then(self, later: Carried) -> Carried:
        before = later.through * self.before + later.before * self.empty
        return Carried(later.through * self.through, before, later.empty * self.empty, later.after(self.state))


class Together(NamedTuple):
    """Summaries of several states at once."""

    parts: tuple[Any, ...]

    @property
    def state(self) -> tuple[Any, ...]:
        return tuple(part.state for part in self.parts)

    def after(self, states: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(part.after(state) for part, state in zip(self.parts, states, strict=True))


class Sliding(NamedTuple):
    """The last n of what steps leave, along an axis: those before move on by as many places as there are steps.

    steps (batch,) or (1,) are n at most, and where a reset forgets what was before; of the dtype of the state.
    """

    steps: Array
    state: Array
    axis: int

    def after(self, state: Array) -> Array:
        xp, n = namespace("after", state=state), state.shape[self.axis]
        if n == 0:
            return state
        k = xp.arange(n, device=device(state))
        shape = [1] * state.ndim
        shape[0], shape[self.axis] = self.steps.shape[0], n
        source = xp.reshape(xp.astype(self.steps, k.dtype)[:, None] + k, tuple(shape))
        x = taken_along(state, xp.broadcast_to(clip(source, 0, n - 1), state.shape), self.axis)
        return xp.where(source < n, x, xp.zeros_like(x)) + self.state


def sliding(state: Array, segments: Segments, axis: int, xp: Namespace) -> Sliding:
    """The summary of steps that leave the state, with time on an axis, from zeros."""
    n, like = state.shape[axis], {"dtype": state.dtype, "device": device(state)}
    steps = xp.full((1,), float(min(segments.length, n)), **like)
    if segments.lengths is not None:
        steps = xp.astype(clip(segments.lengths, 0, n), state.dtype)
    if segments.reset is not None:
        steps = xp.where(xp.any(segments.reset, axis=-1), xp.full_like(steps, n), steps)
    return Sliding(steps, state, axis)


def _scaled(P: Array, x: Array) -> Array:
    """P x; where a product of gates overflowed, a state of zero stays zero, and through a reset, P = 0, goes no NaN."""
    xp = namespace("after", through=P, state=x)
    with overflow_ignored(P):
        x = xp.where(P == 0, xp.zeros_like(x), x)
        return xp.where(x == 0, xp.zeros_like(P * x), P * x)


def _multiplied(P: Array, x: Array, xp: Namespace) -> Array:
    """The matrix products P x; through a reset, P = 0, goes no NaN."""
    nothing = xp.all(xp.all(P == 0, axis=-1, keepdims=True), axis=-2, keepdims=True)
    return matmul(P, xp.where(nothing, xp.zeros_like(x), x), xp)


def forgotten(rows: Array, state: tuple[Array, ...], xp: Namespace) -> tuple[Array, ...]:
    """A state with zeros in the rows (batch,) of a reset: 0 times NaN is NaN."""
    masks = (xp.reshape(rows, (-1, *(1,) * (x.ndim - 1))) for x in state)
    return tuple(xp.where(mask, xp.zeros_like(x), x) for mask, x in zip(masks, state, strict=True))


def chunk_summary(a: Any, b: Array, *, axis: int) -> Elementwise:
    """What a chunk of steps of `linear_scan` does to the state before it: (P, s) of x -> P x + s.

    P = a_{T-1} ... a_0 and s = the last state of linear_scan(a, b) from zero, both without axis.
    Neighbors compose: first.then(second) is (P2 P1, P2 s1 + s2). Shapes and dtypes as in linear_scan.

    Raises ShapeError (a chunk of no steps, too), DTypeError, OptionError, MixedArraysError.
    Source: Blelloch, Prefix sums and their applications, 1990, section 1.4.

    >>> import numpy, ssm_core
    >>> chunk = ssm_core.chunk_summary(numpy.full(3, 0.5), numpy.ones(3), axis=0)
    >>> chunk.through, chunk.state, chunk.then(chunk).after(numpy.asarray(64.0))
    (np.float64(0.125), array(1.75), np.float64(2.96875))
    """
    a, axis = a.item() if isinstance(a, np.generic) else a, plain(axis)
    states = checked_scan("chunk_summary", a, b, axis, values=True)
    xp, length = namespace("chunk_summary", states=states), states.shape[axis]
    if length == 0:
        raise ShapeError(f"chunk_summary: a chunk needs at least one step ({describe(a=a, b=b)}).")
    a = a if is_array(a) else xp.asarray(a, dtype=states.dtype, device=device(states))
    gates = xp.broadcast_to(xp.astype(a, compute_dtype(xp, states)), states.shape)
    last = xp.asarray([length - 1], device=device(states))
    with overflow_ignored(gates):  # a product may, where states that meet it are zero
        through = xp.astype(xp.prod(gates, axis=axis), states.dtype, copy=False)
    return Elementwise(through, xp.squeeze(xp.take(states, last, axis=axis), axis=axis))


def through_segments(P: Array, segments: Segments, axes: int, xp: Namespace) -> Array:
    """P (batch..., of a state with so many axes), and zero in rows with a reset: nothing goes through."""
    if segments.reset is None:
        return P
    kept = ~xp.any(segments.reset, axis=-1)
    kept = xp.reshape(kept, (*kept.shape, *(1,) * axes))
    return xp.where(kept, P, xp.zeros_like(P))


def without_steps(segments: Segments, like: Array, xp: Namespace) -> Array:
    """1 in rows of no steps that count and else 0, in the dtype of `like` and with as many axes."""
    if segments.lengths is None:
        return xp.full((1,) * like.ndim, float(segments.length == 0), dtype=like.dtype, device=device(like))
    empty = xp.astype(segments.lengths == 0, like.dtype)
    return xp.reshape(empty, (*empty.shape, *(1,) * (like.ndim - empty.ndim)))
