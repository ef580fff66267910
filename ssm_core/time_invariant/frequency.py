"""Frequency response and poles of a system."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays.errors import ShapeError, describe
from .._arrays.idioms import matmul, moved
from .._arrays.library import (
    Array,
    Namespace,
    device,
    is_array,
    namespace,
    readable,
    real_floating,
    require_arrays,
    to_complex,
    to_numpy,
)
from .._arrays.shapes import broadcast
from .._arrays.values import check_finite
from ..functions.eigenvalues import eigvals
from ..systems import records
from ..systems.conversions import dense_form
from ..systems.discretization import check_system_values
from ..systems.records import DPLR, Dense, Diagonal, Rational, check_output, check_ports
from .rational import rational_poles, rational_response

NEAR = 1e-3  # to a pole, relative to the largest: Woodbury's identity loses three digits


def frequency_response(system: Any, omega: Array) -> Array:
    """The transfer function of a system on the imaginary axis (continuous) or the unit circle (discrete).

    continuous: C (i w - A)^-1 B + D;   discrete: C (I - A e^-iw)^-1 B + D

    system   Dense, Diagonal (conjugates of pairs count too), DPLR, Rational or a discrete tuple (A, B, C[, D])
    omega    (W,) angular frequencies: radians per unit of time, discrete radians per step
    returns  complex (..., W), with several outputs and inputs (...[, M][, P], W)

    The discrete form is the Fourier transform of the kernel: sum_l K_l e^-iwl.
    At a pole it is inf.
    Raises ShapeError, DTypeError, OptionError, MixedArraysError.

    >>> import numpy, ssm_core
    >>> system = ssm_core.Diagonal(numpy.asarray([-1.0]), numpy.ones(1), numpy.ones(1))
    >>> ssm_core.frequency_response(system, numpy.asarray([0.0, 1.0]))
    array([1. +0.j , 0.5-0.5j])
    """
    system = records.as_system("frequency_response", system, None)
    system, xp = records.validated("frequency_response", system)
    require_arrays("frequency_response", omega=omega)
    namespace("frequency_response", system=records.state_field(system), omega=omega)
    real_floating("frequency_response", omega=omega)
    if omega.ndim != 1:
        raise ShapeError(f"frequency_response: omega must have one axis ({describe(omega=omega)}).")
    check_system_values("frequency_response", xp, system, None, False)
    check_finite("frequency_response", xp, omega=omega)
    z = to_complex(omega, xp)
    z = xp.exp(-1j * z) if system.discrete else 1j * z
    if isinstance(system, Rational):
        return rational_response(system, z, xp)
    check_output("frequency_response", system)
    rank = records.batch_rank(system)
    P, M = records.inputs(system, rank), records.outputs(system, rank)
    B = system.B if P is not None else system.B[..., None]
    C = system.C if M is not None else system.C[..., None, :]
    H = _RESPONSES[type(system)](system, B, C, z, xp)  # (..., M, P, W)
    H = H if P is not None else H[..., 0, :]
    H = H if M is not None else (H[..., 0, :, :] if P is not None else H[..., 0, :])
    return H if system.D is None else H + _direct(system, P, M, xp)


def _direct(system: Any, P: int | None, M: int | None, xp: Namespace) -> Any:
    """D as (...[, M][, P], 1); a number stands for that many times the identity."""
    D = system.D
    if is_array(D) and D.ndim:
        return D[..., None]
    if P is None and M is None:
        return D
    check_ports("frequency_response", D, P, M)
    one = xp.eye(M or 1, P or 1, dtype=system.B.dtype, device=device(system.B))
    one = one if P is not None else one[:, 0]
    return D * (one if M is not None else one[0, ...])[..., None]


def _diagonal_response(system: Diagonal | DPLR, B: Array, C: Array, z: Array, xp: Namespace) -> Array:
    residues = C[..., :, None, :] * xp.matrix_transpose(B)[..., None, :, :]  # (..., M, P, N)
    p = system.poles[..., None, None, :]
    H, at_pole = _partial_fractions(residues, p, z, system.discrete, xp)
    if system.conj_pairs:
        more, at_other = _partial_fractions(xp.conj(residues), xp.conj(p), z, system.discrete, xp)
        H, at_pole = H + more, at_pole | at_other
    return _at_poles(H, at_pole, xp)


def _partial_fractions(residues: Array, p: Array, z: Array, discrete: bool, xp: Namespace) -> tuple[Array, Array]:
    """sum_n r_n / (1 - p_n z), or / (z - p_n), one pole after another: no (N, W) tensor; and where a pole is met.

    Such a term is left out: libraries differ in sums with complex infinity. Without a residue there is no pole.
    """
    total = xp.zeros((*residues.shape[:-1], z.shape[0]), dtype=z.dtype, device=device(z))
    at_pole = xp.zeros(total.shape, dtype=xp.bool, device=device(z))
    for n in range(p.shape[-1]):
        r, pole = residues[..., n, None], p[..., n, None]
        distance = 1 - pole * z if discrete else z - pole
        met = distance == 0
        total = total + xp.where(met, 0 * z, r / xp.where(met, xp.ones_like(distance), distance))
        at_pole = at_pole | (met & (r != 0))
    return total, at_pole


def _dplr_response(system: DPLR, B: Array, C: Array, z: Array, xp: Namespace) -> Array:
    """Woodbury: with G(C, B) the response of the diagonal part, s = z^-1 in discrete time and 1 in continuous,

    H = G(C, B) - G(C, P) (s + G(Q^H, P))^-1 G(Q^H, B)
    """
    rows = xp.concat([_as_wide(C, system.Q, xp), _as_wide(xp.conj(to_complex(system.Q, xp)), C, xp)], axis=-2)
    columns = xp.concat([_as_wide(xp.matrix_transpose(B), system.P, xp), _as_wide(system.P, B, xp)], axis=-2)
    G = _diagonal_response(system, xp.matrix_transpose(columns), rows, z, xp)  # (..., M + R, P + R, W)
    M, P, R = C.shape[-2], B.shape[-1], system.P.shape[-2]
    G = moved(G, -1, -3, xp)
    one = xp.eye(R, dtype=G.dtype, device=device(G))
    left = G[..., M:, P:] + (one / z[:, None, None] if system.discrete else one)
    x, singular = _solved(left, G[..., M:, :P], xp)
    H = moved(_at_poles(G[..., :M, :P] - matmul(G[..., :M, P:], x, xp), singular, xp), -3, -1, xp)
    return _with_dense(system, H, B, C, z, xp) if readable(z) and readable(system.poles) else H


def _with_dense(system: DPLR, H: Array, B: Array, C: Array, z: Array, xp: Namespace) -> Array:
    """H, by the full matrix at frequencies near poles of the diagonal part, where Woodbury's identity is inf - inf."""
    p, at = to_numpy(system.poles), to_numpy(z)
    p = np.concatenate([p, p.conj()], axis=-1) if system.conj_pairs else p
    p = p.reshape(-1, 1)
    distance = np.abs(1 - p * at) if system.discrete else np.abs(at - p) / np.max(np.abs(p), initial=1e-30)
    near = np.nonzero(np.min(distance, axis=0, initial=1.0) < NEAR)[0]
    if not near.size:
        return H
    order = np.arange(at.size)
    order[near] = at.size + np.arange(near.size)
    near, order = (xp.asarray(k, device=device(z)) for k in (near, order))
    dense = dense_form(replace(system, B=B, C=C, D=None), xp)
    exact = _dense_response(dense, dense.B, dense.C, xp.take(z, near, axis=0), xp)
    shape = (*broadcast("frequency_response", a=H.shape[:-1], b=exact.shape[:-1]),)
    both = [xp.broadcast_to(x, (*shape, x.shape[-1])) for x in (H, exact)]
    return xp.take(xp.concat(both, axis=-1), order, axis=-1)


