"""HiPPO as an online memory: a few coefficients that hold the past of a signal, at every step.

"legs" weighs all the past alike, and its system changes with time:   c'(t) = (A c(t) + B u(t)) / t

With A and B of `hippo`, a step from t - d to t, and a = 1/2, 0, 1 for "bilinear", "euler", "backward_euler",

    (t - a d A) c_k = (t + (1 - a) d A) c_{k-1} + d B u_k
    c_k = e_0 u_k + exp(A log(t'/t)) (c_{k-1} - e_0 u_k)                      "zoh", a step from t to t'

where e_0 = (1, 0, 0, ...). Only ratios of times occur: a signal that is stretched in time has the same coefficients.
The other measures are systems x' = A x + B u that do not change, discretized as by `discretize`.

The recurrences are in `hippo_recurrences`, the functions that the coefficients belong to in `hippo_bases`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, describe, unknown
from .._arrays.idioms import moved
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    compute_dtype,
    device,
    floating,
    is_array,
    is_half,
    namespace,
    real_dtype,
    real_floating,
    require_arrays,
    widest,
)
from .._arrays.numbers import flag
from .._arrays.shapes import broadcast
from .._arrays.values import check_finite, check_positive
from ..systems import methods
from .bases import ENDLESS, LAGUERRE, WINDOWS, check_measure, checked_matrices, dual_functions
from .projection import different_steps, equal_steps, held_legs, legs, times_vectors

WEIGHTS = {n: m.alpha for n, m in methods.METHODS.items() if m.alpha is not None and not m.carries_input}
METHODS = (*WEIGHTS, "zoh")
SLACK = 1e-6  # by which a point may miss the window, as a fraction of it


def hippo_project(
    u: Array,
    measure: str,
    N: int,
    *,
    dt: Any = None,
    times: Array | None = None,
    method: str = "bilinear",
    window: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    initial: Array | None = None,
    start: float | None = None,
    check_values: bool = False,
) -> Array:
    """The coefficients of the past of a signal in the orthogonal functions of a HiPPO measure, after every step.

    c_k = Ab_k c_{k-1} + Bb_k u_k,   k = 0..L-1, of which `hippo_reconstruct` makes the past again

    u             (..., L), real or complex
    measure       "legs" (all the past, scale invariant); "legt", "lmu", "fout", "fourier2" (a sliding window);
                  "lagt", "tlagt", "glagt", "fourier_decay" (the past, fading)
    N             number of coefficients, even for the Fourier measures
    dt            time from sample to sample. "legs" needs none: its samples lie at dt, 2 dt, ... from the start
    times         (L,) or (..., L), increasing: when each sample was taken, for samples that are not equally spaced;
                  may be more precise than u. "zoh" also takes L + 1 of them, with the end of the last step
    method        "bilinear", "euler", "backward_euler": sample k belongs to the step from t_{k-1} to t_k;
                  "zoh": it is held from t_k to t_{k+1}, the last one as long as the one before
    window        length of the sliding window in the time of dt, of the period of "fourier_decay", or the unit of
                  time of Laguerre's polynomials; None is that of the matrices: 2 for "legt", "fout" and
                  "fourier_decay", else 1. "legs" has none
    alpha, beta   options of "tlagt" and "glagt", as in `hippo`
    initial       c_{-1} (..., N), zero if None: a memory that nothing has happened to
    start         t_{-1}, the time of initial: 0 for "legs"; elsewhere the first step is as long as the second
    check_values  check the values on any device (host values are always checked)
    returns       (..., L, N), dtype what u and initial promote to, half precision as u's

    "legs" takes O(N) a step (zoh: O(N^2)). Equal steps of the other measures run as `scan` does, by FFT where the
    sequence is long; steps that differ take the exponential or the inverse of a matrix each. No (L, N, N) tensor.
    To go on after K steps of "legs": initial=c[..., -1, :], start=K.

    Raises OptionError (measure, method, dt and times), ShapeError, DTypeError, DomainError, MixedArraysError.
    Sources: Gu, Dao, Ermon, Rudra and Re, HiPPO: recurrent memory with optimal polynomial projections, 2020;
    Voelker, Kajic and Eliasmith, Legendre memory units, 2019.

    >>> import numpy, ssm_core
    >>> ramp = numpy.linspace(0.0, 1.0, 1001)
    >>> c = ssm_core.hippo_project(ramp, "legs", 4)
    >>> c.shape, c[-1].round(2) + 0.0
    ((1001, 4), array([0.5 , 0.29, 0.  , 0.  ]))
    """
    operation = "hippo_project"
    N, check_values = check_measure(operation, measure, N), flag(operation, check_values=check_values)
    matrices = checked_matrices(operation, measure, N, alpha, beta, needed=measure != "legs")
    if not isinstance(method, str) or method not in METHODS:
        raise unknown(operation, "method", method, METHODS)
    arrays = {"u": u, "times": times, "initial": initial}
    require_arrays(operation, **{name: x for name, x in arrays.items() if x is not None or name == "u"})
    xp = namespace(operation, **arrays)
    floating(operation, u=u, initial=initial)
    real_floating(operation, times=times)
    dt, start = (_one_number(operation, u, xp, name, x) for name, x in (("dt", dt), ("start", start)))
    window = _window(operation, measure, window, u, xp)
    _check_clock(operation, measure, dt, times)
    check_finite(operation, xp, check_values, **{name: x for name, x in arrays.items() if x is not None})
    check_positive(operation, xp, check_values, **({} if dt is None else {"dt": dt}))
    check_finite(operation, xp, check_values, start=0.0 if start is None else start)
    if measure == "legs":
        _check_start(start, check_values)
    batch = _batch(operation, u, times, initial, N, held=method == "zoh")

    dtype = compute_dtype(xp, u, initial)
    signal = xp.astype(computable(u, xp), dtype, copy=False)
    first = None if initial is None else xp.astype(computable(initial, xp), dtype, copy=False)
    length = u.shape[-1]
    if length == 0:
        c = xp.zeros((*batch, 0, N), dtype=dtype, device=device(u))
    elif matrices is not None and times is None:
        c = equal_steps(signal, matrices, dt * (WINDOWS[measure] / window), method, first, xp)
    else:
        if times is None:
            edges = _equal_edges(start, dt, signal, method == "zoh", xp)
        else:
            times = widest(computable(times, xp), xp)
            edges = _edges(operation, measure, times, start, length, held=method == "zoh")
            _check_order(operation, measure, edges, check_values, xp)
        signal = moved(xp.broadcast_to(signal, (*batch, length)), -1, 0, xp)
        if first is None:
            first = xp.zeros((*batch, N), dtype=dtype, device=device(u))
        first = xp.broadcast_to(first, (*batch, N))
        if matrices is not None:
            c = different_steps(signal, matrices, edges * (WINDOWS[measure] / window), method, first, xp)
        elif method == "zoh":
            c = held_legs(signal, edges, first, xp)
        else:
            c = legs(signal, edges, WEIGHTS[method], first, xp)
    return xp.astype(c, u.dtype) if is_half(u) and c.dtype == xp.float32 else c


def hippo_reconstruct(
    coefficients: Array,
    measure: str,
    points: Array,
    *,
    window: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    check_values: bool = False,
) -> Array:
    """The past of a signal, as the coefficients of `hippo_project` remember it.

    u(t - s) = sum_n c_n(t) g_n(s), with the functions g_n of the module `ssm_core.measures.bases`

    coefficients  (..., N): those of one step, or of all, (..., L, N)
    measure       as in `hippo_project`, and so are window, alpha and beta
    points        (K,) or (..., K): how long ago, s >= 0, in the time of window; 0 is now. A sliding window ends at
                  s = window. For "legs", whose window is all the past, window is the time since its start: None
                  is 1, so that points are fractions of the past, 1 its beginning
    check_values  check the values on any device (host values are always checked)
    returns       (..., K), dtype what coefficients and points promote to, half precision as the coefficients'

    Where a measure fades the fit is best near 0 and worthless far away.

    Raises OptionError (measure), ShapeError, DTypeError, DomainError (points outside the window), MixedArraysError.
    Source: Gu, Dao, Ermon, Rudra and Re, HiPPO: recurrent memory with optimal polynomial projections, 2020.

    >>> import numpy, ssm_core
    >>> ramp = numpy.linspace(0.0, 1.0, 1001)
    >>> c = ssm_core.hippo_project(ramp, "legs", 4)
    >>> ssm_core.hippo_reconstruct(c[-1], "legs", numpy.asarray([0.0, 0.25, 0.5])).round(2)
    array([1.  , 0.75, 0.5 ])
    """
    operation = "hippo_reconstruct"
    require_arrays(operation, coefficients=coefficients, points=points)
    xp = namespace(operation, coefficients=coefficients, points=points)
    floating(operation, coefficients=coefficients)
    real_floating(operation, points=points)
    if coefficients.ndim < 1 or points.ndim < 1:
        short, wanted = ("coefficients", "(..., N)") if coefficients.ndim < 1 else ("points", "(..., K)")
        given = describe(coefficients=coefficients, points=points)
        raise ShapeError(f"{operation}: {short} must be an array {wanted} ({given}). Write {short}[None].")
    N = check_measure(operation, measure, coefficients.shape[-1])
    matrices = checked_matrices(operation, measure, N, alpha, beta, needed=measure in LAGUERRE)
    if measure == "legs" and window is None:
        window = WINDOWS["legs"]
    window = _window(operation, measure, window, points, xp)
    broadcast(operation, coefficients=coefficients.shape[:-1], points=points.shape[:-1])
    check_finite(operation, xp, check_values, coefficients=coefficients, points=points)
    _check_points(operation, measure, points, window, alpha=alpha, always=check_values)

    dtype = compute_dtype(xp, coefficients, points)
    s = widest(computable(points, xp), xp) * (WINDOWS[measure] / window)
    basis = dual_functions(measure, N, s, matrices, 0.0 if alpha is None else float(alpha), xp)
    basis = xp.astype(basis, real_dtype(dtype, xp), copy=False)
    c = xp.astype(computable(coefficients, xp), dtype, copy=False)
    y = times_vectors(basis, c, xp)
    return xp.astype(y, coefficients.dtype) if is_half(coefficients) and y.dtype == xp.float32 else y


# What the functions are given ----------------------------------------------------------------------------------------


def _one_number(operation: str, like: Array, xp: Namespace, name: str, value: Any) -> Any:
    """A number as a float, an array without axes as one to compute with."""
    if value is None:
        return None
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | complex | str) or not (isinstance(value, int | float | np.number) or is_array(value)):
        raise DTypeError(f"{operation}: {name} = {value!r} is a {type(value).__name__}, but must be a number.")
    if isinstance(value, int | float | np.number):
        return float(value)
    namespace(operation, u=like, **{name: value})
    real_floating(operation, **{name: value})
    if value.ndim:
        raise ShapeError(
            f"{operation}: {name} has shape {tuple(value.shape)}, but must be one number. "
            f"For steps that differ: {operation}(..., times=times)."
        )
    return widest(computable(value, xp), xp)


def _window(operation: str, measure: str, window: Any, like: Array, xp: Namespace) -> Any:
    """The length of the window, that of the matrices for None."""
    if window is not None and measure == "legs" and operation == "hippo_project":
        raise OptionError(
            f"{operation}: measure 'legs' has all the past as its window (window = {window!r}). Leave window out."
        )
    found = _one_number(operation, like, xp, "window", window)
    check_positive(operation, xp, window=1.0 if found is None else found)
    return WINDOWS[measure] if found is None else found


def _check_clock(operation: str, measure: str, dt: Any, times: Any) -> None:
    if dt is not None and times is not None:
        raise OptionError(f"{operation}: dt and times both say when samples were taken. Give one of them.")
    if dt is None and times is None and measure != "legs":
        raise OptionError(
            f"{operation}: measure {measure!r} needs the time between samples: {operation}(..., dt=0.01), or times=."
        )


def _batch(operation: str, u: Array, times: Any, initial: Any, N: int, held: bool) -> tuple[int, ...]:
    """The common axes in front of time; raises where sizes do not fit."""
    given = describe(u=u, times=times, initial=initial)
    if u.ndim < 1:
        raise ShapeError(f"{operation}: u needs an axis of time, (..., L) ({given}). Write u[None].")
    length = u.shape[-1]
    if initial is not None and (initial.ndim < 1 or initial.shape[-1] != N):
        raise ShapeError(f"{operation}: initial must end with {N} coefficients ({given}).")
    allowed = (length, length + 1) if held and length else (length,)
    if times is not None and (times.ndim < 1 or times.shape[-1] not in allowed):
        raise ShapeError(
            f"{operation}: times must have one entry a sample, (..., {length}), not "
            f"{times.shape[-1] if times.ndim else 'a single one'} ({given})."
        )
    axes = {"u": u.shape[:-1]}
    axes |= {} if times is None else {"times": times.shape[:-1]}
    axes |= {} if initial is None else {"initial": initial.shape[:-1]}
    return broadcast(operation, **axes)


def _check_order(operation: str, measure: str, edges: Array, always: bool, xp: Namespace) -> None:
    """Raise for steps that do not go forward, where values may be read."""
    if not (isinstance(edges, np.ndarray) or always):
        return
    if measure == "legs" and bool(xp.any(edges[..., 0] < 0)):
        raise DomainError(f"{operation}: the memory of 'legs' begins at time 0, but start or times are negative.")
    if not bool(xp.all(edges[..., 1:] > edges[..., :-1])):
        raise DomainError(
            f"{operation}: times must increase from sample to sample, and from start to the first "
            f"(edges of the steps: {tuple(edges.shape)})."
        )


def _check_points(operation: str, measure: str, points: Array, window: Any, *, alpha: Any, always: bool) -> None:
    """Raise for points outside the window, where values may be read."""
    xp = namespace(operation, points=points)
    if not (isinstance(points, np.ndarray) or always) or 0 in points.shape:
        return
    nearest, farthest = float(xp.min(points)), float(xp.max(points))
    last = np.inf if measure in ENDLESS else float(window)
    slack = 0 if measure in ENDLESS else SLACK * last
    if nearest < -slack or farthest > last + slack:
        raise DomainError(
            f"{operation}: points must lie in [0, {last:g}], from now to the end of the window of {measure!r} "
            f"(smallest: {nearest:g}, largest: {farthest:g})."
        )
    if nearest == 0 and alpha is not None and alpha < 0:
        raise DomainError(f"{operation}: the functions of 'glagt' are infinite at 0 for alpha = {alpha!r} < 0.")


# When steps begin and end --------------------------------------------------------------------------------------------


def _check_start(start: Any, always: bool) -> None:
    """Raise for a time before the memory of legs, where its value may be read."""
    if (isinstance(start, float | np.ndarray) or (start is not None and always)) and start < 0:
        raise DomainError(f"hippo_project: the memory of 'legs' begins at time 0, but start = {start} is negative.")


def _equal_edges(start: Any, dt: Any, signal: Array, held: bool, xp: Namespace) -> Array:
    """Those of legs, in units of dt: start + 0..L, a step later for what is held."""
    start = 0.0 if start is None else start
    steps = widest(xp.arange(signal.shape[-1] + 1, dtype=real_dtype(signal.dtype, xp), device=device(signal)), xp)
    first = start if dt is None else start / dt
    first = xp.astype(first, steps.dtype, copy=False) if is_array(first) else first
    return steps + (first + (1 if held else 0))


def _edges(operation: str, measure: str, times: Array, start: Any, length: int, *, held: bool) -> Array:
    """The L + 1 times (..., L + 1) from which and to which steps go."""
    xp = namespace(operation, times=times)
    if held and times.shape[-1] == length + 1:
        return times
    if start is None and measure == "legs":
        start = 0.0
    if start is None and length == 1:
        raise OptionError(f"{operation}: a single sample has no step yet. Give the time before it: start=.")
    one = times[..., :1]
    before = None if start is None else xp.zeros_like(one) + start
    if held:
        before = times[..., -2:-1] if length > 1 else before
        return xp.concat([times, 2 * times[..., -1:] - before], axis=-1)
    before = 2 * one - times[..., 1:2] if before is None else before
    return xp.concat([before, times], axis=-1)
