"""Causal convolution by FFT: linear, never circular."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .._arrays.dispatch import dispatched, is_open
from .._arrays.errors import ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    compute_dtype,
    device,
    floating,
    is_complex,
    is_half,
    namespace,
    require_arrays,
    to_complex,
)
from .._arrays.shapes import broadcast
from .._arrays.values import check_finite


def convolve(u: Array, k: Array, *, kernel_reverse: Array | None = None) -> Array:
    """The causal convolution of a signal with a kernel, and with an anti-causal one where given.

    y_t = sum_{j<=t} k_{t-j} u_j + sum_{j>t} r_{j-t-1} u_j,   r = kernel_reverse, whose first tap meets the next sample

    u               (..., L), real or complex
    k               (..., any length); taps beyond L meet nothing
    kernel_reverse  like k
    returns         (..., L) with leading axes broadcast; dtype what they promote to, half precision as u's

    Computed by FFTs padded to a fast length, so nothing wraps around. Raises ShapeError, DTypeError, DomainError (host
    values: NaN and inf, which an FFT spreads over all steps), MixedArraysError.

    >>> import numpy, ssm_core
    >>> ssm_core.convolve(numpy.asarray([1.0, 0.0, 2.0]), numpy.asarray([1.0, 0.5, 0.25])).round(12) + 0
    array([1.  , 0.5 , 2.25])
    """
    y = convolved(u, k, kernel_reverse=kernel_reverse)
    check_finite("convolve", namespace("convolve", u=u), u=u, k=k, kernel_reverse=kernel_reverse)
    return y


def convolved(u: Array, k: Array, *, kernel_reverse: Array | None = None) -> Array:
    """`convolve` without a check of values."""
    signals = {"u": u, "k": k} | ({} if kernel_reverse is None else {"kernel_reverse": kernel_reverse})
    require_arrays("convolve", **signals)
    xp = namespace("convolve", **signals)
    floating("convolve", **signals)
    for name, x in signals.items():
        if x.ndim == 0:
            raise ShapeError(f"convolve: {name} has no time axis ({describe(**signals)}).")
    batch = broadcast("convolve", **{name: x.shape[:-1] for name, x in signals.items()})
    dtype = compute_dtype(xp, *signals.values())
    half = is_half(u) and dtype == xp.float32
    taps = [x if x.shape[-1] else xp.zeros((*x.shape[:-1], 1), dtype=dtype, device=device(x)) for x in signals.values()]
    y = _convolve(*(xp.astype(x, dtype, copy=False) for x in taps))
    y = xp.broadcast_to(y, (*batch, u.shape[-1]))
    return xp.astype(y, u.dtype) if half else y


@dispatched
def _convolve(u: Array, k: Array, reverse: Array | None = None) -> Array:
    """One FFT of each; all of one dtype."""
    xp, length = namespace("convolve", u=u), u.shape[-1]
    if any(0 in x.shape for x in (u, k, reverse) if x is not None):  # not every FFT takes them
        return u * k[..., :1]
    spectrum, n = spectrum_of_taps(u, k, reverse, xp)
    transform, inverse = fft_pair(u, xp)
    return inverse(transform(u, n) * spectrum, n)[..., :length]


def spectrum_of_taps(u: Array, k: Array, reverse: Array | None, xp: Namespace) -> tuple[Array, int]:
    """That of a kernel, and the number of samples that signals like u are padded to."""
    length = u.shape[-1]
    k, reverse = _first(k, length), None if reverse is None else _first(reverse, max(length - 1, 0))
    n = padded_length(length, k.shape[-1], 0 if reverse is None else reverse.shape[-1], u)
    transform, _ = fft_pair(u, xp)
    spectrum = transform(k, n)
    if reverse is not None and reverse.shape[-1]:
        # Tap j of the anti-causal kernel acts at lag -(j + 1), which is index n - 1 - j of a period of n.
        gap = xp.zeros((*reverse.shape[:-1], n - reverse.shape[-1]), dtype=reverse.dtype, device=device(reverse))
        spectrum = spectrum + transform(xp.concat([gap, xp.flip(reverse, axis=-1)], axis=-1), n)
    return spectrum, n


def _first(taps: Array, count: int) -> Array:
    """The first taps, at most count of them."""
    return taps[..., : min(count, taps.shape[-1])]


def convolve_matrix(u: Array, k: Array, xp: Namespace) -> Array:
    """y_m = sum_p k_mp * u_p for u (..., P, L) and k (..., M, P, L): (..., M, L)."""
    dtype = compute_dtype(xp, u, k)
    u, k = xp.astype(u, dtype, copy=False), xp.astype(k, dtype, copy=False)
    length = u.shape[-1]
    if 0 in u.shape or 0 in k.shape:  # not every FFT takes them
        return xp.sum(u[..., None, :, :] * k[..., :1], axis=-2)
    n = padded_length(length, k.shape[-1], 0, u)
    transform, inverse = fft_pair(u, xp)
    spectrum = xp.sum(transform(k, n) * transform(u, n)[..., None, :, :], axis=-2)
    return inverse(spectrum, n)[..., :length]


@dispatched
def fft_pair(u: Array, xp: Namespace) -> Any:
    """The pair (forward, inverse) of FFTs over the last axis, real where u is."""
    if is_complex(u):
        return (lambda x, n: xp.fft.fft(to_complex(x, xp), n=n)), (lambda x, n: xp.fft.ifft(x, n=n))
    return (lambda x, n: xp.fft.rfft(x, n=n)), (lambda x, n: xp.fft.irfft(x, n=n))


def slabs(shape: tuple[int, ...], rows: int) -> Iterator[tuple[slice, ...]]:
    """Slices of the leading axes of a shape that cut it into slabs of at most so many rows; () is all of it.

    >>> list(slabs((2, 3), 2))[:2]
    [(slice(0, 1, None), slice(0, 2, None)), (slice(0, 1, None), slice(2, 4, None))]
    """
    if math.prod(shape) <= rows:
        yield ()
        return
    step = max(1, rows // math.prod(shape[1:]))
    for start in range(0, shape[0], step):
        for inner in slabs(shape[1:], rows) if step == 1 else [()]:
            yield (slice(start, start + step), *inner)


def part(x: Array, slab: tuple[slice, ...], rank: int) -> Array:
    """What x (..., n), broadcast to `rank` axes before the last, has in a slab: x itself in all of it."""
    if not slab:
        return x
    missing = rank + 1 - x.ndim
    return x[tuple(s if n > 1 else slice(None) for s, n in zip(slab[missing:], x.shape[:-1], strict=False))]


def padded_length(length: int, taps: int, reverse_taps: int, like: Array) -> int:
    """The shortest fast FFT length at which the first `length` outputs are free of wrap-around.

    Of numbers that a trace does not know it takes their sum, which is never too short.
    """
    if is_open(like, length) or is_open(like, taps):
        return length + taps + reverse_taps
    return fast_length(max(length + taps - 1, length + reverse_taps))


def fast_length(n: int) -> int:
    """The smallest even 2^a 3^b 5^c that is at least n.

    >>> fast_length(97), fast_length(1025)
    (100, 1080)
    """
    best = 2 ** max(1, (n - 1).bit_length())
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            twos = threes * 2
            while twos < n:
                twos *= 2
            best = min(best, twos)
            threes *= 3
        fives *= 5
    return best
