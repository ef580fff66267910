"""What readers meet of keys written before them, by halves: products of matrices, no factor above one.

Steps of the first half of a block meet those of the second over the boundary between them: (late x decay since the
middle) . (early x decay up to the middle), where decays are multiplied and never divided, so that nothing overflows and
small decays keep their digits beside large ones. Halves are split again, down to single steps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .._arrays.idioms import clip, matmul, repeated
from .._arrays.library import Array, Namespace, device

TINY = 4  # rows of blocks whose products are sums, cheaper than calls of a library for products of matrices

LOWEST = -1e30  # of log decays that meet zeros in a product


class Meetings(NamedTuple):
    """Of log decays g (..., T, K) and of readers and keys.

    scores       (..., T, T), strictly lower triangular, of every reader with every key
    since_start  (..., T, K): decay of the state before the chunk, as step i reads it
    to_end       (..., T, K): decay of step j's key up to the end
    through      (..., 1, K): decay of the state before the chunk up to its end
    """

    scores: list[list[Array]]
    since_start: Array
    to_end: Array
    through: Array


def met(readers: list[Array], keys: list[Array], g: Array, *, exclusive: bool, xp: Namespace) -> Meetings:
    """Of readers and keys (..., T, K), T a power of two; exclusive readers read before the decay of their step."""
    *lead, T, K = g.shape
    readers, keys = [joined(x, xp) for x in readers], [joined(x, xp) for x in keys]
    g = joined(g, xp)
    # States go through many chunks, where roundings of products, the same in each, would add up.
    through = xp.exp(xp.sum(g, axis=-2, keepdims=True))
    decay = xp.exp(xp.reshape(g, (g.shape[0], T, 1, K)))
    to_end, nothing = xp.ones_like(decay), xp.zeros_like(decay[..., :1])
    since_start = to_end if exclusive else decay
    scores = [[nothing for _ in keys] for _ in readers]  # (N, blocks, h, h)
    h = 1
    while h < T:
        (start, after), (before, last), (first, second) = (halves(x, xp) for x in (since_start, to_end, decay))
        late = [_half(x, h, 1, xp) * after for x in readers]
        early = [xp.matrix_transpose(_half(x, h, 0, xp) * before) for x in keys]
        across = [[product(r, k, xp) for k in early] for r in late]
        scores = [
            [stacked(*halves(s, xp), x, xp) for s, x in zip(row, new, strict=True)]
            for row, new in zip(scores, across, strict=True)
        ]
        since_start = xp.concat([start, after * first], axis=-2)
        to_end = xp.concat([before * second, last], axis=-2)
        decay, h = first * second, 2 * h

    def whole(x: Array) -> Array:
        return xp.reshape(x, (*lead, *x.shape[-2:]))

    return Meetings([[whole(s) for s in row] for row in scores], whole(since_start), whole(to_end), whole(through))


def joined(x: Array, xp: Namespace) -> Array:
    """Matrices (..., T, K) as (N, T, K): XLA fails in sums along one axis between many, of which some have length 1."""
    return xp.reshape(x, (math.prod(x.shape[:-2]), *x.shape[-2:]))


def halves(x: Array, xp: Namespace) -> tuple[Array, Array]:
    """The even and the odd blocks of x (..., blocks, rows, columns)."""
    *lead, blocks, rows, columns = x.shape
    pairs = xp.reshape(x, (*lead, blocks // 2, 2, rows, columns))
    return pairs[..., 0, :, :], pairs[..., 1, :, :]


def _half(x: Array, h: int, which: int, xp: Namespace) -> Array:
    """The first or the second halves (..., pairs, h, K) of blocks of 2 h steps of x (..., T, K)."""
    *lead, T, K = x.shape
    return xp.reshape(x, (*lead, T // (2 * h), 2, h, K))[..., which, :, :]


def stacked(upper: Array, lower: Array, across: Array, xp: Namespace) -> Array:
    """[[upper, 0], [across, lower]]."""
    above = xp.concat([upper, xp.zeros_like(upper)], axis=-1)
    return xp.concat([above, xp.concat([across, lower], axis=-1)], axis=-2)


def product(x: Array, y: Array, xp: Namespace) -> Array:
    """x y of many matrices; of tiny ones as a sum."""
    rows, n = x.shape[-2:]
    if rows == 1 and n > TINY:
        return xp.sum(x * xp.matrix_transpose(y), axis=-1, keepdims=True)
    if max(rows, n) > TINY:
        return matmul(x, y, xp)
    return xp.sum(x[..., :, :, None] * y[..., None, :, :], axis=-2)


def head_sums(g: Array, *, exclusive: bool, xp: Namespace) -> tuple[Array, Array, Array, Array]:
    """With one decay a head, g (..., T, 1): decays between the steps (..., T, T), zero above the diagonal and, if
    exclusive, on it; and the sums of g from the start, to the end (..., T, 1), and all (..., 1, 1)."""
    k = xp.arange(g.shape[-2], device=device(g))
    later, row = xp.astype(k[:, None] > k, g.dtype), xp.matrix_transpose(clip(g, LOWEST))
    reached = k[:, None] > k if exclusive else k[:, None] >= k
    up_to = xp.astype(reached, g.dtype)
    between = xp.exp(matmul(up_to * repeated(row, g.shape[-2]), later, xp))  # of the sum over j < t < i, or j < t <= i
    from_start, to_end = (xp.matrix_transpose(matmul(row, m, xp)) for m in (xp.matrix_transpose(up_to), later))
    decay = xp.where(reached, between, xp.zeros_like(between))
    return decay, from_start, to_end, xp.sum(row, axis=-1, keepdims=True)


def with_diagonal(scores: Array, own: Array, xp: Namespace) -> Array:
    """Strictly lower scores (..., T, T) with what every step meets of itself, own (..., T, 1)."""
    k = xp.arange(scores.shape[-1], device=device(scores))
    return xp.where(k[:, None] == k, own, scores)
