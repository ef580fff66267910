"""What the recurrences with gates of every step share: their steps, and checks of what they are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays.errors import DomainError, OptionError, ShapeError
from .._arrays.idioms import clip
from .._arrays.library import Array, Namespace
from .._arrays.numbers import is_number, plain
from .._arrays.values import check_finite
from ..functions.special import softplus
from ..recurrences.broken import Broken, kept_apart
from ..recurrences.segments import Segments


def steps_of(
    operation: str,
    dt: Array,
    shapes: object,
    xp: Namespace,
    *,
    bias: Array | None = None,
    with_softplus: bool = False,
    limit: tuple[float, float] = (0.0, math.inf),
    advice: str = "Use dt_softplus=True.",
) -> Array:
    """dt + bias, softplus of it if asked for, clipped to the limits; negative steps of host arrays are refused."""
    dt = dt if bias is None else dt + bias
    dt = softplus(dt) if with_softplus else dt
    if isinstance(dt, np.ndarray) and bool((dt < 0).any()):
        raise DomainError(f"{operation}: dt is negative at {int((dt < 0).sum())} steps ({shapes}). {advice}")
    return dt if tuple(limit) == (0.0, math.inf) else clip(dt, limit[0], limit[1])


def check_limit(operation: str, limit: Any) -> tuple[float, float]:
    """dt_limit as a pair of Python's numbers; raises for anything else."""
    found = tuple(map(plain, limit)) if isinstance(limit, tuple | list) else ()
    if len(found) != 2 or not all(map(is_number, found)) or not 0 <= found[0] <= found[1]:
        raise OptionError(f"{operation}: dt_limit = {limit!r} must be two numbers, 0 <= low <= high.")
    return float(found[0]), float(found[1])


def check_rows(operation: str, rows: dict[str, Array], lead: tuple[int, ...], H: int, shapes: object) -> None:
    """Raise unless B, and C where there is one, are (*lead, G, N), with G dividing H heads."""
    want = len(lead) + 2
    for name, m in rows.items():
        if m.ndim != want or tuple(m.shape[:-2]) != lead or m.shape[-2] < 1:
            raise ShapeError(f"{operation}: {name} must be {(*lead, 'G', 'N')} ({shapes}).".replace("'", ""))
        if H % m.shape[-2]:
            raise ShapeError(f"{operation}: {m.shape[-2]} groups of {name} do not divide {H} heads ({shapes}).")
    if len({tuple(m.shape) for m in rows.values()}) > 1:
        raise ShapeError(f"{operation}: B and C must have the same groups and states ({shapes}).")


def check_given(operation: str, given: dict[str, Any], wanted: dict[str, Any], shapes: object) -> None:
    """Raise for the first array that has none of its possible shapes."""
    for name, v in given.items():
        if name in wanted and not any(tuple(v.shape) == shape for shape in wanted[name]):
            known = " or ".join(str(shape) for shape in wanted[name])
            raise ShapeError(f"{operation}: {name} must be {known} ({shapes}).")


def kept_finite(
    operation: str,
    arrays: dict[str, Array],
    segments: Segments,
    xp: Namespace,
    *,
    axis: int,
    kept: tuple[int, ...],
    signals: tuple[str, ...],
    state: tuple[str, ...] = ("initial",),
    shared: tuple[str, ...] = ("B", "C"),
    passing: tuple[str, ...] = ("C", "z"),
) -> tuple[dict[str, Array], Broken]:
    """The arrays with zero for what lies beyond the lengths and what is not finite beside others, and what that breaks.

    Signals have time on `axis`, batch and heads on the axes `kept`. Where nothing is cut, or what is not finite is no
    signal, it is refused on the host. Those that are shared by heads, and those that pass by the state, are told.
    """
    timed = {name: arrays[name] for name in signals if name in arrays}
    entering = {name: arrays[name] for name in state if name in arrays}
    timed = segments.all_masked(timed, axis, xp)
    if not segments.cut:
        check_finite(operation, xp, **timed, **entering)
    first = tuple(entering.values()) or None
    timed, first, broken = kept_apart(segments, timed, first, xp, axis=axis, kept=kept, shared=shared, passing=passing)
    check_finite(operation, xp, **{name: x for name, x in arrays.items() if name not in timed and name not in entering})
    return arrays | timed | dict(zip(entering, first or (), strict=True)), broken


def check_no_overflow(operation: str, y: Array, axis: int, lengths: Any, shapes: object) -> None:
    """Raise for outputs of the host that are not finite: inputs were, so a state has grown beyond all numbers."""
    if not isinstance(y, np.ndarray) or lengths is not None or bool(np.isfinite(y).all()):
        return
    others = tuple(i for i in range(y.ndim) if i != axis % y.ndim)
    step = int(np.argmin(np.isfinite(y).all(axis=others)))
    raise DomainError(
        f"{operation}: the state overflows at step {step}: dt A > 0 lets it grow, or the inputs are too large "
        f"({shapes}). Keep A negative, as A = -exp(A_log) does."
    )


def check_tuples(operation: str, given: dict[str, tuple[Any, int]]) -> None:
    """Raise for what should be None or a tuple of so many arrays."""
    for name, (found, n) in given.items():
        several = isinstance(found, tuple | list)
        if found is not None and (not several or len(found) != n):
            what = f"{len(found)} of them" if several else f"a {type(found).__name__}"
            raise ShapeError(f"{operation}: {name} must be a tuple of {n} arrays, not {what}.")


def check_rank(operation: str, several: bool, maps: dict[str, Any], z: Any, shapes: object, option: str) -> None:
    """Raise unless there are maps exactly where there are several inputs a step, one for z exactly where z is."""
    if several != bool(maps):
        raise OptionError(
            f"{operation}: B and C (batch, L, R, G, N) of R inputs a step go with {option}, and without them they are "
            f"(batch, L, G, N) ({shapes})."
        )
    absent = {name for name, found in maps.items() if found is None}
    if absent != ({"z_map"} if "z_map" in maps and z is None else set()):
        raise OptionError(f"{operation}: {option} are arrays, the second one None exactly where z is ({shapes}).")


def shapes_of_mamba3(x: Array, B: Array, angles: Array, segments: Segments) -> dict[str, Any]:
    """The shapes that the other arrays of `mamba3_scan` may have."""
    batch, L, H, P = x.shape
    ranked, N = (tuple(B.shape[2:3]) if B.ndim == 5 else ()), B.shape[-1]
    M, n = angles.shape[-1] if angles.ndim else 0, segments.count(batch)
    per_step, per_head, bias = ((batch, L, H),), ((H, *ranked, P),), ((H, *ranked, N),)
    return {
        "dt": per_step,
        "A": ((H,), *per_step),
        "trap": per_step,
        "angles": ((batch, L, H, M), (batch, L, 1, M)),
        "B_bias": bias,
        "C_bias": bias,
        "D": ((H,),),
        "z": ((batch, L, H, P),),
        "x_map": per_head,
        "z_map": per_head,
        "out_map": per_head,
        "t": ((n, H, M),),
        "S": ((n, H, P, N),),
        "K": ((n, H, *ranked, N),),
        "before": ((n, H, *ranked, P),),
    }
