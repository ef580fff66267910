"""The matrix exponential, by scaling and squaring."""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from .._arrays.dispatch import dispatched, is_traced
from .._arrays.errors import ShapeError
from .._arrays.library import Array, Namespace, computable, device, floating, is_half, namespace
from .._arrays.values import check_finite

# The Pade approximant [13/13] of exp is exact to 2^-53 for matrices of 1-norm up to this.
_RADIUS = 5.371920351148152

# Coefficients b_0 = 1, ..., b_13 of its numerator; those of its denominator are (-1)^k b_k.
_B = [math.comb(13, k) / math.perm(26, k) for k in range(14)]

# Under a trace no value is known; this many squarings serve 1-norms up to 2^20 _RADIUS.
_MOST_SQUARINGS = 20


def expm(A: Array) -> Array:
    """The exponential of square matrices, each with its own scaling.

    exp(A) = sum_k A^k / k! = exp(A / 2^s)^(2^s),    s the least integer with ||A||_1 <= 2^s * 5.37

    A        (..., N, N)  real or complex floating
    returns  (..., N, N)  dtype of A

    exp(A / 2^s) is the Pade approximant [13/13]. Half precision is computed in float32. NaN or inf in a
    matrix of a device gives NaN in its exponential, and so does a 1-norm above 5e6 under a trace (jit).

    Raises ShapeError when the matrices are not square, DTypeError for integers and for what is no array,
    DomainError for host values that are NaN or inf.
    Source: Higham, The scaling and squaring method for the matrix exponential revisited, 2005.

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
    return _expm(A)


@dispatched
def _expm(A: Array) -> Array:
    xp = array_namespace(A)
    if 0 in A.shape:
        return xp.exp(A)
    s = _squarings(A, xp)
    most = _most(s, xp)
    E = _pade(A * 2.0**-s, xp)
    for k in range(most):
        active = s > k
        root = xp.where(active, E, 0.0)
        E = xp.where(active, xp.matmul(root, root), E)
    return xp.where(s > most, xp.nan, E)


def _squarings(A: Array, xp: Namespace) -> Array:
    """The s of every matrix (..., 1, 1), as floating numbers; 0 where the norm is not finite."""
    norm = xp.max(xp.sum(xp.abs(A), axis=-2, keepdims=True), axis=-1, keepdims=True)
    large = (norm > _RADIUS) & xp.isfinite(norm)
    return xp.ceil(xp.log2(xp.where(large, norm / _RADIUS, 1.0)))


def _most(s: Array, xp: Namespace) -> int:
    """The squarings to provide for: the largest s, or a bound where no value is known."""
    return _MOST_SQUARINGS if is_traced(s) else int(xp.max(s))


def _pade(A: Array, xp: Namespace) -> Array:
    """(V - U)^-1 (V + U) with U the odd and V the even part of sum_k b_k A^k."""
    b = _B
    one = xp.eye(A.shape[-1], dtype=A.dtype, device=device(A))
    A2 = xp.matmul(A, A)
    A4 = xp.matmul(A2, A2)
    A6 = xp.matmul(A2, A4)
    odd = xp.matmul(A6, b[13] * A6 + b[11] * A4 + b[9] * A2) + b[7] * A6 + b[5] * A4 + b[3] * A2 + b[1] * one
    V = xp.matmul(A6, b[12] * A6 + b[10] * A4 + b[8] * A2) + b[6] * A6 + b[4] * A4 + b[2] * A2 + b[0] * one
    U = xp.matmul(A, odd)
    return xp.linalg.solve(V - U, V + U)
