"""The companion form: the state space of a rational system."""

from __future__ import annotations

from .._arrays.idioms import padded
from .._arrays.library import Array, Namespace, device, namespace
from .records import Dense, Rational


def companion(system: Rational) -> Dense:
    """The discrete state space of a rational system whose states are the last values of w = u/a.

    w_k = u_k - sum_{j>=1} a_j w_{k-j},   y_k = sum_i b_i w_{k-i} + D u_k,   x_k = (w_k, w_{k-1}, ..., w_{k-N+1})

    So A = [-a_1 ... -a_N; I 0], B = (1, 0, ...) and C = (b_0, b_1, ...) with N = max(n, m - 1) states, and
    C A^l B is the impulse response.
    """
    xp = namespace("companion", numerator=system.numerator, denominator=system.denominator)
    b, a = coefficients(system, xp)
    N = max(b.shape[-1], a.shape[-1] - 1)
    B = xp.zeros((*a.shape[:-1], N), dtype=a.dtype, device=device(a))
    B = xp.concat([xp.ones_like(B[..., :1]), B[..., 1:]], axis=-1)
    return Dense(companion_matrix(a, N, xp), B, padded(b, N, xp), system.D, discrete=True)


def coefficients(system: Rational, xp: Namespace) -> tuple[Array, Array]:
    """Numerator and denominator of equally many axes, with a_0 = 1."""
    numerator, denominator = system.numerator, system.denominator
    rank = max(numerator.ndim, denominator.ndim)
    b, a = (xp.reshape(x, ((1,) * (rank - x.ndim) + tuple(x.shape))) for x in (numerator, denominator))
    return b / a[..., :1], a / a[..., :1]


def companion_matrix(a: Array, N: int, xp: Namespace) -> Array:
    """[-a_1 ... -a_N; I 0] for a_0 = 1: (..., N, N)."""
    shift = xp.eye(N - 1, N, dtype=a.dtype, device=device(a))
    shift = xp.broadcast_to(shift, (*a.shape[:-1], N - 1, N))
    return xp.concat([-padded(a[..., 1:], N, xp)[..., None, :], shift], axis=-2)
