"""Chunks of delta rules: products of matrices, no factor above one, and the inverse of a triangular matrix, by halves.

A step reads the state before it with a key and writes what it makes of that with another one, so the values written
within a chunk are the solution of a unit lower triangular system. The inverse of a block follows from those of its
halves,

    [[A, 0], [-X, B]]^-1 = [[A^-1, 0], [B^-1 X A^-1, B^-1]],

which, unlike powers of the whole, is as stable as substitution: reflections (beta = 2) have entries that alternate.
"""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.idioms import matmul
from .._arrays.library import Array, Namespace, device
from .halves import Meetings, head_sums, joined, met, product, stacked, with_diagonal


class Writes(NamedTuple):
    """What the steps of a chunk write: with a key each, values that depend on the state, or values that are given."""

    solved: Array  # (..., T, K): keys of the values w = z + reads S + (readers . keys) w
    given: Array | None = None  # (..., T, K): keys of other values


class Walk(NamedTuple):
    """A chunk of T steps from the state S before it, with decays included everywhere.

    w = inverse (z + reads S),   y = outputs S + seen w,   S <- through S + solved^T w

    where z are values (..., T, V), and with keys of given values v: z = reads_given v, y += seen_given v,
    S += given^T v.
    """

    reads: Array  # (..., T, K)
    outputs: Array  # (..., T, K)
    solved: Array  # (..., T, K)
    given: Array | None
    through: Array  # (..., 1, K) or (..., 1, 1)
    inverse: Array  # (..., T, T), unit lower triangular
    seen: Array  # (..., T, T), lower triangular
    reads_given: Array | None  # (..., T, T), strictly lower triangular
    seen_given: Array | None


def walk(reads: Array, q: Array, writes: Writes, g: Array, xp: Namespace) -> Walk:
    """Of keys (..., T, K) that read before the decay of their step, of q, which reads after the step, and log decays g.

    T is a power of two, and g (..., T, K) or (..., T, 1); at -inf nothing goes through.
    """
    readers, keys = [reads, q * xp.exp(g)], [k for k in writes if k is not None]
    if g.shape[-1] == 1:
        scores, since_start, to_end, through = _met_by_heads(readers, keys, g, xp)
    else:
        scores, since_start, to_end, through = met(readers, keys, g, exclusive=True, xp=xp)
    of_reads, of_q = scores
    of_q = [with_diagonal(s, xp.sum(q * k, axis=-1, keepdims=True), xp) for s, k in zip(of_q, keys, strict=True)]
    reads, outputs = (r * since_start for r in readers)
    keys = [k * to_end for k in keys]
    given, reads_given, seen_given = (keys[1], of_reads[1], of_q[1]) if len(keys) > 1 else (None, None, None)
    return Walk(
        reads=reads,
        outputs=outputs,
        solved=keys[0],
        given=given,
        through=through,
        inverse=unit_inverse(of_reads[0], xp),
        seen=of_q[0],
        reads_given=reads_given,
        seen_given=seen_given,
    )


def _met_by_heads(readers: list[Array], keys: list[Array], g: Array, xp: Namespace) -> Meetings:
    """With one decay a head, g (..., T, 1): products of readers and keys, times the decays of the steps between."""
    decay, *sums = head_sums(g, exclusive=True, xp=xp)
    scores = [[matmul(r, xp.matrix_transpose(k), xp) * decay for k in keys] for r in readers]
    return Meetings(scores, *(xp.exp(x) for x in sums))


def unit_inverse(A: Array, xp: Namespace) -> Array:
    """(I - A)^-1 of strictly lower triangular A (..., T, T)."""
    h = A.shape[-1] // 2
    if h == 0:
        return xp.ones_like(A)
    blocks = xp.stack([A[..., :h, :h], A[..., h:, h:]], axis=-3)
    inverses = xp.reshape(unit_inverse(joined(blocks, xp), xp), blocks.shape)
    upper, lower = inverses[..., 0, :, :], inverses[..., 1, :, :]
    return stacked(upper, lower, product(product(lower, A[..., h:, :h], xp), upper, xp), xp)


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
    into, decay = xp.matrix_transpose(walk.solved), xp.matrix_transpose(walk.through)
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


def through_chunk(walk: Walk, values: Array, state: Array, xp: Namespace) -> tuple[Array, Array]:
    """The same for one chunk, of values (..., T, V)."""
    z = values if walk.given is None else matmul(walk.reads_given, values, xp)
    w = matmul(walk.inverse, z + matmul(walk.reads, state, xp), xp)
    y = matmul(walk.outputs, state, xp) + matmul(walk.seen, w, xp)
    state = xp.matrix_transpose(walk.through) * state + matmul(xp.matrix_transpose(walk.solved), w, xp)
    if walk.given is None:
        return y, state
    return y + matmul(walk.seen_given, values, xp), state + matmul(xp.matrix_transpose(walk.given), values, xp)
