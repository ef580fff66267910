"""Chunks of delta rules: products of matrices, no factor above one, and the inverse of a triangular matrix, by halves.

A step reads the state before it with a key and writes what it makes of that with another one, so the values written
within a chunk are the solution of a unit lower triangular system. Steps of the first half of a block meet those of
the second over the boundary between them: (late e^(decay since the middle)) . (early e^(decay up to the middle)),
whose exponents are sums of log decays and never differences, so that nothing overflows and small decays keep their
digits beside large ones. The inverse of a block follows from those of its halves,

    [[A, 0], [-X, B]]^-1 = [[A^-1, 0], [B^-1 X A^-1, B^-1]],

which, unlike powers of the whole, is as stable as substitution: reflections (beta = 2) have entries that alternate.
"""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.library import Array, Namespace, device, matmul

TINY = 4  # rows of blocks whose products are sums, cheaper than calls of a library for products of matrices


class Writes(NamedTuple):
    """What the steps of a chunk write: with a key each, values that depend on the state, or values that are given."""

    solved: Array  # (..., T, K): keys of the values w = z + reads S + (readers . keys) w
    given: Array | None = None  # (..., T, K): keys of other values


class Walk(NamedTuple):
    """A chunk of T steps from the state S before it, with decays included everywhere.

    w = inverse (z + reads S),   y = outputs S + seen w,   S <- e^total S + solved^T w

    where z are values (..., T, V), and with keys of given values v: z = reads_given v, y += seen_given v,
    S += given^T v.
    """

    reads: Array  # (..., T, K)
    outputs: Array  # (..., T, K)
    solved: Array  # (..., T, K)
    given: Array | None
    total: Array  # (..., 1, K) or (..., 1, 1)
    inverse: Array  # (..., T, T), unit lower triangular
    seen: Array  # (..., T, T), lower triangular
    reads_given: Array | None  # (..., T, T), strictly lower triangular
    seen_given: Array | None


def walk(reads: Array, q: Array, writes: Writes, g: Array, xp: Namespace) -> Walk:
    """Of keys (..., T, K) that read before the decay of their step, of q, which reads after the step, and log decays g.

    T is a power of two, and g (..., T, K) or (..., T, 1); at -inf nothing goes through.
    """
    keys = [k for k in writes if k is not None]
    own = [xp.sum(q * k, axis=-1)[..., None, None] for k in keys]
    nothing = xp.zeros_like(own[0])
    scores = [[nothing for _ in keys], own]  # of the two readers with the keys: (..., blocks, h, h)
    inverse = xp.ones_like(nothing)
    total, readers, keys = (
        g[..., None, :],
        [reads[..., None, :], (q * xp.exp(g))[..., None, :]],
        [k[..., None, :] for k in keys],
    )
    while total.shape[-3] > 1:
        first, last = halves(total, xp)
        late, early = [halves(r, xp)[1] for r in readers], [xp.matrix_transpose(halves(k, xp)[0]) for k in keys]
        across = [[product(r, k, xp) for k in early] for r in late]
        upper, lower = halves(inverse, xp)
        inverse = _stacked(upper, product(product(lower, across[0][0], xp), upper, xp), lower, xp)
        scores = [
            [_stacked(*_around(s, x, xp), xp) for s, x in zip(row, new, strict=True)]
            for row, new in zip(scores, across, strict=True)
        ]
        readers = [_decayed(r, first, 1, xp) for r in readers]
        keys = [_decayed(k, last, 0, xp) for k in keys]
        total = first + last
    readers, keys = ([x[..., 0, :, :] for x in xs] for xs in (readers, keys))
    of_reads, of_q = ([s[..., 0, :, :] for s in row] for row in scores)
    given, reads_given, seen_given = (keys[1], of_reads[1], of_q[1]) if len(keys) > 1 else (None, None, None)
    total, inverse = total[..., 0, :, :], inverse[..., 0, :, :]
    return Walk(readers[0], readers[1], keys[0], given, total, inverse, of_q[0], reads_given, seen_given)


def halves(x: Array, xp: Namespace) -> tuple[Array, Array]:
    """The even and the odd blocks of x (..., blocks, rows, columns)."""
    *lead, blocks, rows, columns = x.shape
    pairs = xp.reshape(x, (*lead, blocks // 2, 2, rows, columns))
    return pairs[..., 0, :, :], pairs[..., 1, :, :]


def _around(scores: Array, across: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    upper, lower = halves(scores, xp)
    return upper, across, lower


def _stacked(upper: Array, across: Array, lower: Array, xp: Namespace) -> Array:
    """[[upper, 0], [across, lower]]."""
    above = xp.concat([upper, xp.zeros_like(upper)], axis=-1)
    return xp.concat([above, xp.concat([across, lower], axis=-1)], axis=-2)


def _decayed(x: Array, g: Array, which: int, xp: Namespace) -> Array:
    """x (..., blocks, h, K) as blocks of twice the size, of which one half decays by g (..., blocks / 2, 1, K)."""
    *lead, blocks, h, K = x.shape
    decay = xp.exp(g)
    pair = [xp.ones_like(decay), decay] if which else [decay, xp.ones_like(decay)]
    x = xp.reshape(x, (*lead, blocks // 2, 2, h, K)) * xp.stack(pair, axis=-3)
    return xp.reshape(x, (*lead, blocks // 2, 2 * h, K))


def product(x: Array, y: Array, xp: Namespace) -> Array:
    """x y of many matrices; of tiny ones as a sum."""
    rows, n = x.shape[-2:]
    if rows == 1 and n > TINY:
        return xp.sum(x * xp.matrix_transpose(y), axis=-1, keepdims=True)
    if max(rows, n) > TINY:
        return matmul(x, y, xp)
    return xp.sum(x[..., :, :, None] * y[..., None, :, :], axis=-2)


def blocked(x: Array, width: int, xp: Namespace) -> Array:
    """x (..., M, K) as blocks of so many steps, (..., blocks, width, K), with zeros behind: they touch nothing."""
    *lead, M, K = x.shape
    missing = -M % width
    if missing:
        x = xp.concat([x, xp.zeros((*lead, missing, K), dtype=x.dtype, device=device(x))], axis=-2)
    return xp.reshape(x, (*lead, (M + missing) // width, width, K))


def through_chunks(walk: Walk, values: Array, state: Array, xp: Namespace) -> tuple[Array, Array]:
    """y (..., chunks, T, V) and the state (..., K, V) after all chunks, one after another, of values (..., chunks,
    T, V)."""
    given = walk.given is not None
    z = matmul(walk.reads_given, values, xp) if given else values
    U, W = matmul(walk.inverse, z, xp), matmul(walk.inverse, walk.reads, xp)
    into, decay = xp.matrix_transpose(walk.solved), xp.exp(xp.matrix_transpose(walk.total))
    entering = matmul(xp.matrix_transpose(walk.given), values, xp) if given else None
    before, written = [], []
    for c in range(z.shape[-3]):
        w = U[..., c, :, :] + matmul(W[..., c, :, :], state, xp)
        before.append(state)
        written.append(w)
        state = decay[..., c, :, :] * state + matmul(into[..., c, :, :], w, xp)
        state = state if entering is None else state + entering[..., c, :, :]
    y = matmul(walk.outputs, xp.stack(before, axis=-3), xp) + matmul(walk.seen, xp.stack(written, axis=-3), xp)
    return (y + matmul(walk.seen_given, values, xp) if given else y), state
