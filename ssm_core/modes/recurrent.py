"""The recurrence itself, chunk by chunk with time first. The only mode whose gates may change with time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import systems
from .._arrays import Array, Namespace, is_complex, matmul, matmul_shared, moved, to_complex
from ..folding import fold
from ..scans import linear_scan
from ..systems import Dense
from .job import Run, steps_within

STATES_AT_ONCE = 2**18


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


def steps_at_once(width: int, length: int) -> int:
    """Steps of a chunk whose states, `width` numbers a step, stay small."""
    return max(1, min(length, STATES_AT_ONCE // max(1, width)))


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


def driven(B: Array, u: Array, several_inputs: bool | int, xp: Namespace) -> Array:
    """B u for a chunk u (T, ...[, P]): (T, ..., N); B with or without the axis of time."""
    if not several_inputs:
        return B * u[..., None]
    columns, n = xp.matrix_transpose(B), B.shape[-2]
    if is_complex(u) or not is_complex(B):
        return matmul_shared(u[..., None, :], columns, xp)[..., 0, :]
    halves = matmul_shared(u[..., None, :], xp.concat([xp.real(columns), xp.imag(columns)], axis=-1), xp)[..., 0, :]
    return halves[..., :n] + 1j * halves[..., n:]  # in real arithmetic


def gated_scan(
    gate: Array, drive: Array, state: Array, reset: Array | None, valid: Array | None, xp: Namespace
) -> Array:
    """All states of a chunk (T, ..., N): the gate is 0 at resets, and 1 without drive where not valid."""
    if reset is not None:
        gate = xp.where(reset[..., None], xp.zeros_like(gate), gate)
    if valid is not None:
        gate = xp.where(valid[..., None], gate, xp.ones_like(gate))
        drive = xp.where(valid[..., None], drive, xp.zeros_like(drive))
    return linear_scan(gate, drive, axis=0, initial=state)


def observed(C: Array, states: Array, several_outputs: bool | int, conj_pairs: bool, xp: Namespace) -> Array:
    """C x, or 2 Re of it, for states (T, ..., N): (T, ...[, M])."""
    if several_outputs and conj_pairs and is_complex(states):
        C = to_complex(C, xp)
        C = xp.concat([2 * xp.real(C), -2 * xp.imag(C)], axis=-1)
        states = xp.concat([xp.real(states), xp.imag(states)], axis=-1)
        return matmul_shared(states[..., None, :], xp.matrix_transpose(C), xp)[..., 0, :]  # in real arithmetic
    if several_outputs:
        y = matmul_shared(states[..., None, :], xp.matrix_transpose(C), xp)[..., 0, :]
        return 2 * xp.real(y) if conj_pairs and is_complex(y) else 2 * y if conj_pairs else y
    if conj_pairs and is_complex(states) and is_complex(C):
        return 2 * (xp.sum(xp.real(C) * xp.real(states), axis=-1) - xp.sum(xp.imag(C) * xp.imag(states), axis=-1))
    y = xp.sum(C * states, axis=-1)
    return 2 * xp.real(y) if conj_pairs and is_complex(y) else 2 * y if conj_pairs else y


def _dense_step(
    run: Run, state: Array, u: Array, reset: Array | None = None, valid: Array | None = None
) -> tuple[Array, Array]:
    """One step of x = A x + B u, y = C x; the axis of time has size 1."""
    xp, system = run.xp, run.system
    before = state if reset is None else xp.where(reset[0, ..., None], xp.zeros_like(state), state)
    drive = driven(system.B, u, run.propagator.several_inputs, xp)[0, ...]
    after = matmul(system.A, before[..., None], xp)[..., 0] + drive
    after = after if valid is None else xp.where(valid[0, ..., None], after, state)
    rank = systems.batch_rank(system)
    return after, observed(system.C, after[None, ...], systems.outputs(system, rank) is not None, False, xp)
