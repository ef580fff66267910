"""What the steps of a system do to the state before them: the chunk summary of `scan`."""

from __future__ import annotations

from typing import Any

from .._arrays.library import Array
from ..recurrences.pairs import halved
from ..recurrences.summaries import Elementwise, Matrix
from ..systems.records import DPLR
from .conditioning import check_magnification
from .kernels import CompanionForm
from .simulation import checked_call, finite_signals, prepared
from .through import last_from_zero, through
from .transient import takes_no_powers


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
    if isinstance(call.system, CompanionForm):
        check_magnification("scan_summary", call.system.rational, u.shape[-1], check_values)
    signals, _, broken = finite_signals(call, u, None, step_scale, check_values, "scan_summary")
    options = {"segments": call.segments, "step_scale": signals["step_scale"], "mode": "scan", **call.sampling}
    run, _ = prepared("scan_summary", call.system, signals["u"], call.xp, **options)
    by_steps = takes_no_powers("scan_summary", run)
    summary = through(run, broken.marked_state(last_from_zero(run, by_steps), run.xp), by_steps)
    if isinstance(summary, Matrix) and isinstance(call.system, DPLR) and call.system.conj_pairs:
        return Matrix(summary.through, halved(summary.state, run.xp), halves=True)
    return summary
