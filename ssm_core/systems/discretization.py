"""From continuous to discrete systems: x_k = Ab x_{k-1} + Bb u_k, by the methods of `methods`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, describe, unknown
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    device,
    is_array,
    namespace,
    real_dtype,
    real_floating,
    require_arrays,
)
from .._arrays.numbers import flag, is_number, plain
from .._arrays.shapes import broadcast
from .._arrays.values import check_finite, check_positive
from . import records
from .conversions import dense_form
from .methods import METHODS, Method, weighted
from .records import DPLR, Dense, Diagonal, System


def discretize(
    system: Any, dt: Any, method: str = "zoh", *, alpha: float | None = None, check_values: bool = False
) -> System:
    """The discrete system that a continuous one becomes when sampled every dt.

    x_k = Ab x_{k-1} + Bb u_k; C and D stay. With z = dt A, elementwise for a Diagonal system:

    zoh             Ab = exp(z), Bb = dt phi1(z) B: the input is held; phi1(z) = (e^z - 1)/z
    bilinear        Ab = (1 - z/2)^-1 (1 + z/2), Bb = dt (1 - z/2)^-1 B: a trapezoid in the state, not in the input
    euler           Ab = 1 + z, Bb = dt B
    backward_euler  Ab = (1 - z)^-1, Bb = dt (1 - z)^-1 B
    gbt             Ab = (1 - a z)^-1 (1 + (1 - a) z), Bb = dt (1 - a z)^-1 B: the three before with a = alpha
    dirac           Ab = exp(z), Bb = B: an impulse at every sample
    foh             Ab = exp(z); the input is a straight line between samples
    tustin          the trapezoid in the input too: bilinear with dt/2 (1 - z/2)^-1 B (u_k + u_{k-1})

    system        Dense, Diagonal, DPLR or a tuple (A, B[, C[, D]])
    dt            a number, (...) as the batch axes of the system, or (..., N) per stored pole; in units of time
    method        one of these names; docs/conventions.md tells what scipy.signal calls each
    alpha         weight of "gbt", 0 <= alpha <= 1
    check_values  check dt and the system on any device (host values are always checked)
    returns       the same kind of system with discrete=True, dtype at least float32; zoh and dirac of DPLR
                  are Dense (`to_dense`); foh and tustin of every system are, with the states (x_k, u_k)

    Raises ShapeError, DTypeError, OptionError (unknown method, discrete system), DomainError (dt <= 0, NaN).

    >>> import numpy, ssm_core
    >>> system = ssm_core.Diagonal(numpy.asarray([-1.0, -2.0]), numpy.ones(2))
    >>> ssm_core.discretize(system, 0.5).poles.round(4)
    array([0.6065, 0.3679])
    """
    system = records.as_system("discretize", system, dt)
    check_method("discretize", system, dt, method, alpha)
    system, xp = records.validated("discretize", system)
    dt = validated_dt("discretize", system, dt, xp)
    system = records.as_precise_as(system, dt, xp)
    check_system_values("discretize", xp, system, dt, flag("discretize", check_values=check_values))
    return discretized(system, dt, method, alpha, xp)


def check_method(operation: str, system: Any, dt: Any, method: str, alpha: float | None) -> None:
    """Raise for an unknown method, a system that has no such method, or a dt that is missing or surplus."""
    if not isinstance(method, str) or method not in METHODS:
        raise unknown(operation, "method", method, METHODS)
    if METHODS[method].needs_alpha != (alpha is not None):
        takers = " and ".join(repr(name) for name, record in METHODS.items() if record.needs_alpha)
        needs = "needs alpha=, such as alpha=0.5" if alpha is None else f"takes no alpha; only {takers} does"
        raise OptionError(f"{operation}: method {method!r} {needs}.")
    if alpha is not None and not (is_number(plain(alpha)) and 0 <= plain(alpha) <= 1):
        raise DomainError(f"{operation}: alpha = {alpha!r} must lie in [0, 1].")
    if system.discrete and (dt is not None or operation == "discretize"):
        raise OptionError(f"{operation}: the system is discrete already, so it takes no dt (dt: {dt!r}).")
    if not system.discrete and dt is None:
        raise OptionError(f"{operation}: a continuous system needs its step: {operation}(..., dt=0.01).")


def check_system_values(operation: str, xp: Namespace, system: Any, dt: Any, always: bool) -> None:
    arrays = {name: getattr(system, name) for name in records.array_fields(type(system))}
    check_finite(operation, xp, always, **arrays)
    if dt is not None:
        check_positive(operation, xp, always, dt=dt)


def validated_dt(operation: str, system: Any, dt: Any, xp: Namespace) -> Any:
    """dt with one axis a batch axis (and one for the states, size 1 or N, if the system is Diagonal), or a number."""
    dt = dt.item() if isinstance(dt, np.generic) else dt
    if isinstance(dt, bool | complex | str):
        raise DTypeError(f"{operation}: dt is a {type(dt).__name__} ({dt!r}), but must be a real number or an array.")
    if dt is None or isinstance(dt, int | float):
        return dt
    require_arrays(operation, dt=dt)
    arrays = {name: getattr(system, name) for name in records.array_fields(type(system))}
    namespace(operation, dt=dt, **arrays)
    real_floating(operation, dt=dt)
    dt, rank = computable(dt, xp), records.batch_rank(system)
    diagonal = not isinstance(system, Dense)
    first = next(iter(arrays))
    if dt.ndim == 0:
        return dt
    if dt.ndim != rank and not (diagonal and dt.ndim == rank + 1):
        raise ShapeError(
            f"{operation}: dt has {dt.ndim} axes, but the system has {rank} batch axes "
            f"({describe(dt=dt, **{first: arrays[first]})}). Give dt as a number, with {rank} axes"
            + (f", or with {rank + 1} (per state)." if diagonal else ".")
        )
    dt = dt[..., None] if diagonal and dt.ndim == rank else dt
    broadcast(operation, dt=dt.shape, **{first: arrays[first].shape[: rank + diagonal]})
    return dt


def discretized(system: Any, dt: Any, method: str, alpha: float | None, xp: Namespace) -> Any:
    """`discretize` without validation, in the precision of the system; dt as `validated_dt` gives it."""
    if is_array(dt):
        dt = xp.astype(dt, real_dtype(records.state_field(system).dtype, xp), copy=False)
    record = weighted(method, alpha)
    found, drives = _SAMPLED[type(system)](record, system, dt, xp)
    return _with_input_before(found, drives, xp) if record.carries_input else replace(found, B=drives[0])


def carried(system: Any, dt: Any, method: str, alpha: float | None, xp: Namespace) -> tuple[Any, Any]:
    """The system and dt to run: discrete already, without dt, where its state holds the input before."""
    if system.discrete or not METHODS[method].carries_input:
        return system, dt
    return discretized(system, dt, method, alpha, xp), None


def check_own_steps(operation: str, system: Any, method: str) -> None:
    """Raise unless every step can have a dt of its own."""
    if not system.discrete and METHODS[method].carries_input:
        raise OptionError(f"{operation}: method {method!r} takes no step_scale. Use method='zoh', or 'bilinear'.")


def log_poles(system: Any, dt: Any, method: str, xp: Namespace) -> tuple[Array, Array | None] | None:
    """The logarithms w = dt * poles of the discrete poles of a Diagonal system, where the method has them.

    As (w, what it lost by rounding), the latter None unless dt is more precise than the poles.
    """
    record = METHODS[method]
    if not record.exponential or record.carries_input or not isinstance(system, Diagonal):
        return None
    w, dtype = dt * system.poles, system.poles.dtype
    if w.dtype == dtype:
        return w, None
    rounded = xp.astype(w, dtype)
    return rounded, xp.astype(w - rounded, dtype)


def _diagonal(method: Method, system: Diagonal, dt: Any, xp: Namespace) -> tuple[Diagonal, list[Array]]:
    poles, *gains = method.diagonal(dt * system.poles, xp, **method.weight)
    gains = gains if method.impulse else [dt * gain for gain in gains]
    several = records.inputs(system, records.batch_rank(system)) is not None
    drives = [(gain[..., None] if several else gain) * system.B for gain in gains]
    return replace(system, poles=poles, discrete=True), drives


def _dense(method: Method, system: Dense, dt: Any, xp: Namespace) -> tuple[Dense, list[Array]]:
    dt = dt[..., None, None] if is_array(dt) else dt
    return _of_matrices(method, system, dt * system.A, dt, xp)


def _of_matrices(method: Method, system: Any, z: Array, dt: Any, xp: Namespace) -> tuple[Dense, list[Array]]:
    """By the form of matrices, z of a system whose B dt multiplies."""
    several = records.inputs(system, records.batch_rank(system)) is not None
    B = system.B if several else system.B[..., None]
    A, *drives = method.dense(z, B if method.impulse else dt * B, xp, **method.weight)
    return Dense(A, system.B, system.C, system.D, discrete=True), drives if several else [x[..., 0] for x in drives]


def _dplr(method: Method, system: DPLR, dt: Any, xp: Namespace) -> tuple[Any, list[Array]]:
    rate = dt[..., None, :] if is_array(dt) and dt.ndim else dt  # against the rows of P and Q
    several = records.inputs(system, records.batch_rank(system)) is not None
    B = system.B if method.impulse else system.B * (dt[..., None] if several and is_array(dt) else dt)
    scaled = replace(system, poles=dt * system.poles, P=rate * system.P, B=B)
    if method.low_rank is None:
        dense = dense_form(scaled, xp)
        return _of_matrices(method, dense, dense.A, 1.0, xp)
    scaled = scaled if several else replace(scaled, B=B[..., None])
    poles, P, Q, *drives = method.low_rank(scaled, xp, **method.weight)
    found = replace(system, poles=poles, P=P, Q=Q, discrete=True)
    return found, drives if several else [x[..., 0] for x in drives]


_SAMPLED: dict[type, Any] = {Diagonal: _diagonal, Dense: _dense, DPLR: _dplr}


def _with_input_before(system: Any, drives: list[Array], xp: Namespace) -> Dense:
    """x_k = A x_{k-1} + B u_k + B' u_{k-1}, drives (B, B'), with the states (x_k, u_k)."""
    several = records.inputs(system, records.batch_rank(system)) is not None
    both = xp.concat(drives if several else [x[..., None] for x in drives], axis=-1)
    system = replace(system, B=both)
    system = system if isinstance(system, Dense) else dense_form(system, xp)
    n, p = system.B.shape[-2], both.shape[-1] // 2
    batch = broadcast("discretize", A=system.A.shape[:-2], B=system.B.shape[:-2])
    dtype, where = xp.result_type(system.A.dtype, system.B.dtype), device(system.B)
    A, B = (xp.astype(xp.broadcast_to(x, (*batch, *x.shape[-2:])), dtype) for x in (system.A, system.B))
    nothing = xp.zeros((*batch, p, n + p), dtype=dtype, device=where)
    one = xp.broadcast_to(xp.eye(p, dtype=dtype, device=where), (*batch, p, p))
    A = xp.concat([xp.concat([A, B[..., p:]], axis=-1), nothing], axis=-2)
    B = xp.concat([B[..., :p], one], axis=-2)
    C = system.C
    if C is not None:
        C = xp.concat([C, xp.zeros((*C.shape[:-1], p), dtype=C.dtype, device=device(C))], axis=-1)
    return Dense(A, B if several else B[..., 0], C, system.D, discrete=True)
