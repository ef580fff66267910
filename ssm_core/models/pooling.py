"""Pools over time that go on from a state, mind lengths, and give one row for every packed sequence."""

from __future__ import annotations

from functools import partial
from typing import Any

from .._arrays.errors import ShapeError, describe
from .._arrays.idioms import matmul, taken_along
from .._arrays.library import Array, Namespace, computable, compute_dtype, device, in_dtype_of, namespace, owned
from ..recurrences.segments import clipped_lengths, steps_within
from ..recurrences.shards import Shards
from ..recurrences.summaries import Elementwise

POOLS = ("mean", "last", None)

State = tuple[Array, ...]


def first_state(pool: str | None, batch: int, width: int, like: Array) -> State:
    """Before the first step; of the device and dtype of like, sums and counts at least of single precision."""
    xp = namespace("pool", like=like)
    if pool == "last":
        return (xp.zeros((batch, width), dtype=like.dtype, device=device(like)),)
    zeros = partial(xp.zeros, dtype=compute_dtype(xp, like), device=device(like))
    return () if pool is None else (zeros((batch, width)), zeros((batch, 1)))


def pooled(
    operation: str,
    pool: str | None,
    x: Array,
    state: State | None,
    *,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    shards: Shards | None = None,
) -> tuple[Array, State]:
    """x (B, L, H) pooled over time to (B, H), or (n, H) of n packed sequences, and the state of the pool.

    The state is sums (B, H) and counts (B, 1) for the mean, what came last (B, H) for "last", else nothing. Sums and
    counts of half precision are kept in float32: there no count goes beyond 256, or 2048, one by one. A sequence of no
    steps, now and before, pools to zero. Without a pool x itself. Steps and masks may be those of one of several
    shards: what is pooled is all of them.
    """
    if pool is None:
        return x, ()
    xp = namespace(operation, x=x)
    if shards is not None:
        return _over_shards(pool, x, state, lengths, cu_seqlens, shards)
    if x.shape[1] == 0 and state is None:
        raise ShapeError(f"{operation}: pool {pool!r} needs at least one step ({describe(x=x)}).")
    lengths = None if lengths is None else clipped_lengths(lengths, x.shape[1], xp)
    if pool == "last":
        last = _last(x, lengths, cu_seqlens, None if state is None else state[0], xp)
        return last, (owned(last),)
    summed, count = _sums(computable(x, xp), lengths, cu_seqlens, xp)
    if state is not None:
        summed, count = summed + state[0], count + state[1]
    return in_dtype_of(x, summed / xp.clip(count, 1.0), xp), (summed, count)


def _over_shards(
    pool: str, x: Array, state: State | None, lengths: Any, cu_seqlens: Any, shards: Shards
) -> tuple[Array, State]:
    """`pooled` of the steps of all processes, the same on every one of them."""
    xp = namespace("pool", x=x)
    if pool == "mean":
        own = xp.concat(_sums(computable(x, xp), lengths, cu_seqlens, xp), axis=-1)
        before = None if state is None else xp.concat(state, axis=-1)
        _, last = shards.enter(Elementwise(xp.ones_like(own[:1, :1]), own), before, x)
        summed, count = last[:, :-1], last[:, -1:]
        return in_dtype_of(x, summed / xp.clip(count, 1.0), xp), (summed, count)
    own = _last(x, lengths, cu_seqlens, None, xp)
    steps = lengths if cu_seqlens is None else cu_seqlens[1:] - cu_seqlens[:-1]
    empty = xp.full((1, 1), float(x.shape[1] == 0), dtype=x.dtype, device=device(x))
    empty = empty if steps is None else xp.astype(steps == 0, x.dtype)[:, None]
    _, last = shards.enter(Elementwise(empty, own), None if state is None else state[0], x)
    return last, (last,)


def _sums(x: Array, lengths: Array | None, cu_seqlens: Array | None, xp: Namespace) -> tuple[Array, Array]:
    """Sums (B, H) and counts (B, 1) of the steps of every sequence."""
    B, L, _ = x.shape
    if cu_seqlens is not None:
        counts = xp.astype(cu_seqlens[1:] - cu_seqlens[:-1], x.dtype)
        return _sums_of_packed(x[0, ...], cu_seqlens, xp), counts[:, None]
    if lengths is None:
        return xp.sum(x, axis=1), xp.full((B, 1), L, dtype=x.dtype, device=device(x))
    valid = steps_within(lengths, L, xp)[..., None]
    return xp.sum(xp.where(valid, x, xp.zeros_like(x)), axis=1), xp.astype(lengths, x.dtype)[:, None]


def _sums_of_packed(x: Array, cu_seqlens: Array, xp: Namespace) -> Array:
    """Sums (n, H) of x (L, H) over packed sequences: a product with the matrix of who belongs where.

    0 times NaN is NaN, so what is not finite stays out of the product, and returns to its own sequence alone.
    """
    k = xp.arange(x.shape[0], device=device(x))
    bounds = xp.astype(cu_seqlens, k.dtype)[:, None]
    belongs = xp.astype((bounds[:-1, :] <= k) & (k < bounds[1:, :]), x.dtype)
    finite = xp.isfinite(x)
    sums = matmul(belongs, xp.where(finite, x, xp.zeros_like(x)), xp)
    broken = matmul(belongs, xp.astype(~finite, x.dtype), xp) > 0
    return xp.where(broken, xp.full_like(sums, float("nan")), sums)


def _last(x: Array, lengths: Array | None, cu_seqlens: Array | None, before: Array | None, xp: Namespace) -> Array:
    """x (B, L, H) at the last step of every sequence (B, H); where there is none, what was before."""
    n = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    if before is None:
        before = xp.zeros((n, x.shape[2]), dtype=x.dtype, device=device(x))
    if x.shape[1] == 0:
        return before
    if cu_seqlens is not None:
        ends = cu_seqlens[1:]
        found = xp.take(x[0, ...], xp.clip(ends - 1, 0), axis=0)
        return xp.where((ends > cu_seqlens[:-1])[:, None], found, before)
    if lengths is None:
        return x[:, -1, :]
    index = xp.clip(lengths - 1, 0)[:, None, None]
    index = xp.broadcast_to(index, (x.shape[0], 1, x.shape[2]))
    return xp.where(lengths[:, None] > 0, taken_along(x, index, 1)[:, 0, :], before)
