"""The FFT convolution with a backward of its own: three transforms, and no padded copies of signals in between.

On a CPU real signals go slab by slab: the C library returns large arrays to the system at once, and to get new ones,
page by page, takes longer than to transform them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssm_core.functions.convolution import padded_length, part, slabs

from .transforms import conjugated, forward_mode, reduced, transformed

SHORTEST_CONVOLUTION = 8  # steps from which the FFT beats the recurrence: benchmarks "modes-*"
SLAB = 2**19  # numbers that a thread transforms at once: more fall out of its cache, fewer are slowed by the calls


def convolve(u: Tensor, k: Tensor, reverse: Tensor | None = None) -> Tensor:
    """Fused `ssm_core.functions.convolution._convolve`, for real signals."""
    if u.is_complex() or any(0 in x.shape for x in (u, k, reverse) if x is not None):
        return NotImplemented
    if torch.compiler.is_compiling() and forward_mode():
        return NotImplemented  # the traced function has no tangents
    function = _Convolve if torch.compiler.is_compiling() else _ConvolveForward
    return function.apply(u, k, reverse)


def shortest_convolution(u: Tensor) -> int:
    return SHORTEST_CONVOLUTION


def _spectrum(k: Tensor, reverse: Tensor | None, n: int) -> Tensor:
    """Tap j of the anti-causal kernel acts at lag -(j + 1), which is index n - 1 - j of a period of n."""
    spectrum = torch.fft.rfft(k, n)
    if reverse is None:
        return spectrum
    return spectrum + torch.fft.rfft(torch.nn.functional.pad(reverse.flip(-1), (n - reverse.shape[-1], 0)), n)


def _slabs(batch: torch.Size, n: int, x: Tensor) -> Iterator[tuple[slice, ...]]:
    """Of rows of n samples. All at once on a GPU, batched, traced, or recorded to be differentiated again."""
    whole = x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed(x)
    return iter([()]) if whole else slabs(batch, max(1, SLAB * min(torch.get_num_threads(), 8) // n))


def _gathered(total: Any, x: Tensor, shape: tuple[int, ...], slab: tuple[slice, ...], batch: torch.Size) -> Any:
    """The total (None before the first slab) with x, a slab of the batch, in its place: summed where they share it."""
    if not slab:
        return reduced(x, shape)
    apart = shape[:-1] == batch
    if total is None:
        total = x.new_empty(shape) if apart else x.new_zeros(shape)
    rows = part(total, slab, len(batch))
    if apart:
        rows.copy_(x)
    else:
        rows.add_(reduced(x, rows.shape))
    return total


class _Convolve(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, k: Tensor, reverse: Tensor | None) -> Tensor:
        length = u.shape[-1]
        n = padded_length(length, k.shape[-1], 0 if reverse is None else reverse.shape[-1], u)
        spectrum = _spectrum(k, reverse, n)
        batch = torch.broadcast_shapes(u.shape[:-1], spectrum.shape[:-1])
        y: Any = None
        rank = len(batch)
        for slab in _slabs(batch, n, u):
            U = torch.fft.rfft(part(u, slab, rank), n)
            rows = torch.fft.irfft(U * part(spectrum, slab, rank), n)[..., :length]
            y = _gathered(y, rows, (*batch, length), slab, batch)
        return y.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Correlations: the spectrum of the gradient times the conjugate of the other factor's."""
        u, k, reverse = ctx.saved_tensors
        length, taps, back = u.shape[-1], k.shape[-1], 0 if reverse is None else reverse.shape[-1]
        n = padded_length(length, taps, back, u)
        spectrum = _spectrum(k, reverse, n).conj() if ctx.needs_input_grad[0] else None
        batch = grads[0].shape[:-1]
        kernels = torch.broadcast_shapes(*(x.shape[:-1] for x in (k, reverse) if x is not None))
        rank = len(batch)
        grad_u = grad_k = grad_reverse = products = None
        for slab in _slabs(batch, n, grads[0]):
            G = torch.fft.rfft(part(grads[0], slab, rank), n)
            if spectrum is not None:
                rows = torch.fft.irfft(G * part(spectrum, slab, rank), n)[..., :length]
                grad_u = _gathered(grad_u, rows, u.shape, slab, batch)
            if any(ctx.needs_input_grad[1:]):
                product = conjugated(torch.fft.rfft(part(u, slab, rank), n)) * G
                products = _gathered(products, product, (*kernels, G.shape[-1]), slab, batch)
        if products is not None:
            lags = torch.fft.irfft(products, n)
            grad_k = reduced(lags[..., :taps], k.shape)
            grad_reverse = None if reverse is None else reduced(lags[..., n - back :].flip(-1), reverse.shape)
        return grad_u, grad_k, grad_reverse


class _ConvolveForward(_Convolve):
    """With forward mode too, which torch.compile cannot trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        u, k, reverse = ctx.saved_tensors
        du, dk, dreverse = tangents
        total = torch.zeros_like(_Convolve.apply(u, k, reverse)) if du is None else _Convolve.apply(du, k, reverse)
        if dk is not None:
            total = total + _Convolve.apply(u, dk, None)
        if dreverse is not None:
            total = total + _Convolve.apply(u, torch.zeros_like(k), dreverse)
        return total
