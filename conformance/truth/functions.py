"""What single functions, scans and convolutions should give: loops, double sums, series in fifty digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np

Array = np.ndarray


def over_batch(f: Callable[..., Sequence[Array]], axes: Sequence[int], *arrays: Array) -> tuple[Array, ...]:
    """f for every index of the broadcast leading axes; the last `axes` of each array belong to it."""
    arrays = tuple(np.asarray(a) for a in arrays)
    batch = np.broadcast_shapes(*(a.shape[: a.ndim - n] for a, n in zip(arrays, axes, strict=True)))
    full = [np.broadcast_to(a, (*batch, *a.shape[a.ndim - n :])) for a, n in zip(arrays, axes, strict=True)]
    results = [f(*(a[index] for a in full)) for index in np.ndindex(*batch)]
    return tuple(np.stack(parts).reshape(*batch, *parts[0].shape) for parts in zip(*results, strict=True))


# Scans and convolutions ----------------------------------------------------------------------------------------------


def linear_scan(a: Array, b: Array, axis: int, initial: Any = None, reverse: bool = False) -> Array:
    """x_k = a_k x_{k-1} + b_k, one step after another."""
    a, b = np.broadcast_arrays(a, b)
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    x: Any = 0 if initial is None else initial
    states: list[Any] = [None] * len(b)
    for k in reversed(range(len(b))) if reverse else range(len(b)):
        x = a[k] * x + b[k]
        states[k] = x
    return np.moveaxis(np.stack(states), 0, axis)


def convolve(u: Array, k: Array, reverse: Array | None = None) -> Array:
    """y_t = sum_{j<=t} k_{t-j} u_j + sum_{j>t} r_{j-t-1} u_j, term by term."""
    L = u.shape[-1]
    batch = np.broadcast_shapes(u.shape[:-1], k.shape[:-1], () if reverse is None else reverse.shape[:-1])
    y = np.zeros((*batch, L), dtype=np.result_type(u, k, *(() if reverse is None else (reverse,))))
    for t in range(L):
        for j in range(L):
            if j <= t and t - j < k.shape[-1]:
                y[..., t] += k[..., t - j] * u[..., j]
            elif j > t and reverse is not None and j - t - 1 < reverse.shape[-1]:
                y[..., t] += reverse[..., j - t - 1] * u[..., j]
    return y


# Exponentials --------------------------------------------------------------------------------------------------------


def expm(A: Array) -> Array:
    """exp(A) = sum_k A^k / k!, after halving A until it is small."""
    return _from_mp(_exponential_series(_to_mp(A), shift=0), A)


def held_input(A: Array, dt: float) -> Array:
    """The integral of exp(s A) over s from 0 to dt: dt sum_k (dt A)^k / (k+1)!, which needs no inverse of A."""
    return dt * _from_mp(_exponential_series(_to_mp(A) * mpmath.mpf(dt), shift=1), A)


def _exponential_series(A: Any, shift: int) -> Any:
    """sum_k A^k / (k + shift)! in fifty digits more than its largest term."""
    size = float(mpmath.mnorm(A, 1))
    with mpmath.workdps(50 + int(size)):
        term = total = mpmath.eye(A.rows) / math.factorial(shift)
        for k in range(1, 40 + int(4 * size)):
            term = term * A / (k + shift)
            total = total + term
    return total


def _to_mp(A: Array) -> Any:
    return mpmath.matrix([[mpmath.mpmathify(complex(x) if np.iscomplexobj(A) else float(x)) for x in row] for row in A])


def _from_mp(M: Any, like: Array) -> Array:
    kind: Any = complex if np.iscomplexobj(like) else float
    return np.array([[kind(M[i, j]) for j in range(M.cols)] for i in range(M.rows)])


# Single functions ----------------------------------------------------------------------------------------------------


def elementwise(f: Callable[[Any], Any], x: Array) -> Array:
    """An mpmath function of every entry."""
    kind: Any = complex if np.iscomplexobj(x) else float
    with mpmath.workdps(60):
        return np.array([kind(f(mpmath.mpmathify(kind(v)))) for v in x.ravel()]).reshape(x.shape)


def phi1(z: Any) -> Any:
    return mpmath.mpf(1) if z == 0 else (mpmath.exp(z) - 1) / z


def gelu(x: Any) -> Any:
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def gelu_tanh(x: Any) -> Any:
    return x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def softplus(x: Any) -> Any:
    return mpmath.log1p(mpmath.exp(x))


def heard(q: Array, law: str) -> Array:
    """The sample that stands for a level of 256, whole or between."""

    def sample(q: Any) -> Any:
        y = q / 128 - 1
        return y if law == "linear" else mpmath.sign(y) * (mpmath.mpf(256) ** abs(y) - 1) / 255

    return elementwise(sample, q)
