"""Recursive filters y = (b/a) u by the difference equation, in blocks of T steps.

    w_k = u_k - sum_{j>=1} a_j w_{k-j},   y_k = sum_i b_i w_{k-i}

In a block the first equation is L w = r: L is the lower triangular Toeplitz matrix of a, and r is u less what the
values before the block give. With G = L^-1, the Toeplitz matrix of the first taps of 1/a,

    w = G r,   then   w <- w + G (r - L w)

Powers of a companion matrix, and products with many taps of 1/a, leave roundings as large as their largest entries;
a filter of clustered poles near the circle magnifies those by 1e10 and more, block after block. The second line takes
them back: what remains are roundings of a_j w_{k-j}, those of the recurrence itself (Skeel 1980 on one step of
iterative refinement). A block is short enough for G to be far from singular in floating point.
"""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.dispatch import dispatched, is_open
from .._arrays.idioms import matmul, moved, padded
from .._arrays.library import Array, Namespace, device, namespace
from .._arrays.sizes import chunked, unchunked
from ..recurrences.fold import in_chunks
from .modes.chunk import toeplitz_transposed

BLOCK = 32
BLOCK_WITH_RESETS = 8  # whose products have a mask an entry


class Blocks(NamedTuple):
    """Matrices of a block of T steps after `order` values: G^T (..., T, T), and of a and b (..., order + T, T)."""

    inverse: Array
    denominator: Array
    numerator: Array | None

    def first(self, steps: int) -> Blocks:
        """Those of a shorter block."""
        order = self.denominator.shape[-2] - self.inverse.shape[-1]
        of_values = (None if m is None else m[..., : order + steps, :steps] for m in self[1:])
        return Blocks(self.inverse[..., :steps, :steps], *of_values)


def blocks_of(denominator: Array, numerator: Array | None, order: int, steps: int, xp: Namespace) -> Blocks:
    """From coefficients (..., m), a_0 = 1, and (..., n), with m - 1 <= order and n <= order + 1."""
    taps = reciprocal(denominator[..., : min(steps, denominator.shape[-1])], steps, xp)
    inverse = toeplitz_transposed(taps, xp)
    matrices = (None if c is None else _after_values(c, order, steps, xp) for c in (denominator, numerator))
    return Blocks(inverse, *matrices)


def _after_values(c: Array, order: int, steps: int, xp: Namespace) -> Array:
    """The matrix of c * w at the steps of a block, for rows (values before it, w): (..., order + steps, steps)."""
    return toeplitz_transposed(padded(c, order + steps, xp), xp)[..., order:]


def reciprocal(a: Array, length: int, xp: Namespace) -> Array:
    """The first taps of 1/a, a_0 = 1, by the recurrence: (..., length)."""
    newest = xp.ones_like(a[..., :1])
    taps, window = [newest], padded(newest, max(a.shape[-1] - 1, 1), xp)
    tail = padded(a, max(a.shape[-1], 2), xp)[..., 1:]
    for _ in range(length - 1):
        newest = -xp.sum(tail * window, axis=-1, keepdims=True)
        window = xp.concat([newest, window[..., :-1]], axis=-1)
        taps.append(newest)
    return xp.concat(taps, axis=-1)


@dispatched
def _ratio(r: Array, a: Array) -> Array:
    """The first entries of r/a, a_0 = 1, by the recurrence: (..., L) of r (..., L) and a (..., m).

    It is w with a * w = r, so dw = (dr - da * w)/a, and of a gradient g of w, with l = g/a backward in time,
    dr = l and da_j = -sum_k l_k w_{k-j}: fused ones have that instead of the derivatives of the recurrence.
    """
    xp = namespace("ratio", r=r)
    before = xp.zeros((*r.shape[:-1], 1, a.shape[-1] - 1), dtype=r.dtype, device=device(r))
    return recursive_filter(r[..., None, :], a, None, before, xp)[0][..., 0, :]


def recursive_filter(
    u: Array, denominator: Array, numerator: Array | None, before: Array, xp: Namespace, *, reset: Array | None = None
) -> tuple[Array, Array, Array]:
    """y and w (..., R, L), and the last values of w (..., R, order), for R signals u (..., R, L) a filter.

    denominator  (..., m), a_0 = 1
    numerator    (..., n), or None: y = w
    before       (..., R, order), the values of w before, the oldest first; order >= m - 1, n - 1
    reset        bool (..., R, L) or None: all values before that step count as zero
    """
    L, order = u.shape[-1], before.shape[-1]
    if is_open(u, L):
        return _unknown_blocks(u, denominator, numerator, before, xp, reset)
    T = min(BLOCK if reset is None else BLOCK_WITH_RESETS, L)
    blocks = blocks_of(denominator, numerator, order, T, xp)
    whole = L - L % T
    values, outputs = before, []
    for start, stop, steps in ((0, whole, T), (whole, L, L - whole)):
        if start == stop:
            continue
        signals = {"u": u, "reset": reset}
        parts = {n: None if x is None else _cut(x[..., start:stop], steps, xp) for n, x in signals.items()}
        found, values = _run(blocks.first(steps), parts, values, xp)
        outputs.append(xp.reshape(found, (*found.shape[:-2], stop - start)))
    both = xp.concat(outputs, axis=-1) if len(outputs) > 1 else outputs[0]
    return both[0, ...], both[-1, ...], values


