"""What a mode is given, and the last state of a run computed without its states in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._arrays.library import Array, Namespace, device
from ..recurrences.segments import steps_within
from ..systems.records import state_field
from .vandermonde import split_length


@dataclass(frozen=True)
class Run:
    """One run of a discrete system over a signal; all arrays validated and of the dtype to compute in.

    u (...[, P], L); initial (..., N) or None; reset bool (..., L) or None: the state is zeroed before that step;
    lengths integer (...) or None: steps beyond do not touch the state; gates: None, or step_scale -> discrete system.
    """

    system: Any
    propagator: Any
    xp: Namespace
    u: Array
    batch: tuple[int, ...]
    initial: Array | None = None
    reset: Array | None = None
    lengths: Array | None = None
    step_scale: Array | None = None
    gates: Any = None
    want_state: bool = True

    @property
    def length(self) -> int:
        return int(self.u.shape[-1])

    def signal_axes(self, mask: Array) -> Array:
        """A mask (..., L) with an axis for several inputs where u has one."""
        return mask[..., None, :] if self.propagator.several_inputs else mask

    def zero_state(self) -> Array:
        """A state of zeros (..., N) in the dtype of the states."""
        xp, matrix = self.xp, state_field(self.system)
        dtype = xp.result_type(matrix.dtype, self.system.B.dtype, self.u.dtype)
        return xp.zeros((*self.batch, matrix.shape[-1]), dtype=dtype, device=device(self.u))

    def first_state(self) -> Array:
        """The state before the first step, of full shape and dtype."""
        return self.zero_state() if self.initial is None else self.zero_state() + self.initial


def masked_input(run: Run) -> Array:
    """u with zeros beyond the lengths."""
    if run.lengths is None:
        return run.u
    return run.xp.where(run.signal_axes(steps_within(run.lengths, run.length, run.xp)), run.u, run.xp.zeros_like(run.u))


def last_state(run: Run) -> Array:
    """A^n x_{-1} + sum_{k<n} A^{n-1-k} B u_k with n the length, counting only what comes after the last reset."""
    xp, length, u = run.xp, run.length, masked_input(run)
    alive = None
    if run.reset is not None:
        u, alive = _after_last_reset(run, u)
    if run.lengths is not None:
        u = _right_aligned(run, u)
    A, T = split_length(length)
    gap = xp.zeros((*u.shape[:-1], A * T - length), dtype=u.dtype, device=device(u))
    chunks = xp.reshape(xp.concat([gap, u], axis=-1), (*u.shape[:-1], A, T))
    state = run.propagator.combine(run.propagator.gather(chunks), T) + run.zero_state()
    if run.initial is None:
        return state
    n = length if run.lengths is None else run.lengths[..., None]
    carried = run.propagator.advance(run.first_state(), n, length)
    return state + (carried if alive is None else xp.where(alive[..., None], carried, xp.zeros_like(carried)))


def _after_last_reset(run: Run, u: Array) -> tuple[Array, Array]:
    """u with zeros before the last reset, and whether there was none."""
    xp = run.xp
    reset = run.reset if run.lengths is None else run.reset & steps_within(run.lengths, run.length, run.xp)
    count = xp.cumulative_sum(xp.astype(reset, xp.int32), axis=-1)
    keep = run.signal_axes(count == count[..., -1:])
    return xp.where(keep, u, xp.zeros_like(u)), count[..., -1] == 0


def _right_aligned(run: Run, u: Array) -> Array:
    """u shifted to end at the last step: sequences of different lengths then leave their states at one time."""
    xp, length = run.xp, run.length
    k = xp.arange(length, device=device(u))
    source = k - (length - xp.astype(run.lengths, k.dtype)[..., None])
    index = run.signal_axes(source)
    shape = xp.broadcast_arrays(u, index)[0].shape
    moved = xp.take_along_axis(
        xp.broadcast_to(u, shape), xp.broadcast_to(xp.where(index < 0, xp.zeros_like(index), index), shape), axis=-1
    )
    return xp.where(index < 0, xp.zeros_like(moved), moved)
