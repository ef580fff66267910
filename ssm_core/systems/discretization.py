"""From continuous to discrete systems: x_k = Ab x_{k-1} + Bb u_k.

With z = dt A (elementwise for a Diagonal system):

| method         | Ab                              | Bb                         | input between samples  |
|----------------|---------------------------------|----------------------------|------------------------|
| zoh            | exp(z)                          | dt phi1(z) B               | held                   |
| bilinear       | (1 - z/2)^-1 (1 + z/2)          | dt (1 - z/2)^-1 B          | Tustin, gbt alpha 1/2  |
| euler          | 1 + z                           | dt B                       | gbt alpha 0            |
| backward_euler | (1 - z)^-1                      | dt (1 - z)^-1 B            | gbt alpha 1            |
| gbt            | (1 - a z)^-1 (1 + (1 - a) z)    | dt (1 - a z)^-1 B          | a = alpha              |
| dirac          | exp(z)                          | B                          | an impulse a sample    |
| foh            | exp(z)                          | dt phi2(z) B               | a straight line        |

phi1(z) = (e^z - 1)/z, phi2(z) = (phi1(z) - 1)/z. The line of foh starts at the input before, which enters with
dt (phi1(z) - phi2(z)) B and is a state of its own: the result is Dense, with the states (x_k, u_k).
 Generalized bilinear transform: Zhang, Chen and Sun 2007. A DPLR system stays one under the
methods of gbt, by Woodbury's identity; its exponentials are Dense.
"""

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
    exp,
    is_array,
    is_complex,
    matmul,
    namespace,
    real_dtype,
    real_floating,
    require_arrays,
)
from .._arrays.shapes import broadcast
from .._arrays.values import check_finite, check_positive
from ..functions.matrix_exponential import expm
from ..functions.special import phi1
from . import records
from .conversions import dense_form
from .records import DPLR, Dense, Diagonal, System

METHODS = ("zoh", "bilinear", "euler", "backward_euler", "gbt", "dirac", "foh")
_ALPHA = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0}


