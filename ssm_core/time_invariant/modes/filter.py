"""Runs of rational systems, which no power of their companion matrix enters: it would be as wrong as it is large.

All in double precision, where the library has it: the recurrence of a narrow filter magnifies roundings by
sum_j |a_j| sum_l |g_l|, g the taps of 1/a.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..._arrays.idioms import taken_along
from ..._arrays.library import Array, Namespace, device
from ...systems import records
from ...systems.companion import coefficients, companion
from ..rational import in_double
from ..recursive import recursive_filter
from ..run import Run, masked_input
from .conv import run_convolution
from .scan import run_steps


def run_filter(run: Run, mode: str) -> tuple[Array, Array | None]:
    """The recurrence, step by step in mode scan and else in blocks; a convolution where no state comes or goes."""
    if mode == "conv" and run.initial is None and not run.want_state:
        return run_convolution(run)
    y, state = (_in_steps if mode == "scan" else _in_blocks)(_doubled(run))
    return run.xp.astype(y, _output_dtype(run), copy=False), run.xp.astype(state, run.zero_state().dtype, copy=False)


def _output_dtype(run: Run) -> object:
    return run.xp.result_type(run.system.A.dtype, run.system.C.dtype, run.u.dtype)


def _doubled(run: Run) -> Run:
    """The run in double precision."""
    xp = run.xp
    rational = records.map_arrays(lambda x: in_double(x, xp), replace(run.system.rational, D=None))
    initial = None if run.initial is None else in_double(run.initial, xp)
    return replace(run, system=replace(run.system, rational=rational), u=in_double(run.u, xp), initial=initial)


def _in_steps(run: Run) -> tuple[Array, Array]:
    y, state = run_steps(replace(run, system=companion(run.system.rational), want_state=True))
    return y, state


def _in_blocks(run: Run) -> tuple[Array, Array]:
    xp, N, rank = run.xp, run.system.A.shape[-1], records.batch_rank(run.system)
    b, a = coefficients(run.system.rational, xp)
    before = xp.flip(_rows(run.first_state(), run.batch, rank, xp), axis=-1)
    u = xp.astype(_rows(masked_input(run), run.batch, rank, xp), before.dtype, copy=False)
    reset = None if run.reset is None else _rows(run.reset, run.batch, rank, xp)
    y, w, last = recursive_filter(u, a, b, before, xp, reset=reset)
    if run.segments.lengths is not None:
        lengths = _rows(run.segments.lengths[..., None], run.batch, rank, xp)
        last = _values_at(lengths, xp.concat([before, w], axis=-1), N, reset, xp)
    return _batch(y, run.batch, xp), xp.flip(_batch(last, run.batch, xp), axis=-1)


def _rows(x: Array, batch: tuple[int, ...], rank: int, xp: Namespace) -> Array:
    """x (..., K) of the batch, whose last `rank` axes are those of the filters, as (filters..., R, K)."""
    extra = len(batch) - rank
    x = xp.broadcast_to(x, (*batch, x.shape[-1]))
    x = xp.permute_dims(x, (*range(extra, extra + rank), *range(extra), extra + rank))
    return xp.reshape(x, (*batch[extra:], math.prod(batch[:extra]), x.shape[-1]))


def _batch(x: Array, batch: tuple[int, ...], xp: Namespace) -> Array:
    """The inverse of `_rows`."""
    rank = x.ndim - 2
    extra = len(batch) - rank
    x = xp.reshape(x, (*batch[extra:], *batch[:extra], x.shape[-1]))
    return xp.permute_dims(x, (*range(rank, rank + extra), *range(rank), rank + extra))


def _values_at(lengths: Array, values: Array, N: int, reset: Array | None, xp: Namespace) -> Array:
    """The N of all values (..., N + L) that come before step `lengths` (..., 1), those before a reset as zeros."""
    where = lengths + xp.arange(N, dtype=lengths.dtype, device=device(lengths))
    found = taken_along(values, where, -1)
    if reset is None:
        return found
    count = xp.cumulative_sum(xp.astype(reset, xp.int32), axis=-1)
    count = xp.concat([xp.zeros((*count.shape[:-1], N), dtype=count.dtype, device=device(count)), count], axis=-1)
    same = taken_along(count, where, -1) == taken_along(count, lengths + (N - 1), -1)
    return xp.where(same, found, xp.zeros_like(found))
