"""The recurrences of HiPPO's memory, with time first.

Row n of the A of legs reads the rows before it only, and those through one sum:

    (A c)_n = n c_n - b_n S_n,      S_n = b_0 c_0 + ... + b_n c_n,      b_n = sqrt(2n + 1)

so each row is a recurrence over time by itself, driven by the sums of the rows before it: O(N) a step and no matrix.

exp(A log(t'/t)) maps the coefficients of p(x) on [0, 1] to those of p(x / r) on [0, r] and 0 after it, r = t/t'.
Gauss-Legendre quadrature in N nodes y_q with weights w_q is exact for that: with g_n(x) = b_n P_n(2x - 1),

    r sum_q w_q g_n(r y_q) p(y_q),      p(y_q) = sum_n c_n g_n(y_q)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays.idioms import matmul, moved
from .._arrays.library import Array, Namespace, convert, device, is_array, real_dtype, resolve
from ..recurrences.fold import fold
from ..recurrences.linear import checked_scan
from ..systems.discretization import discretized
from ..systems.records import Dense
from ..time_invariant.simulation import scan
from .bases import legendre
from .matrices import Pair

MATRICES_AT_ONCE = 2**20  # numbers in the matrices of a chunk of steps that differ


def legs(u: Array, edges: Array, a: float, first: Array, xp: Namespace) -> Array:
    """c (..., L, N) by the bilinear rule with weight a, row by row: each is a scan over all the steps."""
    N, real = first.shape[-1], real_dtype(u.dtype, xp)
    edges = _time_first(edges, u.ndim - 1, xp)
    d = xp.astype(edges[1:, ...] - edges[:-1, ...], real, copy=False)
    t = xp.astype(edges[1:, ...], real, copy=False)

    def row(sums: Array, n: Array, start: Array) -> tuple[Array, Array]:
        """sums: S_{n-1} before the first step and after every one, (L + 1, ...)."""
        n = xp.reshape(n, (1,) * u.ndim)
        b = xp.sqrt(2 * n + 1)
        below = t + a * d * (n + 1)
        drive = b * d / below * (u - a * sums[1:, ...] - (1 - a) * sums[:-1, ...])
        c = checked_scan("linear_scan", (t - (1 - a) * d * (n + 1)) / below, drive, axis=0, initial=start[0, ...])
        return sums + b * xp.concat([start, c], axis=0), c[None, ...]

    n = xp.arange(N, dtype=real, device=device(u))
    sums = xp.zeros((u.shape[0] + 1, *u.shape[1:]), dtype=u.dtype, device=device(u))
    rows, _ = fold(row, sums, (n, moved(first, -1, 0, xp)), chunk=1, recompute=False)
    return moved(moved(rows, 0, -1, xp), 0, -2, xp)


def held_legs(u: Array, edges: Array, first: Array, xp: Namespace) -> Array:
    """c (..., L, N) of an input that is held, exactly."""
    N, real = first.shape[-1], real_dtype(u.dtype, xp)
    nodes, weights = np.polynomial.legendre.leggauss(N)
    scale = np.sqrt(2 * np.arange(N) + 1)
    values = np.polynomial.legendre.legvander(nodes, N - 1) * scale  # g_n(y_q)
    to_nodes = convert(values * (weights / 2)[:, None], xp, real, device(u))
    ratio = _time_first(edges[..., :-1] / edges[..., 1:], 0 if edges.ndim == 1 else u.ndim - 1, xp)
    y, scale, values = (convert(x, xp, ratio.dtype, device(u)) for x in ((nodes + 1) / 2, scale, values))
    constant = convert(np.eye(N)[0], xp, real, device(u))

    def prepare(r: Array) -> tuple[Array]:
        """What a step changes, r g_n(r y_q) - g_n(y_q), so that rounding does not add up: (T, ..., N, N)."""
        r = r[..., None]
        g = moved(legendre(2 * r * y - 1, N, xp), 0, -1, xp) * scale
        return (xp.astype(xp.matrix_transpose(r[..., None] * g - values), real, copy=False),)

    def advance(c: Array, u: Array, change: Array) -> Array:
        return c + times_vectors(change, times_vectors(to_nodes, c - u[..., None] * constant, xp), xp)

    return _stepped(prepare, advance, first, u, ratio, xp)


def different_steps(u: Array, matrices: Pair, edges: Array, method: str, first: Array, xp: Namespace) -> Array:
    """c (..., L, N) of a system that does not change, with a discretization for every step."""
    real = real_dtype(u.dtype, xp)
    steps = _time_first(edges[..., 1:] - edges[..., :-1], 0 if edges.ndim == 1 else u.ndim - 1, xp)
    A, B = (convert(x, xp, steps.dtype, device(u)) for x in matrices)
    lead = (1,) * steps.ndim
    system = Dense(xp.reshape(A, (*lead, *A.shape)), xp.reshape(B, (*lead, *B.shape)))

    def prepare(dt: Array) -> tuple[Array, Array]:
        found = discretized(system, dt, method, None, xp)
        return xp.astype(found.A, real, copy=False), xp.astype(found.B, real, copy=False)

    def advance(c: Array, u: Array, A: Array, B: Array) -> Array:
        return times_vectors(A, c, xp) + B * u[..., None]

    return _stepped(prepare, advance, first, u, steps, xp)


def _stepped(
    prepare: Callable[..., Any], advance: Callable[..., Array], first: Array, u: Array, steps: Array, xp: Namespace
) -> Array:
    """All states (..., L, N) of c_k = advance(c_{k-1}, u_k, what prepare makes of step k): a chunk of it at a time."""
    N = first.shape[-1]

    def one(c: Array, *given: Array) -> tuple[Array, Array]:
        c = advance(c, *(x[0, ...] for x in given))
        return c, c[None, ...]

    def some(c: Array, u: Array, steps: Array) -> tuple[Array, Array]:
        states, c = fold(one, c, (u, *prepare(steps)), chunk=1, recompute=False)
        return c, states

    width = N * N
    for size in steps.shape[1:]:
        width *= max(1, size)
    chunk = max(1, min(u.shape[0], MATRICES_AT_ONCE // width))
    states, _ = fold(some, first, (u, steps), chunk=chunk)
    return moved(states, 0, -2, xp)


def times_vectors(M: Array, x: Array, xp: Namespace) -> Array:
    """M x for vectors x (..., n) and one matrix (m, n) for all of them, or one for each (..., m, n)."""
    if M.ndim == 2:
        return matmul(x, xp.matrix_transpose(M), xp)
    return matmul(M, x[..., None], xp)[..., 0]


def equal_steps(u: Array, matrices: Pair, dt: Any, method: str, first: Array | None, xp: Namespace) -> Array:
    """c (..., L, N) of a system that does not change, discretized once: on the host where dt is a number."""
    real, where = real_dtype(u.dtype, xp), device(u)
    if is_array(dt):
        A, B = (convert(x, xp, dt.dtype, where) for x in matrices)
        found = discretized(Dense(A, B), dt, method, None, xp)
        A, B = (xp.astype(x, real, copy=False) for x in (found.A, found.B))
    else:
        found = discretized(Dense(*matrices), dt, method, None, resolve("numpy"))
        A, B = (convert(x, xp, real, where) for x in (found.A, found.B))
    C = xp.eye(A.shape[-1], dtype=real, device=where)
    y, _ = scan(Dense(A, B, C, discrete=True), u, initial=first)
    return moved(y, -1, -2, xp)


def _time_first(x: Array, axes: int, xp: Namespace) -> Array:
    """(..., L) to (L, ...), with so many axes after time."""
    return moved(xp.reshape(x, (1,) * (axes + 1 - x.ndim) + tuple(x.shape)), -1, 0, xp)
