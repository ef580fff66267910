"""The matrix exponential, by scaling and squaring."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from .._arrays.dispatch import dispatched, is_traced
from .._arrays.errors import ShapeError
from .._arrays.idioms import matmul
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    device,
    dtype_name,
    floating,
    is_half,
    namespace,
    readable,
    to_numpy,
)
from .._arrays.values import check_finite

# The Pade approximant [13/13] of exp is exact to 2^-53 for matrices of 1-norm up to this.
_RADIUS = 5.371920351148152

# Coefficients b_0 = 1, ..., b_13 of its numerator; those of its denominator are (-1)^k b_k.
_B = [math.comb(13, k) / math.perm(26, k) for k in range(14)]

# Under a trace no value is known; this many squarings serve 1-norms up to 2^20 _RADIUS.
_MOST_SQUARINGS = 20

# The last squarings are of E, which keeps the digits of what is small; those before are of E - 1, which keeps the
# digits of what is near 1. At the switch, whatever rounding could hide is below e^-700 (e^-100 in single precision).
_LAST = {"float64": 8, "complex128": 8, "float32": 5, "complex64": 5}

_SWEEPS = 100  # of balancing, at most
_TRACED_SWEEPS = 16
_BALANCED = 64.0  # 1-norms that need no balancing


def expm(A: Array) -> Array:
    """The exponential of square matrices, each with its own scaling.

    exp(A) = sum_k A^k / k! = exp(A / 2^s)^(2^s),    s the least integer with ||A||_1 <= 2^s * 5.37

    A        (..., N, N)  real or complex floating
    returns  (..., N, N)  dtype of A

    exp(A / 2^s) is the Pade approximant [13/13], of a matrix of large norm after balancing: scaled by D^-1 A D, D of
    powers of two, rows and columns become equally large, so that the unit of a state does not matter. Half precision
    is computed in float32. NaN or inf in a matrix of a device gives NaN in its exponential.

    Raises ShapeError when the matrices are not square, DTypeError for integers and for what is no array,
    DomainError for host values that are NaN or inf.
    Source: Higham, The scaling and squaring method for the matrix exponential revisited, 2005; balancing: Parlett and
    Reinsch 1969.

    >>> import numpy, ssm_core
    >>> ssm_core.expm(numpy.asarray([[0.0, 1.0], [0.0, 0.0]]))
    array([[1., 1.],
           [0., 1.]])
    """
    xp = namespace("expm", A=A)
    floating("expm", A=A)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ShapeError(f"expm: A must be square matrices (..., N, N), but has shape {tuple(A.shape)}.")
    check_finite("expm", xp, A=A)
    E = exponential(computable(A, xp))
    return xp.astype(E, A.dtype) if is_half(A) else E


def exponential(A: Array) -> Array:
    """`expm` of matrices to compute with, without checks."""
    xp = namespace("expm", A=A)
    d = balance(A, xp)
    return _expm(A * (xp.matrix_transpose(d) / d)) * (d / xp.matrix_transpose(d))


@dispatched
def _expm(A: Array) -> Array:
    xp = array_namespace(A)
    if 0 in A.shape:
        return xp.exp(A)
    s = squarings(A, xp)
    most = _most(s, xp)
    E = start(A * 2.0**-s, s, xp)
    for k in range(most):
        E = squared(E, s, k, xp)
    return xp.where(s > most, xp.nan, E)


def start(A: Array, s: Array, xp: Namespace) -> Array:
    """exp(A) - 1, or exp(A) where its s squarings are all among the last."""
    X = _pade(A, xp)
    return xp.where(s <= _LAST[dtype_name(A)], X + xp.eye(A.shape[-1], dtype=A.dtype, device=device(A)), X)


def squared(Y: Array, s: Array, k: Any, xp: Namespace) -> Array:
    """The k-th of s squarings: Y is E - 1 before and E during the last ones; (1 + X)^2 - 1 = X^2 + 2 X."""
    left = s - k
    root = xp.where(left > 0, Y, 0.0)  # no squares, and no overflow in derivatives, of what is finished
    square = matmul(root, root, xp)
    last = _LAST[dtype_name(Y)]
    square = xp.where(left > last, square + 2 * root, square)
    one = xp.eye(Y.shape[-1], dtype=Y.dtype, device=device(Y))
    return xp.where(left > 0, xp.where(left == last + 1, square + one, square), Y)


def balance(A: Array, xp: Namespace) -> Array:
    """Powers of two d (..., N, 1) that make rows and columns of A_ij d_j / d_i equally large, 1 for small matrices."""
    norm = _norms(A, xp)
    large, d = (norm > _BALANCED) & xp.isfinite(norm), xp.zeros(A.shape[:-1], dtype=norm.dtype, device=device(A))
    known = readable(norm)
    if 0 in A.shape or (known and not bool(xp.any(large))):
        return d[..., None] + 1
    d = xp.where(large[..., 0], _exponents(xp.abs(A), d, not known, xp), d)
    scale = (2.0 ** xp.round(d))[..., None]
    smaller = _norms(A * (xp.matrix_transpose(scale) / scale), xp) < norm / 2
    return xp.where(smaller, scale, xp.ones_like(scale))


def _exponents(size: Array, d: Array, traced: bool, xp: Namespace) -> Array:
    """Half of Osborne's steps for all states at once, d_i += log2(r_i / c_i) / 4, until none is large."""
    one = xp.eye(size.shape[-1], dtype=size.dtype, device=device(size))
    size = size * (1 - one)
    for _ in range(_TRACED_SWEEPS if traced else _SWEEPS):
        scaled = size * 2.0 ** (d[..., None, :] - d[..., :, None])
        rows, columns = xp.sum(scaled, axis=-1), xp.sum(scaled, axis=-2)
        known = (rows > 0) & (columns > 0) & xp.isfinite(rows) & xp.isfinite(columns)
        rows, columns = (xp.where(known, x, xp.ones_like(x)) for x in (rows, columns))
        change = (xp.log2(rows) - xp.log2(columns)) / 4
        d = xp.clip(d + change, -50.0, 50.0)
        if not traced and float(to_numpy(xp.max(xp.abs(change)))) < 0.5:
            break
    return d


