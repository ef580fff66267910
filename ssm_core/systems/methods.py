"""The methods of discretization, a record each: how x' = A x + B u becomes x_k = Ab x_{k-1} + Bb u_k.

A record holds closed forms in z = dt A and b = dt B (b = B where the input is impulses):

    diagonal    of z = dt poles to (Ab, g), Bb = g b, entry by entry
    dense       of the matrices z (..., N, N) and b (..., N, P) to (Ab, Bb)
    low_rank    of a DPLR system of dt poles, dt P, Q and b (..., N, P) to the discrete (poles, P, Q, Bb); without it
                the result is Dense

A method with `carries_input` reads the input before too, x_k = Ab x_{k-1} + Bb u_k + Bp u_{k-1}: each form gives the
g or the matrix of Bp after that of Bb, and the result is Dense with the states (x_k, u_k). The functions that a method
needs,

    phi1(z) = (e^z - 1)/z,    phi2(z) = (phi1(z) - 1)/z,

keep their digits at and near 0. Another method is one more record in `METHODS`: checks, kernels, runs and layers read
them. What each assumes of the input and how scipy.signal names it stands in the records and in docs/conventions.md.

Generalized bilinear transform: Zhang, Chen and Sun 2007. Low-rank forms: Woodbury's identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._arrays.idioms import exp, matmul
from .._arrays.library import Array, Namespace, device, dtype_name, is_complex
from .._arrays.shapes import broadcast
from ..functions.matrix_exponential import balance, exponential
from ..functions.special import phi1
from .records import DPLR


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of discretization; the closed forms are described at the head of this module.

    formulas       Ab and Bb as the documents write them, a = alpha
    between        what is assumed of the input between samples
    scipy          method of scipy.signal.cont2discrete that comes closest, None if there is none
    relation       the transfer function of SciPy's system without its direct term over ours, in w = e^(-i omega), dt, a
    alpha          weight of the generalized bilinear transform, which its forms take as alpha=
    needs_alpha    the user gives alpha
    exponential    the discrete poles are exp(dt poles), so that their logarithms are known
    impulse        B is not multiplied by dt
    carries_input  the input before enters and is a state of its own: no step_scale, and not for layers
    """

    formulas: tuple[str, str]
    between: str
    scipy: str | None
    relation: str
    diagonal: Callable[..., tuple[Array, ...]]
    dense: Callable[..., tuple[Array, ...]]
    low_rank: Callable[..., tuple[Array, ...]] | None = None
    alpha: float | None = None
    needs_alpha: bool = False
    exponential: bool = False
    impulse: bool = False
    carries_input: bool = False

    @property
    def weight(self) -> dict[str, float]:
        """The option that the closed forms take."""
        return {} if self.alpha is None else {"alpha": self.alpha}

    @property
    def keeps_low_rank(self) -> bool:
        """Whether a DPLR system stays one."""
        return self.low_rank is not None and not self.carries_input

    @property
    def for_layers(self) -> bool:
        """Whether a layer, whose state is that of its system, can take the method by its name."""
        return not self.carries_input and not self.needs_alpha


def phi2(z: Array, xp: Namespace) -> Array:
    """(phi1(z) - 1)/z = 1/2! + z/3! + z^2/4! + ..., by the series for |z| < 1; z of at least single precision."""
    small = xp.abs(z) < 1
    terms = 20 if dtype_name(z) in ("float64", "complex128") else 11
    near: Any = 1 / math.factorial(terms + 1)
    inside = xp.where(small, z, 0.0)
    for k in range(terms, 1, -1):
        near = near * inside + 1 / math.factorial(k)
    far = xp.where(small, 1.0, z)
    return xp.where(small, near, (phi1(far) - 1) / far)


def _held(z: Array, xp: Namespace) -> tuple[Array, ...]:
    return exp(z), phi1(z)


def _line(z: Array, xp: Namespace) -> tuple[Array, ...]:
    now = phi2(z, xp)
    return exp(z), now, phi1(z) - now


def _impulses(z: Array, xp: Namespace) -> tuple[Array, ...]:
    return exp(z), xp.ones_like(z)


