"""The kernel of a diagonal plus low-rank system from its generating function, by Cauchy sums.

    G(z) = sum_{l<L} K_l z^l = C~ (1 - z A)^-1 B,   C~ = C (1 - z^L A^L),   A = diag(poles) - sum_r P_r Q_r^H

z^L is one number on the L points z = r w^k of a circle, w = exp(-2 pi i/L), so K is r^-l times the inverse DFT of G.
Woodbury's identity makes G of Cauchy sums g(c, b) = sum_n c_n b_n / (1 - z poles_n). On these points each is the DFT
of a Vandermonde product:

    g(c, b) = sum_l w^(kl) r^l sum_n c_n b_n poles_n^l / (1 - r^L poles_n^L)
    G = g(C~, B) - g(C~, P) (1/z + g(Q^H, P))^-1 g(Q^H, B)

A radius r < 1 keeps the points off poles on the unit circle, for r^-L of the precision. `krylov.py` computes the same
numbers, to the same digits, by doubling of the full matrix, which takes as many products of N x N matrices as A^L does
here: `kernel` takes this way when asked, algorithm="cauchy".

Source: Gu, Goel and Re, Efficiently modeling long sequences with structured state spaces, ICLR 2022, algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._arrays.idioms import matmul, moved
from .._arrays.library import Array, Namespace, device, is_complex, real_dtype, to_complex
from .._arrays.shapes import broadcast
from ..recurrences.pairs import halved
from ..systems import records
from ..systems.conversions import dense_form
from ..systems.records import DPLR, Diagonal
from .krylov import matrix_power
from .vandermonde import DiagonalPropagator

DECAY = 0.1  # r^L: one digit lost, and every pole of modulus up to 1 stays at a distance from the circle


def cauchy_kernel(system: DPLR, length: int, xp: Namespace) -> Array:
    """K_l = C A^l B of a discrete DPLR system with C: (...[, M][, P], length), real for a real system."""
    arrays = (system.poles, system.P, system.Q, system.B, system.C)
    real = system.conj_pairs or not any(is_complex(x) for x in arrays)
    rank = records.batch_rank(system)
    several_inputs = records.inputs(system, rank) is not None
    several_outputs = records.outputs(system, rank) is not None
    system = replace(
        system,
        B=system.B if several_inputs else system.B[..., None],
        C=system.C if several_outputs else system.C[..., None, :],  # type: ignore[index]
    )
    truncated = _truncated_C(system, length, xp)
    Q_H = xp.conj(system.Q) if is_complex(system.Q) else system.Q
    P = xp.matrix_transpose(system.P)
    M, inputs = truncated.shape[-2], system.B.shape[-1]
    rows, columns = _joined(truncated, Q_H, -2, xp), _joined(system.B, P, -1, xp)
    g = moved(_cauchy_sums(system, rows, columns, length, xp), -1, -3, xp)  # (..., W, M + R, inputs + R)
    one = xp.eye(P.shape[-1], dtype=g.dtype, device=device(g))
    left = g[..., M:, inputs:] + one / _points(g.shape[-3], length, g, xp)[:, None, None]
    G = g[..., :M, :inputs] - matmul(g[..., :M, inputs:], xp.linalg.solve(left, g[..., M:, :inputs]), xp)
    G = moved(G, -3, -1, xp)
    K = xp.fft.irfft(G, n=length) if system.conj_pairs else xp.fft.ifft(G, n=length)
    K = xp.real(K) if real and is_complex(K) else K
    K = K * DECAY ** (-_steps(length, K, xp) / length)
    K = K if several_inputs else K[..., 0, :]
    return K if several_outputs else K[..., 0, :, :] if several_inputs else K[..., 0, :]


def _truncated_C(system: DPLR, length: int, xp: Namespace) -> Array:
    """C (1 - r^L A^L), half of it with conj_pairs."""
    dense: Any = dense_form(system, xp)
    moved = matmul(dense.C, matrix_power(dense.A, length, xp), xp)
    if system.conj_pairs:  # from (2 Re C, -2 Im C)
        moved = xp.conj(halved(moved, xp)) / 2
    return system.C - DECAY * moved


def _cauchy_sums(system: DPLR, rows: Array, columns: Array, length: int, xp: Namespace) -> Array:
    """g(c, b) on the points, for rows c (..., I, N) and columns b (..., N, J): (..., I, J, W)."""
    poles = system.poles
    around = DiagonalPropagator(Diagonal(poles, poles, discrete=True), None, xp).powers(length)
    rows = rows / (1 - DECAY * around)[..., None, :]
    diagonal = Diagonal(poles, columns, rows, conj_pairs=system.conj_pairs, discrete=True)
    v = DiagonalPropagator(diagonal, None, xp).kernel(length)
    v = v * DECAY ** (_steps(length, v, xp) / length)
    return xp.fft.rfft(v, n=length) if system.conj_pairs else xp.fft.fft(to_complex(v, xp), n=length)


def _steps(length: int, like: Array, xp: Namespace) -> Array:
    return xp.arange(length, dtype=real_dtype(like.dtype, xp), device=device(like))


def _points(count: int, length: int, like: Array, xp: Namespace) -> Array:
    """z = r exp(-2 pi i k/L), k = 0..count-1."""
    angle = _steps(count, like, xp) * (-6.283185307179586 / length)
    return DECAY ** (1 / length) * xp.exp(1j * angle)


def _joined(x: Array, y: Array, axis: int, xp: Namespace) -> Array:
    """Both along an axis, as complex and with common batch axes."""
    x, y = to_complex(x, xp), to_complex(y, xp)
    batch = broadcast("cauchy_kernel", x=x.shape[:-2], y=y.shape[:-2])
    return xp.concat([xp.broadcast_to(z, (*batch, *z.shape[-2:])) for z in (x, y)], axis=axis)
