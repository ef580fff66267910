"""The recurrence itself, chunk by chunk with time first. The only mode whose gates may change with time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..._arrays.library import Array, matmul, moved
from ...recurrences.diagonal import driven, gated_scan, observed, steps_at_once
from ...recurrences.fold import fold
from ...recurrences.segments import steps_within
from ...systems import records
from ...systems.records import Dense
from ..run import Run


def run_steps(run: Run) -> tuple[Array, Array | None]:
    """Outputs and last state; states exist for one chunk at a time."""
    xp = run.xp
    axes = 1 if run.propagator.several_inputs else 0
    shape = (*run.batch, *run.u.shape[run.u.ndim - 1 - axes :])
    u = moved(xp.broadcast_to(run.u, shape), -1, 0, xp)
    named = {"u": u}
    if run.reset is not None:
        named["reset"] = moved(run.reset, -1, 0, xp)
    if run.lengths is not None:
        named["valid"] = moved(steps_within(run.lengths, run.length, xp), -1, 0, xp)
    if run.step_scale is not None:
        named["scale"] = moved(run.step_scale, -1, 0, xp)
    steps: Callable[..., Any] = _dense_step if isinstance(run.system, Dense) else _diagonal_steps

    def body(state: Array, *xs: Array) -> tuple[Array, Array]:
        return steps(run, state, **dict(zip(named, xs, strict=True)))

    width = math.prod(run.batch) * run.zero_state().shape[-1]
    chunk = 1 if isinstance(run.system, Dense) else steps_at_once(width, run.length)
    y, state = fold(body, run.first_state(), tuple(named.values()), chunk=chunk, recompute=chunk > 1)
    return moved(y, 0, -1, xp), state if run.want_state else None


def _diagonal_steps(
    run: Run,
    state: Array,
    u: Array,
    reset: Array | None = None,
    valid: Array | None = None,
    scale: Array | None = None,
) -> tuple[Array, Array]:
    """A chunk of steps of x = A x + B u, y = C x, with time on axis 0 everywhere."""
    system = run.system if scale is None else run.gates(scale)
    drive = driven(system.B, u, run.propagator.several_inputs, run.xp)
    states = gated_scan(system.poles, drive, state, reset, valid, run.xp)
    return states[-1, ...], observed(system.C, states, run.propagator.several_outputs, system.conj_pairs, run.xp)


def _dense_step(
    run: Run, state: Array, u: Array, reset: Array | None = None, valid: Array | None = None
) -> tuple[Array, Array]:
    """One step of x = A x + B u, y = C x; the axis of time has size 1."""
    xp, system = run.xp, run.system
    before = state if reset is None else xp.where(reset[0, ..., None], xp.zeros_like(state), state)
    drive = driven(system.B, u, run.propagator.several_inputs, xp)[0, ...]
    after = matmul(system.A, before[..., None], xp)[..., 0] + drive
    after = after if valid is None else xp.where(valid[0, ..., None], after, state)
    rank = records.batch_rank(system)
    return after, observed(system.C, after[None, ...], records.outputs(system, rank) is not None, False, xp)