def _unknown_blocks(
    u: Array, denominator: Array, numerator: Array | None, before: Array, xp: Namespace, reset: Array | None
) -> tuple[Array, Array, Array]:
    """The same for a length that a trace does not know: the blocks continue into zeros, where nothing is read."""
    L, order, T = u.shape[-1], before.shape[-1], BLOCK if reset is None else BLOCK_WITH_RESETS
    blocks = blocks_of(denominator, numerator, order, T, xp)
    signals = {"u": u, "reset": reset}
    parts = {n: None if x is None else chunked(x, -1, xp, T) for n, x in signals.items()}
    found, _ = _run(blocks, parts, before, xp)
    both = unchunked(found, L, -2, xp)
    k = xp.arange(order, device=device(u)) + L
    last = xp.concat([before, both[-1, ...]], axis=-1)[..., k]
    if reset is not None:
        count = xp.cumulative_sum(xp.astype(reset, xp.int32), axis=-1)
        count = xp.concat([xp.zeros((*count.shape[:-1], order), dtype=count.dtype, device=device(u)), count], axis=-1)
        last = xp.where(count[..., k] == count[..., -1:], last, xp.zeros_like(last))
    return both[0, ...], both[-1, ...], last


def _cut(x: Array, steps: int, xp: Namespace) -> Array:
    return xp.reshape(x, (*x.shape[:-1], x.shape[-1] // steps, steps))


def _run(blocks: Blocks, signals: dict[str, Array | None], values: Array, xp: Namespace) -> tuple[Array, Array]:
    """Blocks one after another: (y, w) or (w,) along a first axis (., ..., R, A, T), and the values after them."""
    order, axis = values.shape[-1], values.ndim - 1

    def body(values: Array, v: dict[str, Array]) -> tuple[Array, Array]:
        blocks = Blocks(v["inverse"], v["denominator"], v.get("numerator"))
        u, segment = v["u"][0, ...], None
        if "reset" in v:
            own = xp.cumulative_sum(xp.astype(v["reset"][0, ...], xp.int32), axis=-1)
            segment = xp.concat([xp.zeros((*own.shape[:-1], order), dtype=own.dtype, device=device(own)), own], axis=-1)
        w = _solved(blocks, u, values, segment, xp)
        joined = xp.concat([values, w], axis=-1)
        after = joined[..., joined.shape[-1] - order :]
        if segment is not None:
            kept = segment[..., segment.shape[-1] - order :] == segment[..., -1:]
            after = xp.where(kept, after, xp.zeros_like(after))
        found = [w] if blocks.numerator is None else [_times(joined, blocks.numerator, segment, xp), w]
        return after, xp.stack(found, axis=0)[None, ...]

    in_order = {name: None if x is None else moved(x, axis, 0, xp) for name, x in signals.items()}
    found, values = in_chunks(body, values, in_order, blocks._asdict(), axis=0, chunk=1)
    return moved(found, 0, -2, xp), values


def _solved(blocks: Blocks, u: Array, values: Array, segment: Array | None, xp: Namespace) -> Array:
    """w (..., R, T) of one block, refined once."""
    order = values.shape[-1]
    own = None if segment is None else segment[..., order:]
    r = u
    if order:
        rows = blocks.denominator[..., :order, :]
        r = u - (matmul(values, rows, xp) if own is None else _times(values, rows, segment, xp))
    w = _times(r, blocks.inverse, own, xp)
    rest = r - _times(w, blocks.denominator[..., order:, :], own, xp)
    rest = xp.where(xp.isfinite(rest), rest, xp.zeros_like(rest))  # of a response that overflows
    return w + _times(rest, blocks.inverse, own, xp)


def _times(x: Array, matrix: Array, segment: Array | None, xp: Namespace) -> Array:
    """Rows x (..., R, J) times a matrix (..., J, T), over those j that are in the segment of t.

    segment (..., R, S) is that of all steps: x has its first J, the result its last T.
    """
    if segment is None:
        return matmul(x, matrix, xp)
    J, T = matrix.shape[-2:]
    same = segment[..., :J, None] == segment[..., None, segment.shape[-1] - T :]
    return xp.sum(xp.where(same, x[..., None], xp.zeros_like(x[..., None])) * matrix[..., None, :, :], axis=-2)
