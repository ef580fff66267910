"""What a mode is given, and the last state of a run computed without its states in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._arrays.dispatch import is_open
from .._arrays.idioms import matmul, taken_along
from .._arrays.library import Array, Namespace, device, is_array
from .._arrays.sizes import chunked
from ..recurrences.segments import Segments
from ..systems import records
from ..systems.records import state_field
from .vandermonde import split_length


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a discrete system over a signal; all arrays validated and of the dtype to compute in.

    u (...[, P], L); segments with masks that broadcast to (..., L); initial (..., N) or None; gates: what makes the
    discrete systems of the steps of a chunk from their step_scale (..., L), where there is one.
    """

    system: Any
    propagator: Any
    xp: Namespace
    u: Array
    batch: tuple[int, ...]
    segments: Segments
    initial: Array | None = None
    step_scale: Array | None = None
    gates: Callable[[Array], Any] | None = None
    want_state: bool = True

    @property
    def length(self) -> int:
        return self.u.shape[-1]

    @property
    def reset(self) -> Array | None:
        return self.segments.reset

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
    valid = run.segments.valid(run.xp)
    return run.u if valid is None else run.xp.where(run.signal_axes(valid), run.u, run.xp.zeros_like(run.u))


def last_state(run: Run) -> Array:
    """A^n x_{-1} + sum_{k<n} A^{n-1-k} B u_k with n the length, counting only what comes after the last reset."""
    xp, length, u = run.xp, run.length, masked_input(run)
    alive = None
    if run.reset is not None:
        u, alive = _after_last_reset(run, u)
    lengths = run.segments.lengths
    if lengths is not None:
        u = _right_aligned(run, u, lengths)
    A, T = split_length(length, u)
    if is_open(u, length):
        chunks = chunked(u, -1, xp, at_end=True)
    else:
        gap = xp.zeros((*u.shape[:-1], A * T - length), dtype=u.dtype, device=device(u))
        chunks = xp.reshape(xp.concat([gap, u], axis=-1), (*u.shape[:-1], A, T))
    state = run.propagator.combine(run.propagator.gather(chunks), T) + run.zero_state()
    if run.initial is None:
        return state
    n = length if lengths is None else lengths[..., None]
    if lengths is None and is_open(u, length):
        n = xp.full((1,), length, dtype=xp.int32, device=device(u))
    carried = run.propagator.advance(run.first_state(), n, length)
    return state + (carried if alive is None else xp.where(alive[..., None], carried, xp.zeros_like(carried)))


def _after_last_reset(run: Run, u: Array) -> tuple[Array, Array]:
    """u with zeros before the last reset, and whether there was none."""
    xp = run.xp
    count = xp.cumulative_sum(xp.astype(run.reset, xp.int32), axis=-1)
    keep = run.signal_axes(count == count[..., -1:])
    return xp.where(keep, u, xp.zeros_like(u)), count[..., -1] == 0


def _right_aligned(run: Run, u: Array, lengths: Array) -> Array:
    """u shifted to end at the last step: sequences of different lengths then leave their states at one time."""
    xp, length = run.xp, run.length
    k = xp.arange(length, device=device(u))
    source = k - (length - xp.astype(lengths, k.dtype)[..., None])
    index = run.signal_axes(source)
    shape = xp.broadcast_arrays(u, index)[0].shape
    within = xp.where(index < 0, xp.zeros_like(index), index)
    moved = taken_along(xp.broadcast_to(u, shape), xp.broadcast_to(within, shape), -1)
    return xp.where(index < 0, xp.zeros_like(moved), moved)


def with_direct_term(operation: str, system: Any, u: Array, y: Array, xp: Namespace) -> Array:
    """y + D u."""
    D, rank = system.D, records.batch_rank(system)
    if D is None:
        return y
    P, M = records.inputs(system, rank), records.outputs(system, rank)
    if not is_array(D) or D.ndim == 0:
        records.check_ports(operation, D, P, M)
        if (P is None) != (M is None):
            u = u[..., None, :] if P is None else u[..., 0, :]
        return y + D * u
    if P is None:
        return y + D[..., None] * (u if M is None else u[..., None, :])
    product = matmul(D if M is not None else D[..., None, :], u, xp)
    return y + (product if M is not None else product[..., 0, :])
