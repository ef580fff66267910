"""The short causal convolution of every channel with a filter of its own, with the last inputs as its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._arrays.dispatch import dispatched, is_open
from .._arrays.errors import ShapeError, describe
from .._arrays.idioms import taken_along
from .._arrays.library import (
    Array,
    Namespace,
    compute_dtype,
    device,
    in_dtype_of,
    namespace,
    owned,
    real_floating,
    require_arrays,
)
from .._arrays.numbers import flag
from .._arrays.values import check_finite
from ..recurrences.broken import finite_part, known_finite, nan_where
from ..recurrences.segments import Segments, Signals, checked_segments
from ..recurrences.shards import reached
from ..recurrences.summaries import Sliding, Together, sliding


def causal_conv1d(
    u: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
) -> Array | tuple[Array, Array]:
    """Every channel convolved with its own K taps: the short convolution before a selective scan.

    y_k = bias + sum_j weight_j u_{k-K+1+j},   j = 0 .. K-1: the last tap meets the input of the same step

    u           (batch, H, L), real
    weight      (H, K)
    bias        (H,)
    initial     the K - 1 inputs before the first, oldest first (batch, H, K - 1); zero if None
    reset       bool (batch, L): what came before that step counts as zero from there on
    lengths     integer (batch,): the state is that at the length; y beyond is unspecified
    cu_seqlens  integer (n + 1,) with batch 1: n sequences packed one after another; states (n, H, K - 1)
    returns     y (batch, H, L) in u's dtype, with return_state (y, the last K - 1 inputs (batch, H, K - 1))

    Half precision is computed in float32. Raises ShapeError, DTypeError, DomainError and MixedArraysError.
    Source: Gu and Dao, Mamba, 2023, https://arxiv.org/abs/2312.00752.

    >>> import numpy, ssm_core
    >>> ssm_core.causal_conv1d(numpy.asarray([[[1.0, 2.0, 3.0]]]), numpy.asarray([[10.0, 1.0]]))
    array([[[ 1., 12., 23.]]])
    """
    operation = "causal_conv1d"
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    given = {name: x for name, x in {"bias": bias, "initial": initial, **masks}.items() if x is not None}
    require_arrays(operation, u=u, weight=weight, **given)
    xp = namespace(operation, u=u, weight=weight, **given)
    real_floating(operation, u=u, weight=weight, bias=bias, initial=initial)
    return_state = flag(operation, return_state=return_state)
    shapes = describe(u=u, weight=weight, **given)
    if u.ndim != 3:
        raise ShapeError(f"{operation}: u must be (batch, H, L) ({shapes}).")
    batch, H, L = u.shape
    if weight.ndim != 2 or weight.shape[0] != H or weight.shape[1] < 1:
        raise ShapeError(f"{operation}: weight must be ({H}, K), K taps for each channel of u ({shapes}).")
    segments = checked_segments(operation, shapes, (batch,), L, **masks)
    wanted = {"bias": (H,), "initial": (segments.count(batch), H, weight.shape[1] - 1)}
    for name, shape in wanted.items():
        if name in given and tuple(given[name].shape) != shape:
            raise ShapeError(f"{operation}: {name} must be {shape} ({shapes}).")
    signal, u = u, segments.masked(u, -1, xp)
    u, initial, unknown = _finite_inputs(segments, u, initial, xp)
    check_finite(operation, xp, u=u, weight=weight, bias=bias, initial=initial)
    dtype = compute_dtype(xp, u, weight, bias, initial)
    x, w, b, before = (None if v is None else xp.astype(v, dtype, copy=False) for v in (u, weight, bias, initial))

    def run(signals: Signals, before: Array | None, segments: Segments) -> tuple[Array, Array]:
        return short_convolution(segments.masked(signals["u"], 1, xp), w, b, before, segments, xp)

    y, state = segments.run(operation, run, {"u": xp.permute_dims(x, (0, 2, 1))}, before, axis=1, apart=return_state)
    if unknown is not None:  # an output is, with any of the inputs it sees
        w, b = xp.ones_like(w), None
        x, before = (None if v is None else xp.astype(v, dtype) for v in unknown)
        seen = segments.run(operation, run, {"u": xp.permute_dims(x, (0, 2, 1))}, before, axis=1, apart=return_state)
        y, state = (v + nan_where(n > 0, v, xp) for v, n in zip((y, state), seen, strict=True))
    y = in_dtype_of(signal, xp.permute_dims(y, (0, 2, 1)), xp)
    return (y, state) if return_state else y


def _finite_inputs(segments: Segments, u: Array, initial: Array | None, xp: Namespace) -> Any:
    """u and initial, finite where something keeps sequences apart; and where they were not, None if they were.

    Of other inputs no output sees what it is not made of.
    """
    if not segments.cut or known_finite(u, initial):
        return u, initial, None
    where = tuple(None if x is None else ~xp.isfinite(x) for x in (u, initial))
    return finite_part(u, xp), finite_part(initial, xp), where


def short_convolution(
    u: Array, weight: Array, bias: Array | None, before: Array | None, segments: Segments, xp: Namespace
) -> tuple[Array, Array]:
    """y (batch, L, H) of u (batch, L, H), features last, and the state (batch, H, K - 1)."""
    if segments.shards is not None:
        (y,), (last,) = short_convolutions(((u, weight, bias, before),), segments, xp)
        return y, last
    (batch, L, H), reset, lengths = u.shape, segments.reset, segments.lengths
    n = weight.shape[1] - 1
    if before is None:
        before = xp.zeros((batch, H, n), dtype=u.dtype, device=device(u))
    before = xp.permute_dims(before, (0, 2, 1))
    segment = None
    if reset is not None:  # inputs are seen by the steps of their own segment
        count = xp.cumulative_sum(xp.astype(reset, xp.int32), axis=1)
        segment = xp.concat([xp.zeros((batch, n), dtype=count.dtype, device=device(u)), count], axis=1)
    y = _causal_conv1d(u, weight, bias, before, segment)
    if lengths is None and is_open(u, L):
        lengths = xp.full((batch,), L, dtype=xp.int32, device=device(u))
    if lengths is None and n <= L:
        return y, last_inputs(u, None if segment is None else segment[:, n:], n, None, xp)
    return y, last_inputs(xp.concat([before, u], axis=1), segment, n, lengths, xp)


def short_convolutions(
    each: Sequence[tuple[Array, Array, Array | None, Array | None]], segments: Segments, xp: Namespace
) -> tuple[list[Array], list[Array]]:
    """`short_convolution` of several (u, weight, bias, before), which between processes is one message."""
    firsts = lasts = None
    if segments.shards is not None:
        shards, segments = segments.shards, segments.alone()
        own = Together(tuple(_last_of_shard(u, weight.shape[1] - 1, segments, xp) for u, weight, _, _ in each))
        firsts, lasts = shards.enter(own, tuple(before for *_, before in each), [u for u, *_ in each])
        each = [(u, weight, bias, first) for (u, weight, bias, _), first in zip(each, firsts, strict=True)]
    found = [short_convolution(*one, segments, xp) for one in each]
    if lasts is None:
        return [y for y, _ in found], [last for _, last in found]
    return [reached(y, firsts) for y, _ in found], list(lasts)


def _last_of_shard(u: Array, n: int, segments: Segments, xp: Namespace) -> Sliding:
    """What the steps of u make of the n inputs before them."""
    batch, _, H = u.shape
    segment = None
    if segments.reset is not None:
        count = xp.cumulative_sum(xp.astype(segments.reset, xp.int32), axis=1)
        segment = xp.concat([xp.zeros((batch, n), dtype=count.dtype, device=device(u)), count], axis=1)
    zeros = xp.zeros((batch, n, H), dtype=u.dtype, device=device(u))
    return sliding(last_inputs(xp.concat([zeros, u], axis=1), segment, n, segments.lengths, xp), segments, 2, xp)


@dispatched
def _causal_conv1d(u: Array, weight: Array, bias: Array | None, before: Array, segment: Array | None) -> Array:
    """y (batch, L, H) of u and the n inputs before it (batch, n, H), segment (batch, n + L) or None.

    The first n steps see the inputs before u; the others take them from u itself, without a copy of it.
    """
    xp, n, L = namespace("causal_conv1d", u=u), before.shape[1], u.shape[1]
    if is_open(u, L):
        return _weighted(xp.concat([before, u], axis=1), segment, weight, bias, xp)
    y = _weighted(xp.concat([before, u[:, : min(n, L), :]], axis=1), segment, weight, bias, xp)
    if n == 0 or n >= L:
        return y if n else _weighted(u, segment, weight, bias, xp)
    rest = _weighted(u, None if segment is None else segment[:, n:], weight, bias, xp)
    return xp.concat([y, rest], axis=1)


def _weighted(x: Array, segment: Array | None, weight: Array, bias: Array | None, xp: Namespace) -> Array:
    """The steps of x (batch, n + T, H) but for its first n, which are only seen; segment (batch, n + T) or longer."""
    n = weight.shape[1] - 1
    T = x.shape[1] - n
    y: Any = weight[:, n] * x[:, n:, :]
    y = y if bias is None else y + bias
    for j in range(n):
        shifted = x[:, j : j + T, :]
        if segment is not None:
            same = segment[:, j : j + T] == segment[:, n : n + T]
            shifted = xp.where(same[..., None], shifted, xp.zeros_like(shifted))
        y = y + weight[:, j] * shifted
    return y


def last_inputs(x: Array, segment: Array | None, n: int, lengths: Array | None, xp: Namespace) -> Array:
    """The n inputs up to the end (or the length) of every sequence, zero where a reset lies between: (batch, H, n)."""
    if n == 0:
        return xp.permute_dims(x[:, :0, :], (0, 2, 1))
    total = x.shape[1]
    if lengths is None:
        last, of = x[:, total - n :, :], None if segment is None else segment[:, total - n :]
    else:
        k = xp.arange(n, device=device(x))
        index = xp.astype(lengths, k.dtype)[:, None] + k
        wide = xp.broadcast_to(index[..., None], (*index.shape, x.shape[2]))
        last = taken_along(x, wide, 1)
        of = None if segment is None else taken_along(segment, index, 1)
    if of is not None:
        last = xp.where((of == of[:, -1:])[..., None], last, xp.zeros_like(last))
    return xp.permute_dims(last, (0, 2, 1))


def short_stepper(weight: Array, bias: Array | None, xp: Namespace) -> Callable[[Array, Array], tuple[Array, Array]]:
    """A function (u_t (batch, H), state) -> (y_t, state) of the same convolution."""

    def step(u: Array, before: Array) -> tuple[Array, Array]:
        window = xp.concat([before, u[..., None]], axis=-1)
        y = xp.sum(weight * window, axis=-1)
        return (y if bias is None else y + bias), owned(window[..., 1:])

    return step
