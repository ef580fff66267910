"""From one kind of system to another with the same outputs: to a full matrix, and to a diagonal one.

A system of conjugate pairs is a real one: in the coordinates (Re x, Im x) of the stored half it has a real matrix.
With M = diag(poles) - sum_r P_r Q_r^H, what the half gives itself, and F = -sum_r P_r Q_r^T, what its conjugate gives:

    A = [[Re(M + F), -Im(M - F)], [Im(M + F), Re(M - F)]],   B = (Re B, Im B),   C = (2 Re C, -2 Im C)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.errors import DomainError, OptionError, ShapeError
from .._arrays.idioms import conjugated, matmul
from .._arrays.library import (
    Array,
    Namespace,
    complex_dtype,
    convert,
    device,
    floating,
    namespace,
    real_dtype,
    to_complex,
    to_numpy,
)
from .._arrays.numbers import is_number, plain
from .._arrays.values import check_finite
from ..recurrences.pairs import joined, real_rows
from . import records
from .companion import companion
from .records import DPLR, Dense, Diagonal, Rational

LARGEST_CONDITION = 1e8


def to_dense(system: Any) -> Dense:
    """The same system with a full state matrix, real for conjugate pairs: the states are then (Re x, Im x).

    A = diag(poles) - sum_r P_r Q_r^H, in the coordinates that the head of this module gives for conjugate pairs

    system   Diagonal or DPLR, continuous or discrete, or Rational, whose states are the last values of u/a (see
             `companion`); a Dense one is checked, and returned as it is
    returns  Dense with the same outputs: A (..., N, N), twice the stored poles with conj_pairs

    Raises ShapeError, DTypeError, OptionError, MixedArraysError.

    >>> import numpy, ssm_core
    >>> system = ssm_core.Diagonal(numpy.asarray([-1 + 2j]), numpy.ones(1), numpy.ones(1), conj_pairs=True)
    >>> ssm_core.to_dense(system).A
    array([[-1., -2.],
           [ 2., -1.]])
    """
    return _as_dense("to_dense", system)


def _as_dense(operation: str, system: Any) -> Dense:
    """`to_dense` in the name of the operation that it is part of."""
    given = records.as_system(operation, system, None)
    system, xp = records.validated(operation, given)
    check_finite(operation, xp, **records.present_arrays(system))
    if isinstance(given, Dense):
        return given
    return companion(system) if isinstance(system, Rational) else dense_form(system, xp)


def dense_form(system: Any, xp: Namespace) -> Dense:
    """`to_dense` of a validated Diagonal or DPLR system."""
    poles = system.poles
    n, rank = poles.shape[-1], records.batch_rank(system)
    one = xp.eye(n, dtype=poles.dtype, device=device(poles))
    own, crossed = poles[..., :, None] * one, None
    if isinstance(system, DPLR):
        P = xp.matrix_transpose(system.P)
        own = own - matmul(P, conjugated(system.Q, xp), xp)
        crossed = -matmul(P, system.Q, xp) if system.conj_pairs else None
    if not system.conj_pairs:
        return Dense(own, system.B, system.C, system.D, discrete=system.discrete)
    own = to_complex(own, xp)
    crossed = xp.zeros_like(own) if crossed is None else to_complex(crossed, xp)
    plus, minus = own + crossed, own - crossed
    A = xp.concat(
        [
            xp.concat([xp.real(plus), -xp.imag(minus)], axis=-1),
            xp.concat([xp.imag(plus), xp.real(minus)], axis=-1),
        ],
        axis=-2,
    )
    B = joined(system.B, xp, axis=rank)
    C = None if system.C is None else real_rows(system.C, xp)
    return Dense(A, B, C, system.D, discrete=system.discrete)


def to_diagonal(system: Any, *, max_condition: float = LARGEST_CONDITION) -> tuple[Diagonal, Array]:
    """The same system in the basis of its eigenvectors, computed on the host in double precision.

    A = V diag(poles) V^-1,   B' = V^-1 B,   C' = C V

    system         Dense or DPLR, continuous or discrete; a Diagonal one without conj_pairs, its poles and V = I
    max_condition  the largest condition number of V to accept: relative errors grow by it
    returns        Diagonal without conj_pairs, poles (..., N) complex; and V (..., N, N). Detached from gradients.

    HiPPO matrices have eigenvectors of a condition number that grows exponentially with N: diagonalizing them loses
    all digits, which is why S4 keeps a low-rank part (`nplr`). `eigenvector_condition` tells the number.
    Raises DomainError where V is too ill-conditioned or the system holds NaN or inf, and as `to_dense` does.

    >>> import numpy, ssm_core
    >>> A = numpy.asarray([[-1.0, 1.0], [0.0, -2.0]])
    >>> ssm_core.to_diagonal((A, numpy.ones(2), numpy.ones(2)))[0].poles
    array([-1.+0.j, -2.+0.j])
    """
    if not is_number(plain(max_condition)):
        raise OptionError(f"to_diagonal: max_condition = {max_condition!r} must be a number.")
    dense: Any = _as_dense("to_diagonal", system)
    dense, xp = records.validated("to_diagonal", dense)
    check_finite("to_diagonal", xp, True, **records.present_arrays(dense))
    A = to_numpy(dense.A)
    poles, V = np.linalg.eig(A.astype(complex))
    condition = float(np.max(np.linalg.cond(V), initial=0.0)) if V.size else 1.0
    if not condition <= max_condition:
        raise DomainError(
            f"to_diagonal: the eigenvectors of A (shape {tuple(A.shape)}) have condition number {condition:.1e} > "
            f"max_condition = {max_condition:.1e}, so as many digits are lost. Keep the system dense, or use nplr "
            "for a HiPPO measure."
        )
    rank = records.batch_rank(dense)
    several = records.inputs(dense, rank) is not None
    B = to_numpy(dense.B) if several else to_numpy(dense.B)[..., None]
    B = np.linalg.solve(V, np.broadcast_to(B, (*V.shape[:-2], *B.shape[-2:])).astype(complex))
    made = {"dtype": complex_dtype(real_dtype(dense.A.dtype, xp), xp), "device": device(dense.A)}
    V = convert(V, xp, **made)
    B = convert(B if several else B[..., 0], xp, **made)
    C = dense.C
    if C is not None:
        C = matmul(C if records.outputs(dense, rank) is not None else C[..., None, :], V, xp)
        C = C if records.outputs(dense, rank) is not None else C[..., 0, :]
    return Diagonal(convert(poles, xp, **made), B, C, dense.D, discrete=dense.discrete), V


def eigenvector_condition(A: Array) -> float:
    """The condition number of the eigenvectors of a matrix: the factor by which diagonalizing it magnifies errors.

    cond(V) = |V| |V^-1| with A = V diag(poles) V^-1, V of unit columns; 1 for a normal matrix

    A        (N, N) real or complex floating
    returns  a Python float, computed on the host in double precision; inf for a matrix that cannot be diagonalized

    Raises DTypeError for what is no array, ShapeError for what is no square matrix, DomainError for NaN or inf.
    Source: Gu, Goel and Re, Efficiently modeling long sequences with structured state spaces, 2022, lemma 3.2.

    >>> import ssm_core
    >>> ssm_core.eigenvector_condition(ssm_core.hippo("legsd", 8)[0]) < 1.001
    True
    >>> ssm_core.eigenvector_condition(ssm_core.hippo("legs", 32)[0]) > 1e12
    True
    """
    xp = namespace("eigenvector_condition", A=A)
    floating("eigenvector_condition", A=A)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ShapeError(f"eigenvector_condition: A must be one square matrix (A: {tuple(A.shape)}).")
    check_finite("eigenvector_condition", xp, True, A=A)
    return float(np.linalg.cond(np.linalg.eig(to_numpy(A).astype(complex))[1]))