def _solved(left: Array, right: Array, xp: Namespace) -> tuple[Array, Array]:
    """left^-1 right, and where left is singular (..., 1, 1); there the result is anything."""
    if left.shape[-1] == 0:
        return right, xp.zeros((*left.shape[:-2], 1, 1), dtype=xp.bool, device=device(left))
    singular = (xp.linalg.slogdet(left)[0] == 0)[..., None, None]
    one = xp.eye(left.shape[-1], dtype=left.dtype, device=device(left))
    return xp.linalg.solve(xp.where(singular, one, left), right), singular


def _at_poles(H: Array, singular: Array, xp: Namespace) -> Array:
    """H with inf where it has a pole."""
    return xp.where(singular, xp.full_like(H, xp.inf), H)


def _as_wide(x: Array, other: Array, xp: Namespace) -> Array:
    """x (..., rows, N) as complex, with the batch axes of x and other."""
    batch = broadcast("frequency_response", x=x.shape[:-2], other=other.shape[:-2])
    return xp.broadcast_to(to_complex(x, xp), (*batch, *x.shape[-2:]))


def _dense_response(system: Dense, B: Array, C: Array, z: Array, xp: Namespace) -> Array:
    A = to_complex(system.A, xp)[..., None, :, :]
    one = xp.eye(A.shape[-1], dtype=A.dtype, device=device(A))
    z = z[:, None, None]
    left = one - A * z if system.discrete else one * z - A
    batch = broadcast("frequency_response", A=left.shape[:-3], B=B.shape[:-2])
    B = xp.broadcast_to(to_complex(B, xp)[..., None, :, :], (*batch, *left.shape[-3:-1], B.shape[-1]))
    x, singular = _solved(xp.broadcast_to(left, (*batch, *left.shape[-3:])), B, xp)
    return moved(_at_poles(matmul(C[..., None, :, :], x, xp), singular, xp), -3, -1, xp)


_RESPONSES: dict[type, Any] = {Diagonal: _diagonal_response, Dense: _dense_response, DPLR: _dplr_response}


def poles(system: Any) -> Array:
    """The poles of a system: the eigenvalues of its state matrix.

    Diagonal: its poles, with conj_pairs followed by their conjugates. Dense, DPLR: eigenvalues of A, in no given order.
    Returns complex (..., N), twice as many with conj_pairs.

    >>> import numpy, ssm_core
    >>> ssm_core.poles(ssm_core.Diagonal(numpy.asarray([-1 + 2j]), numpy.ones(1), conj_pairs=True))
    array([-1.+2.j, -1.-2.j])
    """
    system = records.as_system("poles", system, None)
    if isinstance(system, Dense | DPLR):
        system, xp = records.validated("poles", system)
        check_system_values("poles", xp, system, None, False)
        return eigvals(system.A if isinstance(system, Dense) else dense_form(system, xp).A)
    if isinstance(system, Rational):
        system, xp = records.validated("poles", system)
        check_system_values("poles", xp, system, None, False)
        return rational_poles(system, xp)
    system, xp = records.validated("poles", system)
    check_system_values("poles", xp, system, None, False)
    p = to_complex(system.poles, xp)
    return xp.concat([p, xp.conj(p)], axis=-1) if system.conj_pairs else p
