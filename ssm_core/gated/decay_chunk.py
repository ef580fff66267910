"""One chunk of gated linear attention with a decay a channel, by halves: products of matrices, no factor above one."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.idioms import matmul
from .._arrays.library import Array, Namespace, device
from .halves import met, with_diagonal


class Walk(NamedTuple):
    """What the steps of a chunk do to each other and to the state.

    scores       (..., T, T): of what step i reads from step j <= i, decays and bonus included
    since_start  (..., T, K): decay of the state before the chunk, as step i reads it
    to_end       (..., T, K): decay of step j's input up to the end
    through      (..., 1, K): decay of the state before the chunk up to its end
    """

    scores: Array
    since_start: Array
    to_end: Array
    through: Array


def walk(q: Array, k: Array, g: Array, weight: Array | None, *, exclusive: bool, xp: Namespace) -> Walk:
    """Of q, k and log decays g (..., T, K), T a power of two; weight (K,) of q k in the same step, 1 if None.

    An exclusive read of the state comes before its decay.
    """
    same = q * k if weight is None else q * k * weight
    scores, *decays = met([q], [k], g, exclusive=exclusive, xp=xp)
    return Walk(with_diagonal(scores[0][0], xp.sum(same, axis=-1, keepdims=True), xp), *decays)


def channel_chunk(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    state: Array,
    *,
    xp: Namespace,
    weight: Array | None = None,
    reset: Array | None = None,
    exclusive: bool = False,
) -> tuple[Array, Array]:
    """y (T, batch, H, V) and the state after T steps.

    q, k and log_decay (T, batch, H, K), v (T, batch, H, V), state (batch, H, K, V), weight (H, K), reset (T, batch).
    """
    T = v.shape[0]
    n = 1 << max(0, T - 1).bit_length()
    q, k, v, g = (_padded(xp.permute_dims(x, (1, 2, 0, 3)), n, xp) for x in (q, k, v, log_decay))
    y, state = turned_chunk(q, k, v, g, state, weight=weight, reset=reset, exclusive=exclusive, xp=xp)
    return xp.permute_dims(y[..., :T, :], (2, 0, 1, 3)), state


def turned_chunk(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    state: Array,
    *,
    xp: Namespace,
    weight: Array | None = None,
    reset: Array | None = None,
    exclusive: bool = False,
) -> tuple[Array, Array]:
    """`channel_chunk` of signals (batch, H, n, .), and resets (T, batch), T <= n, a power of two."""
    n = k.shape[2]
    steps = walk(q, k, log_decay, None if weight is None else weight[:, None, :], exclusive=exclusive, xp=xp)
    scores, since_start, to_end, through = steps
    if reset is not None:
        count = xp.permute_dims(xp.cumulative_sum(xp.astype(reset, xp.int32), axis=0), (1, 0))
        last, T = count[:, -1:], count.shape[1]
        segment = xp.concat([count, xp.broadcast_to(last, (count.shape[0], n - T))], axis=1)[:, None, :, None]
        same = segment == xp.matrix_transpose(segment)
        scores = xp.where(same, scores, xp.zeros_like(scores))
        since_start = xp.where(segment == 0, since_start, 0.0)
        to_end = xp.where(segment == last[:, None, :, None], to_end, 0.0)
        through = xp.where(last[:, None, :, None] == 0, through, 0.0)
    y = matmul(scores, v, xp) + matmul(q * since_start, state, xp)
    return y, xp.matrix_transpose(through) * state + matmul(xp.matrix_transpose(k * to_end), v, xp)


def _padded(x: Array, n: int, xp: Namespace) -> Array:
    """x (..., T, K) with zeros up to n steps: they touch nothing."""
    *lead, T, K = x.shape
    if n == T:
        return x
    return xp.concat([x, xp.zeros((*lead, n - T, K), dtype=x.dtype, device=device(x))], axis=-2)
