"""Recurrences whose states are vectors (batch, W), each entry with a gate of its own: what they check and share."""

from __future__ import annotations

from typing import Any

from .._arrays.errors import DomainError, ShapeError, describe
from .._arrays.library import Array, Namespace, compute_dtype, device, namespace, real_floating, require_arrays
from .._arrays.values import check_finite
from ..recurrences.broken import Broken, kept_apart
from ..recurrences.linear import linear_scan
from ..recurrences.segments import Segments, checked_segments
from ..recurrences.summaries import Elementwise, through_segments
from .checks import check_given

Arrays = dict[str, Array]


def scanned(gate: Array, drive: Array, state: Array | None, begins: Array | None, xp: Namespace) -> tuple[Array, Array]:
    """All states (batch, L, W), and the last one."""
    if state is None:
        state = xp.zeros((drive.shape[0], drive.shape[2]), dtype=drive.dtype, device=device(drive))
    if drive.shape[1] == 0:
        return drive, state
    if begins is not None:
        gate = xp.where(begins[..., None], 0.0, gate)
    y = linear_scan(gate, drive, axis=1, initial=state)
    return y, xp.concat([y[:, -1, :]], axis=0)  # a copy: it holds no other states


def summarized(state: Array, log_decay: Array, segments: Segments, xp: Namespace) -> Elementwise:
    """The summary of steps that lead from zero to the state (batch, W)."""
    P = xp.exp(xp.sum(segments.masked(log_decay, 1, xp), axis=1))
    return Elementwise(through_segments(P, segments, 1, xp), state)


def checked_vectors(
    operation: str, signals: Arrays, constants: Arrays, state: dict[str, Any], masks: dict[str, Any]
) -> tuple[Arrays, Segments, Broken, object]:
    """What is given in the precision of states, of signals (batch, L, W), constants (W,) and states (batch, W).

    What lies beyond the lengths is zero, and what is not finite too where sequences are cut: the record says what it
    breaks.
    """
    given = {name: s for name, s in state.items() if s is not None}
    cuts = {name: m for name, m in masks.items() if m is not None}
    arrays = signals | constants | given
    require_arrays(operation, **arrays, **cuts)
    xp = namespace(operation, **arrays, **cuts)
    real_floating(operation, **arrays)
    shapes, (name, x) = describe(**arrays, **cuts), next(iter(signals.items()))
    if x.ndim != 3:
        raise ShapeError(f"{operation}: {name} must be (batch, L, W) ({shapes}).")
    batch, L, W = x.shape
    segments = checked_segments(operation, shapes, (batch,), L, of=x, **masks)
    wanted = dict.fromkeys(signals, (tuple(x.shape),)) | dict.fromkeys(constants, ((W,),))
    check_given(operation, arrays, wanted | dict.fromkeys(given, ((segments.count(batch), W),)), shapes)
    dtype = compute_dtype(xp, *arrays.values())
    signals = segments.all_masked(signals, 1, xp)
    check_finite(operation, xp, **constants, **({} if segments.cut else signals | given))
    signals, first, broken = kept_apart(segments, signals, tuple(given.values()), xp, axis=1, kept=(0, 2))
    arrays = signals | constants | dict(zip(given, first, strict=True))
    return {name: xp.astype(a, dtype, copy=False) for name, a in arrays.items()}, segments, broken, shapes


def checked_step(operation: str, signals: Arrays, constants: Arrays, state: Arrays) -> Arrays:
    """What is given in the precision of states, of signals and states (batch, W) and constants (W,)."""
    arrays = state | signals | constants
    require_arrays(operation, **arrays)
    xp = namespace(operation, **arrays)
    real_floating(operation, **arrays)
    shapes, (name, x) = describe(**arrays), next(iter(signals.items()))
    if x.ndim != 2:
        raise ShapeError(f"{operation}: {name} must be (batch, W) ({shapes}).")
    wanted = dict.fromkeys((*signals, *state), (tuple(x.shape),)) | dict.fromkeys(constants, (tuple(x.shape[1:]),))
    check_given(operation, arrays, wanted, shapes)
    check_finite(operation, xp, **arrays)
    dtype = compute_dtype(xp, *arrays.values())
    return {name: xp.astype(a, dtype, copy=False) for name, a in arrays.items()}


def check_bounded(operation: str, xp: Namespace, y: Array, shapes: object) -> None:
    """Raise for outputs on the host that are not finite: inputs were."""
    try:
        check_finite(operation, xp, y=y)
    except DomainError as error:
        raise DomainError(
            f"{operation}: the state overflows: log_decay > 0 lets it grow, or the inputs are too large ({shapes}). "
            "Keep log_decay at most 0."
        ) from error
