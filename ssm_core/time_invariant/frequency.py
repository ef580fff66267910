"""Frequency response and poles of a system."""

from __future__ import annotations

from typing import Any

from .._arrays.errors import ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    device,
    is_array,
    matmul,
    moved,
    namespace,
    real_floating,
    require_arrays,
    to_complex,
)
from .._arrays.shapes import broadcast
from .._arrays.values import check_finite
from ..functions.eigenvalues import eigvals
from ..systems import records
from ..systems.conversions import dense_form
from ..systems.discretization import check_system_values
from ..systems.records import DPLR, Dense, Diagonal, Rational, check_output
from .rational import rational_poles, rational_response


def frequency_response(system: Any, omega: Array) -> Array:
    """The transfer function of a system on the imaginary axis (continuous) or the unit circle (discrete).

    continuous: C (i w - A)^-1 B + D;   discrete: C (I - A e^-iw)^-1 B + D

    system   Dense, Diagonal (conjugates of pairs count too), DPLR, Rational or a discrete tuple (A, B, C[, D])
    omega    (W,) angular frequencies: radians per unit of time, discrete radians per step
    returns  complex (..., W), with several outputs and inputs (...[, M][, P], W)

    The discrete form is the Fourier transform of the kernel: sum_l K_l e^-iwl.
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
    if system.D is None:
        return H
    return H + (system.D[..., None] if is_array(system.D) and system.D.ndim else system.D)


def _diagonal_response(system: Diagonal | DPLR, B: Array, C: Array, z: Array, xp: Namespace) -> Array:
    residues = C[..., :, None, :] * xp.matrix_transpose(B)[..., None, :, :]  # (..., M, P, N)
    p = system.poles[..., None, None, :]
    H = _partial_fractions(residues, p, z, system.discrete, xp)
    return H + _partial_fractions(xp.conj(residues), xp.conj(p), z, system.discrete, xp) if system.conj_pairs else H


def _partial_fractions(residues: Array, p: Array, z: Array, discrete: bool, xp: Namespace) -> Array:
    """sum_n r_n / (1 - p_n z), or / (z - p_n), one pole after another: no (N, W) tensor."""
    total = xp.zeros((*residues.shape[:-1], z.shape[0]), dtype=z.dtype, device=device(z))
    for n in range(p.shape[-1]):
        r, pole = residues[..., n, None], p[..., n, None]
        total = total + (r / (1 - pole * z) if discrete else r / (z - pole))
    return total


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
    return moved(G[..., :M, :P] - xp.matmul(G[..., :M, P:], xp.linalg.solve(left, G[..., M:, :P])), -3, -1, xp)


def _as_wide(x: Array, other: Array, xp: Namespace) -> Array:
    """x (..., rows, N) as complex, with the batch axes of x and other."""
    batch = broadcast("frequency_response", x=x.shape[:-2], other=other.shape[:-2])
    return xp.broadcast_to(to_complex(x, xp), (*batch, *x.shape[-2:]))


def _dense_response(system: Dense, B: Array, C: Array, z: Array, xp: Namespace) -> Array:
    A = to_complex(system.A, xp)[..., None, :, :]
    one = xp.eye(A.shape[-1], dtype=A.dtype, device=device(A))
    z = z[:, None, None]
    left = one - A * z if system.discrete else one * z - A
    x = xp.linalg.solve(left, xp.broadcast_to(to_complex(B, xp)[..., None, :, :], (*left.shape[:-1], B.shape[-1])))
    return moved(matmul(C[..., None, :, :], x, xp), -3, -1, xp)


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
