"""The functions of time ago that HiPPO's measures approximate the past with.

The state of a measure holds c_n = integral of k_n(s) u(t - s) over s >= 0, with k(s) = exp(sA) B of `hippo`. The
functions g_n below are dual to them, so that sum_n c_n g_n(s) approximates u(t - s):

    integral of k_n(s) g_m(s) = 1 for n = m, else 0

| measure       | k_n(s)                                  | g_n(s)                                          | window |
|---------------|-----------------------------------------|-------------------------------------------------|--------|
| legs          | sqrt(2n+1) P_n(1 - 2s)                  | sqrt(2n+1) P_n(1 - 2s)                          | 1      |
| legt          | sqrt(2n+1)/2 P_n(1 - s)                 | sqrt(2n+1) P_n(1 - s)                           | 2      |
| lmu           | (2n+1) P_n(2s - 1)                      | P_n(2s - 1)                                     | 1      |
| lagt          | e^(-s/2) L_n(s)                         | e^(-s/2) L_n(s)                                 |        |
| tlagt         | beta e^(-(1 + beta) s/2) L_n(s)         | e^(-(1 - beta) s/2) L_n(s) / beta               |        |
| glagt         | c_n e^(-(1 + beta) s/2) L_n^(alpha)(s)  | s^alpha e^(-(1 - beta) s/2) L_n^(alpha)(s) / d_n |        |
| fout          | f(s/2)/2                                | f(s/2)                                          | 2      |
| fourier_decay | f(s/2)/3, then a third of that, ...     | f(s/2)                                          | period 2 |
| fourier2      | f(s)                                    | f(s)                                            | 1      |

For legs, whose window is all the past, s is a fraction of it and k the weight after the change of variables.
P_n, L_n, L_n^(alpha) and f as in `hippo_matrices`; c_n = B_n / L_n^(alpha)(0) and d_n = Gamma(1 + alpha) B_n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays.errors import OptionError, SSMError, unknown
from .._arrays.idioms import moved
from .._arrays.library import Array, Namespace, convert, device
from ..recurrences.fold import fold
from .matrices import MEASURES, Pair, hippo, state_size

# The window of a measure in the time of its matrices: the period of fourier_decay, the unit of time of Laguerre's.
WINDOWS = {
    "legs": 1.0,
    "legt": 2.0,
    "lmu": 1.0,
    "lagt": 1.0,
    "tlagt": 1.0,
    "glagt": 1.0,
    "fout": 2.0,
    "fourier_decay": 2.0,
    "fourier2": 1.0,
}
LAGUERRE = ("lagt", "tlagt", "glagt")
ENDLESS = (*LAGUERRE, "fourier_decay")
FOURIER = ("fout", "fourier_decay", "fourier2")


def check_measure(operation: str, measure: Any, N: Any) -> int:
    """N as a number of states of a measure that has dual functions; raises otherwise."""
    if isinstance(measure, str) and measure in MEASURES and measure not in WINDOWS:
        raise OptionError(
            f"{operation}: the functions of {measure!r} are not orthogonal, so its states are no coefficients. "
            f"Run it as a system: scan((*hippo({measure!r}, N), numpy.eye(N)), u, dt=dt)."
        )
    if not isinstance(measure, str) or measure not in WINDOWS:
        raise unknown(operation, "measure", measure, WINDOWS)
    return state_size(operation, N, even=measure in FOURIER, owner=f"measure {measure!r}")


def checked_matrices(operation: str, measure: str, N: int, alpha: Any, beta: Any, needed: bool) -> Pair | None:
    """A and B of `hippo` where they are needed, and always its errors about options, which name the operation."""
    if not needed and alpha is None and beta is None:
        return None
    try:
        return hippo(measure, N, alpha=alpha, beta=beta)
    except SSMError as error:
        raise type(error)(str(error).replace("hippo:", f"{operation}:", 1)) from None


def dual_functions(measure: str, N: int, s: Array, matrices: Pair | None, alpha: float, xp: Namespace) -> Array:
    """g_n(s), n = 0..N-1, in the dtype of s: (..., K) to (..., K, N). Laguerre's take the matrices of `hippo`."""
    if measure in FOURIER:
        return _fourier(s / WINDOWS[measure], N, xp)
    if matrices is None:
        x = {"legs": 1 - 2 * s, "legt": 1 - s, "lmu": 2 * s - 1}[measure]
        values = moved(legendre(x, N, xp), 0, -1, xp)
        return values if measure == "lmu" else values * xp.sqrt(2 * _counted(N, s, xp) + 1)
    A, B = matrices
    weight = xp.exp(-float(1 + A[0, 0]) * s)
    weight = weight * s**alpha if alpha else weight
    values = moved(_laguerre(s, N, alpha, weight, xp), 0, -1, xp)
    return values * convert(1 / (math.gamma(1 + alpha) * B), xp, s.dtype, device(s))


def legendre(x: Array, N: int, xp: Namespace) -> Array:
    """P_n(x), n = 0..N-1: (N, *shape of x)."""
    return _three_terms(lambda n, before, p: ((2 * n + 1) * x * p - n * before) / (n + 1), xp.ones_like(x), N, xp)


def _laguerre(s: Array, N: int, alpha: float, weight: Array, xp: Namespace) -> Array:
    """weight L_n^(alpha)(s): the polynomials alone would overflow."""
    return _three_terms(
        lambda n, before, p: ((2 * n + 1 + alpha - s) * p - (n + alpha) * before) / (n + 1), weight, N, xp
    )


def _three_terms(following: Callable[..., Array], first: Array, N: int, xp: Namespace) -> Array:
    """p_0 = first and p_{n+1} = following(n, p_{n-1}, p_n): (N, *shape of first)."""

    def body(state: tuple[Array, Array], n: Array) -> tuple[tuple[Array, Array], Array]:
        before, p = state
        return (p, following(n, before, p)), p[None, ...]

    values, _ = fold(body, (xp.zeros_like(first), first), (_counted(N, first, xp),), chunk=1, recompute=False)
    return values


def _counted(N: int, like: Array, xp: Namespace) -> Array:
    """0, 1, ..., N-1."""
    return xp.arange(N, dtype=like.dtype, device=device(like))


def _fourier(s: Array, N: int, xp: Namespace) -> Array:
    """1, 0, and sqrt(2) cos(2 pi m s), sqrt(2) sin(2 pi m s), m = 1, 2, ...: (..., N)."""
    m = np.arange(N // 2)
    size = convert(np.where(m == 0, 1.0, math.sqrt(2)), xp, s.dtype, device(s))
    angles = s[..., None] * convert(2 * math.pi * m, xp, s.dtype, device(s))
    waves = xp.stack([size * xp.cos(angles), size * xp.sin(angles)], axis=-1)
    return xp.reshape(waves, (*s.shape, N))