def discretize(
    system: Any, dt: Any, method: str = "zoh", *, alpha: float | None = None, check_values: bool = False
) -> System:
    """The discrete system that a continuous one becomes when sampled every dt.

    x_k = Ab x_{k-1} + Bb u_k, with Ab and Bb of the table in this module; C and D stay.

    system        Dense, Diagonal, DPLR or a tuple (A, B[, C[, D]])
    dt            a number, (...) as the batch axes of the system, or (..., N) per stored pole; in units of time
    method        "zoh", "bilinear", "euler", "backward_euler", "gbt", "dirac", "foh"
    alpha         weight of "gbt", 0 <= alpha <= 1
    check_values  check dt and the system on any device (host values are always checked)
    returns       the same kind of system with discrete=True, dtype at least float32; zoh and dirac of DPLR
                  are Dense (`to_dense`), foh of every system is, with the states (x_k, u_k)

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
    check_system_values("discretize", xp, system, dt, check_values)
    return discretized(system, dt, method, alpha, xp)


def check_method(operation: str, system: Any, dt: Any, method: str, alpha: float | None) -> None:
    """Raise for an unknown method, a system that has no such method, or a dt that is missing or surplus."""
    if method not in METHODS:
        raise unknown(operation, "method", method, METHODS)
    if (method == "gbt") != (alpha is not None):
        needs = "needs alpha=, such as alpha=0.5" if method == "gbt" else "takes no alpha; only 'gbt' does"
        raise OptionError(f"{operation}: method {method!r} {needs}.")
    if alpha is not None and (not isinstance(alpha, int | float) or not 0 <= alpha <= 1):
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
    if isinstance(dt, bool | complex | str):
        raise DTypeError(f"{operation}: dt is a {type(dt).__name__} ({dt!r}), but must be a real number or an array.")
    if dt is None or isinstance(dt, int | float):
        return dt.item() if isinstance(dt, np.generic) else dt
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
    if method == "foh":
        return _first_order_hold(system, dt, xp)
    return _DISCRETIZED[type(system)](system, dt, method, _ALPHA.get(method, alpha), xp)


def log_poles(system: Any, dt: Any, method: str, xp: Namespace) -> tuple[Array, Array | None] | None:
    """The logarithms w = dt * poles of the discrete poles of a Diagonal system, where the method has them.

    As (w, what it lost by rounding), the latter None unless dt is more precise than the poles.
    """
    if method not in ("zoh", "dirac") or not isinstance(system, Diagonal):
        return None
    w, dtype = dt * system.poles, system.poles.dtype
    if w.dtype == dtype:
        return w, None
    rounded = xp.astype(w, dtype)
    return rounded, xp.astype(w - rounded, dtype)


def _diagonal(system: Diagonal, dt: Any, method: str, alpha: float | None, xp: Namespace) -> Diagonal:
    z = dt * system.poles
    if alpha is None:
        poles = exp(z)
        gain = dt * phi1(z) if method == "zoh" else xp.ones_like(z)
    else:
        poles = (1 + (1 - alpha) * z) / (1 - alpha * z)
        gain = dt / (1 - alpha * z)
    several = records.inputs(system, records.batch_rank(system)) is not None
    return replace(system, poles=poles, B=(gain[..., None] if several else gain) * system.B, discrete=True)


def _dplr(system: DPLR, dt: Any, method: str, alpha: float | None, xp: Namespace) -> DPLR | Dense:
    """Woodbury: with R = diag(1 / (1 - a dt poles)), P' = dt P and W = 1 + a Q^H R P' (R x R),

    poles = (1 + (1 - a) dt poles) R,   P = R P' W^-1,   Q = conj(R) Q,   B = R dt B - a P (Q^H R dt B)
    """
    rate = dt[..., None, :] if is_array(dt) and dt.ndim else dt  # against the rows of P and Q
    if alpha is None:
        scaled = replace(system, poles=dt * system.poles, P=rate * system.P, B=_scaled(system, dt))
        A, B = dense_form(scaled, xp).A, dense_form(scaled, xp).B
        C = dense_form(system, xp).C
        if method == "dirac":
            return Dense(expm(A), dense_form(system, xp).B, C, system.D, discrete=True)
        return _dense(Dense(A, B, C, system.D), 1.0, method, None, xp)
    R = 1 / (1 - alpha * dt * system.poles)
    several = records.inputs(system, records.batch_rank(system)) is not None
    B = _scaled(system, dt) * (R[..., None] if several else R)
    B = B if several else B[..., None]
    RP, Q = R[..., None, :] * rate * system.P, system.Q
    Q_H = xp.conj(Q) if is_complex(Q) else Q

    def inner(x: Array) -> Array:
        """Q^H x (..., R, columns), over both halves of conjugate pairs."""
        product = matmul(Q_H, x, xp)
        return (2 * xp.real(product) if is_complex(product) else 2 * product) if system.conj_pairs else product

    one = xp.eye(Q.shape[-2], dtype=RP.dtype, device=device(RP))
    W = one + alpha * inner(xp.matrix_transpose(RP))
    left = xp.matrix_transpose(xp.broadcast_to(W, (*RP.shape[:-2], *W.shape[-2:])))
    P = xp.linalg.solve(left, RP)
    B = B - alpha * matmul(xp.matrix_transpose(P), inner(B), xp)
    Q = Q * (xp.conj(R) if is_complex(R) else R)[..., None, :]
    poles = (1 + (1 - alpha) * dt * system.poles) * R
    return replace(system, poles=poles, P=P, Q=Q, B=B if several else B[..., 0], discrete=True)


def _first_order_hold(system: Any, dt: Any, xp: Namespace) -> Dense:
    """From the exponential of [[A, B, 0], [0, 0, 1], [0, 0, 0]], whose first row is e^A, phi1(A) B, phi2(A) B."""
    rank = records.batch_rank(system)
    several = records.inputs(system, rank) is not None
    dense = system if isinstance(system, Dense) else dense_form(system, xp)
    if isinstance(system, Dense):
        step = dt[..., None, None] if is_array(dt) else dt
        A, B = step * dense.A, step * (dense.B if several else dense.B[..., None])
    else:
        rate = dt[..., None, :] if is_array(dt) and dt.ndim else dt
        rows = {"P": rate * system.P} if isinstance(system, DPLR) else {}
        scaled = dense_form(replace(system, poles=dt * system.poles, B=_scaled(system, dt), **rows), xp)
        A, B = scaled.A, scaled.B if several else scaled.B[..., None]
    n, p = B.shape[-2:]
    batch = broadcast("discretize", A=A.shape[:-2], B=B.shape[:-2])
    A, B = xp.broadcast_to(A, (*batch, n, n)), xp.broadcast_to(B, (*batch, n, p))
    dtype = xp.result_type(A.dtype, B.dtype)
    one = xp.broadcast_to(xp.eye(p, dtype=dtype, device=device(B)), (*batch, p, p))

    def zeros(rows: int, columns: int) -> Array:
        return xp.zeros((*batch, rows, columns), dtype=dtype, device=device(B))

    top = xp.concat([xp.astype(A, dtype), xp.astype(B, dtype), zeros(n, p)], axis=-1)
    middle = xp.concat([zeros(p, n + p), one], axis=-1)
    E = expm(xp.concat([top, middle, zeros(p, n + 2 * p)], axis=-2))[..., :n, :]
    now, before = E[..., n + p :], E[..., n : n + p] - E[..., n + p :]
    A = xp.concat([xp.concat([E[..., :n], before], axis=-1), zeros(p, n + p)], axis=-2)
    B = xp.concat([now, one], axis=-2)
    C = dense.C
    if C is not None:
        C = xp.concat([C, xp.zeros((*C.shape[:-1], p), dtype=C.dtype, device=device(C))], axis=-1)
    return Dense(A, B if several else B[..., 0], C, system.D, discrete=True)


def _scaled(system: Any, dt: Any) -> Array:
    """dt B."""
    several = records.inputs(system, records.batch_rank(system)) is not None
    return system.B * (dt[..., None] if several and is_array(dt) else dt)


def _dense(system: Dense, dt: Any, method: str, alpha: float | None, xp: Namespace) -> Dense:
    several = records.inputs(system, records.batch_rank(system)) is not None
    B = system.B if several else system.B[..., None]
    dt = dt[..., None, None] if is_array(dt) else dt
    if method == "dirac":
        A = expm(dt * system.A)
    elif alpha is None:
        A, B = _dense_zoh(dt * system.A, dt * B, xp)
    else:
        one = xp.eye(system.A.shape[-1], dtype=system.A.dtype, device=device(system.A))
        left = one - alpha * dt * system.A
        A = xp.linalg.solve(left, one + (1 - alpha) * dt * system.A)
        batch = broadcast("discretize", A=A.shape[:-2], B=B.shape[:-2])
        left = xp.broadcast_to(left, (*batch, *left.shape[-2:]))
        B = xp.linalg.solve(left, xp.broadcast_to(dt * B, (*batch, *B.shape[-2:])))
    return replace(system, A=A, B=B if several else B[..., 0], discrete=True)


def _dense_zoh(A: Array, B: Array, xp: Namespace) -> tuple[Array, Array]:
    """Both from one exponential of the augmented matrix [[A, B], [0, 0]], which is exact for a singular A too."""
    n, p = B.shape[-2:]
    batch = broadcast("discretize", A=A.shape[:-2], B=B.shape[:-2])
    dtype = xp.result_type(A.dtype, B.dtype)
    top = xp.concat(
        [
            xp.astype(xp.broadcast_to(A, (*batch, n, n)), dtype),
            xp.astype(xp.broadcast_to(B, (*batch, n, p)), dtype),
        ],
        axis=-1,
    )
    bottom = xp.zeros((*batch, p, n + p), dtype=dtype, device=device(top))
    E = expm(xp.concat([top, bottom], axis=-2))
    return E[..., :n, :n], E[..., :n, n:]


_DISCRETIZED: dict[type, Any] = {Diagonal: _diagonal, Dense: _dense, DPLR: _dplr}
