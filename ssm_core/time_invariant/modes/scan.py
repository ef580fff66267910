"""The recurrence itself, chunk by chunk with time first. The only mode whose gates may change with time."""

from __future__ import annotations

import math
from typing import Any

from ..._arrays.dispatch import is_open
from ..._arrays.idioms import matmul
from ..._arrays.library import Array, device
from ...recurrences.diagonal import driven, gated_scan, observed, steps_at_once
from ...recurrences.fold import in_chunks
from ...systems import records
from ...systems.records import Dense
from ..run import Run


def run_steps(run: Run) -> tuple[Array, Array | None]:
    """Outputs and last state; states exist for one chunk at a time."""
    dense = isinstance(run.system, Dense)
    steps = _dense_step if dense else _diagonal_steps
    axes = 1 if run.propagator.several_inputs else 0
    shape = (*run.batch, *run.u.shape[run.u.ndim - 1 - axes :])
    valid = run.segments.valid(run.xp)
    if valid is None and is_open(run.u, run.length):  # zeros follow, which leave the state
        valid = run.xp.ones((*run.batch, run.length), dtype=run.xp.bool, device=device(run.u))
    signals = {
        "u": run.xp.broadcast_to(run.u, shape),
        "reset": run.reset,
        "valid": valid,
        "scale": run.step_scale,
    }

    def body(state: Array, v: dict[str, Any]) -> tuple[Array, Array]:
        return steps(run, state, v)

    width = math.prod(run.batch) * run.zero_state().shape[-1]
    chunk = 1 if dense else steps_at_once(width, run.length, run.u)
    y, state = in_chunks(body, run.first_state(), signals, axis=-1, chunk=chunk, recompute=chunk > 1)
    return y, state if run.want_state else None


def _diagonal_steps(run: Run, state: Array, v: dict[str, Any]) -> tuple[Array, Array]:
    """A chunk of steps of x = A x + B u, y = C x, with time on axis 0 everywhere."""
    system = run.gates(v["scale"]) if run.gates is not None else run.system
    drive = driven(system.B, v["u"], run.propagator.several_inputs, run.xp)
    states = gated_scan(system.poles, drive, state, v.get("reset"), v.get("valid"), run.xp)
    return states[-1, ...], observed(system.C, states, run.propagator.several_outputs, system.conj_pairs, run.xp)


def _dense_step(run: Run, state: Array, v: dict[str, Any]) -> tuple[Array, Array]:
    """One step of x = A x + B u, y = C x; the axis of time has size 1."""
    xp, system, reset, valid = run.xp, run.system, v.get("reset"), v.get("valid")
    before = state if reset is None else xp.where(reset[0, ..., None], xp.zeros_like(state), state)
    drive = driven(system.B, v["u"], run.propagator.several_inputs, xp)[0, ...]
    after = matmul(system.A, before[..., None], xp)[..., 0] + drive
    after = after if valid is None else xp.where(valid[0, ..., None], after, state)
    rank = records.batch_rank(system)
    return after, observed(system.C, after[None, ...], records.outputs(system, rank) is not None, False, xp)