def _norms(A: Array, xp: Namespace) -> Array:
    """The 1-norms (..., 1, 1)."""
    if 0 in A.shape[-2:]:
        return xp.zeros((*A.shape[:-2], 1, 1), dtype=xp.abs(A).dtype, device=device(A))
    return xp.max(xp.sum(xp.abs(A), axis=-2, keepdims=True), axis=-1, keepdims=True)


def squarings(A: Array, xp: Namespace) -> Array:
    """The s of every matrix (..., 1, 1), as floating numbers; 0 where the norm is not finite."""
    norm = _norms(A, xp)
    large = (norm > _RADIUS) & xp.isfinite(norm)
    return xp.ceil(xp.log2(xp.where(large, norm / _RADIUS, 1.0)))


def _most(s: Array, xp: Namespace) -> int:
    """The squarings to provide for: the largest s, or a bound where no value is known."""
    return _MOST_SQUARINGS if is_traced(s) else int(xp.max(s))


def _pade(A: Array, xp: Namespace) -> Array:
    """(V - U)^-1 (V + U) - 1 with U the odd and V the even part of sum_k b_k A^k."""
    b = _B
    one = xp.eye(A.shape[-1], dtype=A.dtype, device=device(A))
    A2 = matmul(A, A, xp)
    A4 = matmul(A2, A2, xp)
    A6 = matmul(A2, A4, xp)
    odd = matmul(A6, b[13] * A6 + b[11] * A4 + b[9] * A2, xp) + b[7] * A6 + b[5] * A4 + b[3] * A2 + b[1] * one
    V = matmul(A6, b[12] * A6 + b[10] * A4 + b[8] * A2, xp) + b[6] * A6 + b[4] * A4 + b[2] * A2 + b[0] * one
    U = matmul(A, odd, xp)
    return 2 * xp.linalg.solve(V - U, U)
