"""What the steps of a system do to the state before them: the chunk summary of `scan`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._arrays.library import Array, device, moved
from ..recurrences.pairs import halved
from ..recurrences.summaries import Elementwise, Matrix, through_segments
from ..systems.records import DPLR, Diagonal
from .kernels import CompanionForm
from .modes.filter import run_filter
from .modes.scan import run_steps
from .run import Run, last_state
from .simulation import checked_call, finite_signals, prepared
from .transient import run_in_double, takes_no_powers


def scan_summary(
    system: Any,
    u: Array,
    *,
    dt: Any = None,
    method: str = "zoh",
    alpha: float | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    step_scale: Array | None = None,
    check_values: bool = False,
) -> Elementwise | Matrix:
    """What these steps of `scan` do to the state before them: (P, s) of x -> P x + s.

    P = Ab^L, elementwise (..., N) for a Diagonal system, else matrices (..., N, N), or zero with a reset among the
    steps; s (..., N) is the last state from zero. States are those of `scan`; complex ones of a DPLR system with
    conj_pairs go through P as (Re x, Im x). Arguments are those of `scan`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (values of the host, as `scan`), MixedArraysError.
    Source: Blelloch, Prefix sums and their applications, 1990, section 1.4.

    >>> import numpy, ssm_core
    >>> system = ssm_core.Diagonal(numpy.asarray([0.5]), numpy.ones(1), numpy.ones(1), discrete=True)
    >>> ssm_core.scan_summary(system, numpy.ones(3))
    Elementwise(through=array([0.125]), state=array([1.75]))
    """
    call = checked_call(
        "scan_summary", system, u, dt=dt, method=method, alpha=alpha, initial=None, step_scale=step_scale,
        check_values=check_values, reset=reset, lengths=lengths,
    )  # fmt: skip
    signals, _, broken = finite_signals(call, u, None, step_scale, check_values, "scan_summary")
    options = {"segments": call.segments, "step_scale": signals["step_scale"], "mode": "scan", **call.sampling}
    run, _ = prepared("scan_summary", call.system, signals["u"], call.xp, **options)
    by_steps = takes_no_powers("scan_summary", run)
    state = broken.marked_state(_last(run, by_steps), run.xp)
    if isinstance(run.system, Diagonal):
        return Elementwise(through_segments(_powers(run), run.segments, 1, run.xp), state)
    halves = isinstance(call.system, DPLR) and call.system.conj_pairs
    P = through_segments(_matrices(run, by_steps), run.segments, 2, run.xp)
    return Matrix(P, halved(state, run.xp) if halves else state, halves)


def _last(run: Run, by_steps: bool) -> Any:
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
    u, batch = run.xp.zeros_like(run.u), tuple(states.shape[:-1])
    free = replace(run, u=u, initial=states, batch=batch, segments=segments)
    return (run_filter(free, "chunk") if isinstance(run.system, CompanionForm) else run_in_double(free))[1]
