"""HiPPO: matrices whose state holds the coefficients of the past input in an orthogonal basis.

x'(t) = A x(t) + B u(t), so that exp(tA) B weighs the input of time t ago:

| measure       | exp(tA) B                                                           | options     |
|---------------|---------------------------------------------------------------------|-------------|
| legs          | sqrt(2n+1) e^-t P_n(2 e^-t - 1)                                     |             |
| legsd         | the normal part of legs: A + p p^T, p_n = sqrt(n + 1/2)             |             |
| legt          | sqrt(2n+1)/2 P_n(1 - t) for t < 2, then 0 *                         |             |
| lmu           | (2n+1) P_n(2t - 1) for t < 1, then 0 *                              |             |
| lagt          | e^(-t/2) L_n(t)                                                     |             |
| tlagt         | beta e^(-(1 + beta) t/2) L_n(t)                                     | beta        |
| glagt         | c_n e^(-(1 + beta) t/2) L_n^(alpha)(t), c_n = B_n / L_n^(alpha)(0)  | alpha, beta |
| fout          | f(t/2)/2 for t < 2, then 0 *                                        |             |
| fourier_decay | f(t/2)/3 for t < 2, a third of that in the next period, and so on * |             |
| fourier2      | f(t) for t < 1, then 0 *                                            |             |
| foud          | e^(-t/2) f(t)                                                       |             |

*  in the limit of many states
P_n, L_n, L_n^(alpha): Legendre, Laguerre and generalized Laguerre polynomials
f(t): the Fourier basis of [0, 1]: 1, 0, and sqrt(2) cos(2 pi m t), sqrt(2) sin(2 pi m t) for m = 1, 2, ...

Sources: Voelker, Kajic and Eliasmith, Legendre memory units, 2019; Gu, Dao, Ermon, Rudra and Re, HiPPO, 2020;
Gu, Johnson, Timalsina, Rudra and Re, How to train your HiPPO, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, unknown
from .._arrays.library import Array, convert, resolve
from .._arrays.numbers import plain

Pair = tuple[np.ndarray, np.ndarray]


def hippo(
    measure: str,
    N: int,
    *,
    alpha: float | None = None,
    beta: float | None = None,
    xp: Any = None,
    dtype: Any = None,
    device: Any = None,
) -> tuple[Array, Array]:
    """The matrices of a HiPPO operator, computed in float64 on the host.

    x'(t) = A x(t) + B u(t); the formula of each measure stands at its function in this module.

    measure  "legs", "legsd", "legt", "lmu", "lagt", "tlagt", "glagt", "fout", "fourier_decay", "fourier2",
             "foud"
    N        number of states, even for the four Fourier measures
    alpha    order of the Laguerre polynomials, -1 < alpha < 1 (glagt: 0)
    beta     tilt of their weight, beta > 0 (tlagt: 1, glagt: 0.01)
    xp       namespace of the result or its name; numpy if None
    dtype    real or complex floating dtype of the result; float64 if None
    device   device of the result
    returns  A (N, N), B (N,)

    "legt" is that of S4, whose window has length 2; in the code of the HiPPO paper A and B are twice as
    large, and the window has length 1. A / w and B / w stretch any window by w.

    Raises OptionError (unknown measure, option of another measure), ShapeError (N), DomainError (alpha,
    beta) and DTypeError.
    Source: Gu, Dao, Ermon, Rudra and Re, HiPPO: recurrent memory with optimal polynomial projections, 2020.

    >>> import ssm_core
    >>> A, B = ssm_core.hippo("legs", 2)
    >>> A.round(3)
    array([[-1.   ,  0.   ],
           [-1.732, -2.   ]])
    >>> B.round(3)
    array([1.   , 1.732])
    """
    if not isinstance(measure, str) or measure not in _MEASURES:
        raise unknown("hippo", "measure", measure, MEASURES)
    chosen = _MEASURES[measure]
    N = state_size("hippo", N, even=chosen.even, owner=f"measure {measure!r}")
    options = _options(measure, chosen, alpha=alpha, beta=beta)
    A, B = chosen.matrices(np.arange(N), **options)
    xp = resolve(xp, "hippo")
    _check_dtype(xp, dtype)
    return convert(A, xp, dtype, device), convert(B, xp, dtype, device)


def state_size(operation: str, N: Any, *, even: bool, owner: str) -> int:
    """N as a positive int, even where conjugate pairs or pairs of sine and cosine need it."""
    N = plain(N)
    if isinstance(N, bool) or not isinstance(N, int):
        raise DTypeError(f"{operation}: N = {N!r} is a {type(N).__name__}, but must be an integer (int).")
    if N < 1:
        raise ShapeError(f"{operation}: N = {N} is no number of states. The least is N={2 if even else 1}.")
    if even and N % 2:
        raise ShapeError(f"{operation}: N = {N} is odd, but {owner} has its states in pairs. Use N={N + 1}.")
    return N


def _options(measure: str, chosen: _Measure, **given: float | None) -> dict[str, float]:
    options = dict(chosen.options)
    for name, value in given.items():
        if value is None:
            continue
        if name not in options:
            owners = " or ".join(repr(m) for m, other in _MEASURES.items() if name in other.options)
            raise OptionError(f"hippo: measure {measure!r} has no {name} ({name} = {value!r}); {owners} has.")
        options[name] = _in_domain(name, value)
    return options


def _in_domain(name: str, value: Any) -> float:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DTypeError(f"hippo: {name} = {value!r} is a {type(value).__name__}, but must be a number.")
    low, high = _DOMAIN[name]
    if not low < value < high:
        raise DomainError(f"hippo: {name} = {value!r} must lie strictly between {low} and {high}.")
    return float(value)


def _check_dtype(xp: Any, dtype: Any) -> None:
    if dtype is None:
        return
    try:
        fits = xp.isdtype(dtype, ("real floating", "complex floating"))
    except (TypeError, AttributeError, ValueError):
        fits = False
    if not fits:
        raise DTypeError(f"hippo: dtype = {dtype!r} is no floating dtype of {xp.__name__}. Use its float32.")


def _legs(n: np.ndarray) -> Pair:
    """A_nk = -sqrt((2n+1)(2k+1)) for n > k, -(n+1) for n = k, 0 for n < k; B_n = sqrt(2n+1)."""
    B = np.sqrt(2 * n + 1)
    return np.tril(-np.outer(B, B), -1) - np.diag(n + 1.0), B


def _legsd(n: np.ndarray) -> Pair:
    """A = A_legs + b b^T / 2, B = b / 2, b_n = sqrt(2n+1)."""
    A, b = _legs(n)
    return A + np.outer(b, b) / 2, b / 2


def _legt(n: np.ndarray) -> Pair:
    """A_nk = -sqrt((2n+1)(2k+1)) / 2 times 1 for n >= k, (-1)^(n-k) for n < k; B_n = sqrt(2n+1) / 2."""
    b = np.sqrt(2 * n + 1)
    sign = np.where(n[:, None] >= n, 1.0, _alternating(n[:, None] - n))
    return -np.outer(b, b) * sign / 2, b / 2


def _lmu(n: np.ndarray) -> Pair:
    """A_nk = (2n+1) times -1 for n < k, (-1)^(n-k+1) for n >= k; B_n = (2n+1) (-1)^n."""
    sign = np.where(n[:, None] < n, -1.0, -_alternating(n[:, None] - n))
    return (2.0 * n + 1)[:, None] * sign, (2 * n + 1) * _alternating(n)


def _lagt(n: np.ndarray) -> Pair:
    """A_nk = -1 for n > k, -1/2 for n = k, 0 for n < k; B_n = 1."""
    return np.eye(len(n)) / 2 - np.tri(len(n)), np.ones(len(n))


def _tlagt(n: np.ndarray, beta: float) -> Pair:
    """A_nk = -1 for n > k, -(1 + beta)/2 for n = k, 0 for n < k; B_n = beta."""
    return np.eye(len(n)) * (1 - beta) / 2 - np.tri(len(n)), np.full(len(n), beta)


def _glagt(n: np.ndarray, alpha: float, beta: float) -> Pair:
    """A_nk = -l_k/l_n for n > k, -(1 + beta)/2 for n = k, 0 for n < k;
    B_n = l_n beta^((1-alpha)/2) / sqrt(Gamma(1 + alpha) Gamma(1 - alpha));    l_n^2 = binom(n + alpha, n)."""
    ratio = np.where(n > 0, (n + alpha) / np.maximum(n, 1), 1.0)
    norm = np.sqrt(np.cumprod(ratio))
    A = np.tril(-norm / norm[:, None], -1) - np.eye(len(n)) * (1 + beta) / 2
    return A, norm * beta ** ((1 - alpha) / 2) / math.sqrt(math.gamma(1 + alpha) * math.gamma(1 - alpha))


def _fourier(n: np.ndarray) -> Pair:
    """The rotation S of frequency pi m on the states (2m, 2m+1), and b = (1, 0, sqrt(2), 0, sqrt(2), 0, ...).

    S_(2m+1, 2m) = pi m = -S_(2m, 2m+1)
    """
    below = np.where(n[1:] % 2 == 1, math.pi * (n[1:] // 2), 0.0)
    b = np.where(n % 2 == 0, math.sqrt(2), 0.0)
    b[0] = 1.0
    return np.diag(below, -1) - np.diag(below, 1), b


def _fout(n: np.ndarray) -> Pair:
    """A = S - b b^T, B = b."""
    S, b = _fourier(n)
    return S - np.outer(b, b), b


def _fourier_decay(n: np.ndarray) -> Pair:
    """A = S - b b^T / 2, B = b / 2."""
    S, b = _fourier(n)
    return S - np.outer(b, b) / 2, b / 2


def _fourier2(n: np.ndarray) -> Pair:
    """A = 2 S - 2 b b^T, B = 2 b."""
    S, b = _fourier(n)
    return 2 * S - 2 * np.outer(b, b), 2 * b


def _foud(n: np.ndarray) -> Pair:
    """A = 2 S - I/2, B = b."""
    S, b = _fourier(n)
    return 2 * S - np.eye(len(n)) / 2, b


def _alternating(k: np.ndarray) -> np.ndarray:
    """(-1)^k."""
    return 1.0 - 2.0 * (k % 2)


@dataclass(frozen=True)
class _Measure:
    matrices: Callable[..., Pair]
    options: Mapping[str, float] = field(default_factory=dict)
    even: bool = False


_MEASURES = {
    "legs": _Measure(_legs),
    "legsd": _Measure(_legsd),
    "legt": _Measure(_legt),
    "lmu": _Measure(_lmu),
    "lagt": _Measure(_lagt),
    "tlagt": _Measure(_tlagt, {"beta": 1.0}),
    "glagt": _Measure(_glagt, {"alpha": 0.0, "beta": 0.01}),
    "fout": _Measure(_fout, even=True),
    "fourier_decay": _Measure(_fourier_decay, even=True),
    "fourier2": _Measure(_fourier2, even=True),
    "foud": _Measure(_foud, even=True),
}
MEASURES = tuple(_MEASURES)

_DOMAIN = {"alpha": (-1.0, 1.0), "beta": (0.0, math.inf)}
