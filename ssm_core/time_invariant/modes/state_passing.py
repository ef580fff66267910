"""Chunked state passing: a system of one input and one output, chunk after chunk, by real matrices made once.

With z the poles, x the state before a chunk of T steps and K the kernel,

    y_t = sum_{j<=t} K_{t-j} u_j + P_t x,     P_t = C z^(t+1)
    x'  = z^T x + sum_j Q_j u_j,              Q_j = z^(T-1-j) B

The first chunk is the shorter one, of r = L - (A-1) T steps: it takes the first r of P and the last r of Q, and z^r.
Complex states, of real systems, are the halves (Re x, Im x); then P is (Re C z^(t+1), -Im C z^(t+1)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ..._arrays.idioms import matmul
from ..._arrays.library import Array, Namespace, is_complex, namespace, to_complex
from ...recurrences.fold import fold
from ...systems import records
from ..run import Run
from .chunk import toeplitz_transposed


class Maps(NamedTuple):
    """K (H, T); P and Q (H, halves, N, T); decay z^T and head z^r (H, halves, N)."""

    taps: Array
    respond: Array
    drive: Array
    decay: Array
    head: Array


StatePassing = Callable[[Array, Maps, Array], tuple[Array, Array]]


def run_state_passing(run: Run, T: int, passing: StatePassing) -> tuple[Array, Array]:
    """y and the last state, by `passing`; the run is one of a Diagonal system without resets whose y is real."""
    xp, L, first = run.xp, run.length, run.first_state()
    paired = is_complex(first)
    axis = len(run.batch) - records.batch_rank(run.system)
    channels = run.batch[axis:]
    B, H = math.prod(run.batch[:axis]), math.prod(channels)

    def by_channel(x: Array, axes: int) -> Array:
        shape = x.shape[x.ndim - axes :]
        return xp.reshape(xp.broadcast_to(x, (*channels, *shape)), (H, *shape))

    u = xp.reshape(xp.broadcast_to(run.u, (*run.batch, L)), (B, H, L))
    maps = Maps(*(by_channel(x, axes) for x, axes in zip(_maps(run, T, paired), (1, 3, 3, 2, 2), strict=True)))
    y, last = passing(u, maps, xp.reshape(_halves(first, paired, -2, xp), (B, H, -1, first.shape[-1])))
    last = last[..., 0, :] + 1j * last[..., 1, :] if paired else last[..., 0, :]
    return xp.reshape(y, (*run.batch, L)), xp.reshape(last, first.shape)


def _maps(run: Run, T: int, paired: bool) -> tuple[Array, ...]:
    """K (..., T), P and Q (..., halves, N, T), z^T and z^r (..., halves, N)."""
    xp, system, C = run.xp, run.system, run.system.C
    powers = run.propagator.powers.table(T + 1)
    respond = (2 * C if system.conj_pairs else C)[..., None] * powers[..., 1:]
    respond = xp.conj(respond) if is_complex(respond) else respond
    drive = system.B[..., None] * xp.flip(powers[..., :T], axis=-1)
    matrices = (_halves(x, paired, -3, xp) for x in (respond, drive))
    gates = (_halves(powers[..., k], paired, -2, xp) for k in (T, (run.length - 1) % T + 1))
    return (run.propagator.kernel(T), *matrices, *gates)


def _halves(x: Array, paired: bool, axis: int, xp: Namespace) -> Array:
    """(Re x, Im x), or (Re x,) beside real states, along a new axis."""
    if not paired:
        return xp.expand_dims(xp.real(x) if is_complex(x) else x, axis=axis)
    x = to_complex(x, xp)
    return xp.stack([xp.real(x), xp.imag(x)], axis=axis)


def state_passing(u: Array, maps: Maps, first: Array) -> tuple[Array, Array]:
    """y (B, H, L) and the last state (B, H, halves, N), from u and `first` of these shapes."""
    xp, (B, H, L), T = namespace("state_passing", u=u), u.shape, maps.taps.shape[-1]
    r = (L - 1) % T + 1
    toeplitz = toeplitz_transposed(maps.taps, xp)
    respond, drive = (xp.reshape(x, (H, -1, T)) for x in (maps.respond, maps.drive))

    def chunk(x: Array, u: Array, gate: Array) -> tuple[Array, Array]:
        """From the state before, (H, B, halves, N), and u (H, B, steps) to the state after, and y."""
        steps = u.shape[-1]
        y = matmul(u, toeplitz[:, :steps, :steps], xp) + matmul(xp.reshape(x, (H, B, -1)), respond[..., :steps], xp)
        gathered = matmul(u, xp.matrix_transpose(drive[..., T - steps :]), xp)
        return _turned(gate[:, None, ...], x, xp) + xp.reshape(gathered, x.shape), y

    x, y = chunk(xp.permute_dims(first, (1, 0, 2, 3)), xp.permute_dims(u[..., :r], (1, 0, 2)), maps.head)
    y = xp.permute_dims(y, (1, 0, 2))
    if r < L:
        chunks = xp.permute_dims(xp.reshape(u[..., r:], (B, H, -1, T)), (2, 1, 0, 3))

        def body(x: Array, u: Array) -> tuple[Array, Array]:
            x, y = chunk(x, u[0, ...], maps.decay)
            return x, y[None, ...]

        rest, x = fold(body, x, (chunks,), chunk=1, recompute=False)
        y = xp.concat([y, xp.reshape(xp.permute_dims(rest, (2, 1, 0, 3)), (B, H, L - r))], axis=-1)
    return y, xp.permute_dims(x, (1, 0, 2, 3))


def _turned(z: Array, x: Array, xp: Namespace) -> Array:
    """z x, of numbers in halves (..., halves, N)."""
    if x.shape[-2] == 1:
        return z * x
    a, b, p, q = z[..., 0, :], z[..., 1, :], x[..., 0, :], x[..., 1, :]
    return xp.stack([a * p - b * q, a * q + b * p], axis=-2)