def _held_dense(z: Array, b: Array, xp: Namespace) -> tuple[Array, ...]:
    return _exponentials(z, b, 1, xp)


def _line_dense(z: Array, b: Array, xp: Namespace) -> tuple[Array, ...]:
    A, first, second = _exponentials(z, b, 2, xp)
    return A, second, first - second


def _impulses_dense(z: Array, b: Array, xp: Namespace) -> tuple[Array, ...]:
    return exponential(z), b


def _exponentials(z: Array, b: Array, count: int, xp: Namespace) -> tuple[Array, ...]:
    """e^z, phi1(z) b, ..., phi_count(z) b, exact for a singular z too: the first row of one exponential,

    exp [[z, b, 0], [0, 0, 1], [0, 0, 0]] = [[e^z, phi1(z) b, phi2(z) b], ...]    (count 2)

    The states are balanced and the columns of b enter at a size near 1, so that scaling and digits do not depend on
    the units of states, input and time.
    """
    n, p = b.shape[-2:]
    batch = broadcast("discretize", A=z.shape[:-2], B=b.shape[:-2])
    dtype = xp.result_type(z.dtype, b.dtype)
    d = balance(z, xp)
    z, b = z * (xp.matrix_transpose(d) / d), b / d
    size = _sizes(b, xp)

    def spread(x: Array) -> Array:
        return xp.astype(xp.broadcast_to(x, (*batch, *x.shape[-2:])), dtype)

    def zeros(rows: int, columns: int) -> Array:
        return xp.zeros((*batch, rows, columns), dtype=dtype, device=device(b))

    one = spread(xp.eye((count - 1) * p, dtype=dtype, device=device(b)))
    top = xp.concat([spread(z), spread(b / size), zeros(n, (count - 1) * p)], axis=-1)
    shift = xp.concat([zeros((count - 1) * p, n + p), one], axis=-1)
    E = exponential(xp.concat([top, shift, zeros(p, n + count * p)], axis=-2))[..., :n, :]
    inputs = (d * E[..., n + k * p : n + (k + 1) * p] * size for k in range(count))
    return E[..., :n] * (d / xp.matrix_transpose(d)), *inputs


def _sizes(b: Array, xp: Namespace) -> Array:
    """Powers of two near the 1-norms of the columns (..., 1, P), 1 for what is 0 or not finite."""
    norm = xp.sum(xp.abs(b), axis=-2, keepdims=True)
    exponent = xp.floor(xp.log2(xp.where((norm > 0) & xp.isfinite(norm), norm, 1.0)))
    largest = 100.0 if dtype_name(norm) == "float32" else 1000.0
    return 2.0 ** xp.clip(exponent, -largest, largest)


def _gbt(z: Array, xp: Namespace, alpha: float) -> tuple[Array, ...]:
    below = 1 - alpha * z
    return (1 + (1 - alpha) * z) / below, 1 / below


def _gbt_dense(z: Array, b: Array, xp: Namespace, alpha: float) -> tuple[Array, ...]:
    one = xp.eye(z.shape[-1], dtype=z.dtype, device=device(z))
    left = one - alpha * z
    batch = broadcast("discretize", A=z.shape[:-2], B=b.shape[:-2])
    A = xp.linalg.solve(left, one + (1 - alpha) * z)
    left = xp.broadcast_to(left, (*batch, *left.shape[-2:]))
    return A, xp.linalg.solve(left, xp.broadcast_to(b, (*batch, *b.shape[-2:])))


def _gbt_low_rank(system: DPLR, xp: Namespace, alpha: float) -> tuple[Array, ...]:
    """Woodbury: with z = dt poles, P of dt P, R = diag(1 / (1 - a z)) and W = 1 + a Q^H R P (R x R),

    poles' = (1 + (1 - a) z) R,   P' = R P W^-1,   Q' = conj(R) Q,   Bb = R b - a P' (Q^H R b)
    """
    z, Q = system.poles, system.Q
    R = 1 / (1 - alpha * z)
    B, RP = system.B * R[..., None], R[..., None, :] * system.P
    Q_H = xp.conj(Q) if is_complex(Q) else Q

    def inner(x: Array) -> Array:
        """Q^H x (..., R, columns), over both halves of conjugate pairs."""
        product = matmul(Q_H, x, xp)
        return (2 * xp.real(product) if is_complex(product) else 2 * product) if system.conj_pairs else product

    one = xp.eye(Q.shape[-2], dtype=RP.dtype, device=device(RP))
    W = one + alpha * inner(xp.matrix_transpose(RP))
    batch = broadcast("discretize", P=RP.shape[:-2], Q=W.shape[:-2])
    left, right = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (xp.matrix_transpose(W), RP))
    P = xp.linalg.solve(left, right)
    B = B - alpha * matmul(xp.matrix_transpose(P), inner(B), xp)
    return (1 + (1 - alpha) * z) * R, P, Q * (xp.conj(R) if is_complex(R) else R)[..., None, :], B


