"""The FFT convolution with a backward of its own: three transforms, and no padded copies of signals in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssm_core.convolution import padded_length

from .transforms import conjugated, forward_mode, reduced

SHORTEST_CONVOLUTION = 8  # steps from which the FFT beats the recurrence: benchmarks "modes-*"


def convolve(u: Tensor, k: Tensor, reverse: Tensor | None = None) -> Tensor:
    """The twin of `ssm_core.convolution._convolve`, for real signals."""
    if u.is_complex() or 0 in (*u.shape, *k.shape) or (reverse is not None and reverse.shape[-1] == 0):
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


class _Convolve(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, k: Tensor, reverse: Tensor | None) -> Tensor:
        length = u.shape[-1]
        n = padded_length(length, k.shape[-1], 0 if reverse is None else reverse.shape[-1])
        return torch.fft.irfft(torch.fft.rfft(u, n) * _spectrum(k, reverse, n), n)[..., :length].contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Correlations: the spectrum of the gradient times the conjugate of the other factor's."""
        u, k, reverse = ctx.saved_tensors
        length, taps, back = u.shape[-1], k.shape[-1], 0 if reverse is None else reverse.shape[-1]
        n = padded_length(length, taps, back)
        G = torch.fft.rfft(grads[0], n)
        grad_u = grad_k = grad_reverse = None
        if ctx.needs_input_grad[0]:
            grad_u = reduced(torch.fft.irfft(G * _spectrum(k, reverse, n).conj(), n)[..., :length], u.shape)
        if any(ctx.needs_input_grad[1:]):
            product = conjugated(torch.fft.rfft(u, n)) * G
            lags = torch.fft.irfft(reduced(product, (*k.shape[:-1], product.shape[-1])), n)
            grad_k = lags[..., :taps]
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
