"""What the steps of a run do to the state before them: (P, s) of x -> P x + s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._arrays.idioms import moved
from .._arrays.library import Array, device, is_array
from ..recurrences.summaries import Elementwise, Matrix, through_segments
from ..systems import records
from ..systems.records import Diagonal
from .kernels import CompanionForm
from .modes.filter import run_filter
from .modes.scan import run_steps
from .run import Run, last_state
from .transient import run_in_double


def begun(run: Run) -> tuple[Run, Array | None]:
    """The run of the steps of one process from the state before them, and the state after those of all; else as it is.

    There is no such state where there are no other processes.
    """
    alone, shards = replace(run, segments=run.segments.alone()), run.segments.shards
    if shards is None:
        return run, None
    of = (run.u, *arrays_of(run.system, but=("C", "D")))
    first, last = shards.enter(through_steps(replace(alone, initial=None)), run.initial, of)
    return replace(alone, initial=first, want_state=False), last


def arrays_of(system: Any, but: tuple[str, ...] = ()) -> tuple[Array, ...]:
    """The fields of a system that are arrays."""
    return tuple(x for name, x in vars(system).items() if name not in but and is_array(x))


def through_steps(run: Run) -> Elementwise | Matrix:
    """P of a run, one for all rows of the batch where they do not differ, and the last state from zero."""
    if run.segments.reset is None and run.segments.lengths is None and run.gates is None:
        rank = records.batch_rank(run.system)
        alike = (*(1 for _ in run.batch[: len(run.batch) - rank]), *run.batch[len(run.batch) - rank :])
        return through(replace(run, batch=alike), last_from_zero(run))
    return through(run, last_from_zero(run))


def through(run: Run, state: Array, by_steps: bool = False) -> Elementwise | Matrix:
    """P of a run, and the state that it leads to from zero; by steps: without powers of a matrix."""
    if isinstance(run.system, Diagonal):
        return Elementwise(through_segments(_powers(run), run.segments, 1, run.xp), state)
    return Matrix(through_segments(_matrices(run, by_steps), run.segments, 2, run.xp), state)


def last_from_zero(run: Run, by_steps: bool = False) -> Any:
    """The last state from zero."""
    if run.length == 0:
        return run.zero_state()
    if isinstance(run.system, CompanionForm):
        return run_filter(run, "chunk")[1]
    if by_steps:
        return run_in_double(run)[1]
    return last_state(run) if run.gates is None else run_steps(run)[1]


def _steps(run: Run) -> Any:
    """How many steps count: a number, or integers (..., 1)."""
    return run.length if run.segments.lengths is None else run.segments.lengths[..., None]


def _powers(run: Run) -> Array:
    """The product of all gates, elementwise."""
    ones = run.zero_state() + 1
    if run.gates is None or run.length == 0:
        return run.propagator.advance(ones, _steps(run), run.length)
    free = replace(run, u=run.xp.zeros_like(run.u), initial=ones, segments=replace(run.segments, reset=None))
    return run_steps(free)[1]


def _matrices(run: Run, by_steps: bool) -> Array:
    """A^n, by its columns: what becomes of every unit vector."""
    xp, zero = run.xp, run.zero_state()
    N = zero.shape[-1]
    unit = xp.eye(N, dtype=zero.dtype, device=device(zero))
    rows = xp.reshape(unit, (N, *(1,) * (zero.ndim - 1), N)) + zero  # one unit vector first, then the batch
    if by_steps or isinstance(run.system, CompanionForm):
        return moved(_free(run, rows), 0, -1, xp)
    columns = run.propagator.advance(rows, _steps(run), run.length)
    return moved(columns, 0, -1, xp)


def _free(run: Run, states: Array) -> Any:
    """What the recurrence makes of states (N, ..., N) without input."""
    if run.length == 0:
        return states
    segments = replace(run.segments, reset=None)
    batch = tuple(states.shape[:-1])
    one = run.u.shape[-2:] if run.propagator.several_inputs else run.u.shape[-1:]
    u = run.xp.zeros(one, dtype=run.u.dtype, device=device(run.u))
    free = replace(run, u=u, initial=states, batch=batch, segments=segments)
    return (run_filter(free, "chunk") if isinstance(run.system, CompanionForm) else run_in_double(free))[1]