def _averaged(form: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """The form of gbt for the input alpha u_k + (1 - alpha) u_{k-1}, weighted as the state is."""

    def averaged(*args: Any, alpha: float) -> tuple[Array, ...]:
        *rest, drive = form(*args, alpha=alpha)
        return *rest, alpha * drive, (1 - alpha) * drive

    return averaged


_GBT = Method(
    formulas=("(1 - a z)^-1 (1 + (1 - a) z)", "dt (1 - a z)^-1 B"),
    between="u_k over the whole step, the state weighted by a = alpha, 0 to 1",
    scipy="gbt",
    relation="a + (1 - a)*w",
    diagonal=_gbt,
    dense=_gbt_dense,
    low_rank=_gbt_low_rank,
    needs_alpha=True,
)

METHODS: dict[str, Method] = {
    "zoh": Method(
        formulas=("exp(z)", "dt phi1(z) B"),
        between="held at u_k over the whole step",
        scipy="zoh",
        relation="w",
        diagonal=_held,
        dense=_held_dense,
        exponential=True,
    ),
    "bilinear": replace(
        _GBT,
        formulas=("(1 - z/2)^-1 (1 + z/2)", "dt (1 - z/2)^-1 B"),
        between="u_k over the whole step, the state a trapezoid: S4's rule, `gbt` with alpha 1/2",
        scipy="bilinear",
        relation="(1 + w)/2",
        alpha=0.5,
        needs_alpha=False,
    ),
    "euler": replace(
        _GBT,
        formulas=("1 + z", "dt B"),
        between="u_k over the whole step, the state of its beginning: `gbt` with alpha 0",
        scipy="euler",
        relation="w",
        alpha=0.0,
        needs_alpha=False,
    ),
    "backward_euler": replace(
        _GBT,
        formulas=("(1 - z)^-1", "dt (1 - z)^-1 B"),
        between="u_k over the whole step, the state of its end: `gbt` with alpha 1",
        scipy="backward_diff",
        relation="1",
        alpha=1.0,
        needs_alpha=False,
    ),
    "gbt": _GBT,
    "dirac": Method(
        formulas=("exp(z)", "B"),
        between="an impulse u_k at every sample, 0 between them",
        scipy="impulse",
        relation="dt",
        diagonal=_impulses,
        dense=_impulses_dense,
        exponential=True,
        impulse=True,
    ),
    "foh": Method(
        formulas=("exp(z)", "dt phi2(z) B, and of u_{k-1} dt (phi1(z) - phi2(z)) B"),
        between="a straight line from u_{k-1} to u_k",
        scipy="foh",
        relation="1",
        diagonal=_line,
        dense=_line_dense,
        exponential=True,
        carries_input=True,
    ),
    "tustin": Method(
        formulas=("(1 - z/2)^-1 (1 + z/2)", "dt/2 (1 - z/2)^-1 B, and the same of u_{k-1}"),
        between="a trapezoid from u_{k-1} to u_k, as the state: Tustin's rule",
        scipy="bilinear",
        relation="1",
        diagonal=_averaged(_gbt),
        dense=_averaged(_gbt_dense),
        low_rank=_averaged(_gbt_low_rank),
        alpha=0.5,
        carries_input=True,
    ),
}


def weighted(name: str, alpha: float | None) -> Method:
    """The method of that name, with the alpha that the user gave."""
    return METHODS[name] if alpha is None else replace(METHODS[name], alpha=alpha)
