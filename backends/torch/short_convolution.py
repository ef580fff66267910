"""The short causal convolution on a CPU, some steps at a time, which stay in the cache for all taps.

Its backward is the convolution of the gradients with the taps in reverse, zeros around them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d

from ssm_core.functions.short_convolution import _causal_conv1d

from .transforms import forward_mode, in_full_precision, transformed

PIECE = 2**17  # numbers


@in_full_precision
def causal_conv1d(u: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor, segment: Tensor | None) -> Any:
    """Fused `ssm_core.functions.short_convolution._causal_conv1d`; where steps lie side by side, PyTorch's own."""
    alike = all(x is None or x.dtype == u.dtype for x in (weight, bias, before))
    plain = alike and segment is None and 0 not in u.shape and 1 in u.stride()[1:] and u.device.type == "cpu"
    if not plain or torch.compiler.is_compiling() or transformed(u) or forward_mode():
        return NotImplemented
    if u.stride(2) == 1:
        return _Convolution.apply(u, weight, bias, before)
    return conv1d(torch.cat([before.mT, u.mT], dim=-1), weight[:, None], bias, groups=len(weight)).mT


class _Convolution(torch.autograd.Function):
    """y (batch, L, H) of (u, weight, bias, before)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor) -> Tensor:
        ctx.save_for_backward(u, weight, bias, before)
        return _weighted(u, before, weight.mT.contiguous(), bias, u.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        inputs, (dy,) = ctx.saved_tensors, grads
        if torch.is_grad_enabled() or transformed(dy):
            return _differentiable(inputs, ctx.needs_input_grad, dy)
        u, weight, bias, before = inputs
        dy = dy.contiguous()  # of a transposed y it has time last
        n = before.shape[1]
        dx = _weighted(dy, torch.zeros_like(before), weight.mT.flip(0), None, n + u.shape[1])
        dtaps = _gradient_of_taps(u, before, dy) if ctx.needs_input_grad[1] else None
        dbias = None if bias is None else dy.sum((0, 1))
        return dx[:, n:], None if dtaps is None else dtaps.mT, dbias, dx[:, :n]


def _pieces(x: Tensor, steps: int) -> Iterator[tuple[int, int, int]]:
    """Rows of the batch, and the beginnings and ends of pieces of so many steps in all."""
    at_once = max(1, PIECE // x.shape[2])
    for row in range(len(x)):
        for start in range(0, steps, at_once):
            yield row, start, min(start + at_once, steps)


def _window(x: Tensor, before: Tensor, start: int, stop: int) -> Tensor:
    """Steps of x (L, H) with those before it, counted from the first of these, and zeros behind."""
    n = len(before)
    found = x[max(start - n, 0) : max(stop - n, 0)]
    if len(found) == stop - start:
        return found
    early = before[start:stop]
    return torch.cat([early, found, x.new_zeros((stop - start - len(early) - len(found), x.shape[1]))])


def _weighted(x: Tensor, before: Tensor, taps: Tensor, bias: Tensor | None, steps: int) -> Tensor:
    """sum_j taps_j x_{k + j - n} for so many steps k, of taps (n + 1, H)."""
    n = len(taps) - 1
    y = x.new_empty((len(x), steps, x.shape[2]))
    for row, start, stop in _pieces(x, steps):
        window, out = _window(x[row], before[row], start, stop + n), y[row, start:stop]
        torch.mul(window[n:], taps[n], out=out)
        for j in range(n):
            out.addcmul_(window[j : j + stop - start], taps[j])
        if bias is not None:
            out += bias
    return y


def _gradient_of_taps(x: Tensor, before: Tensor, dy: Tensor) -> Tensor:
    n = before.shape[1]
    found = x.new_zeros((n + 1, x.shape[2]))
    for row, start, stop in _pieces(x, x.shape[1]):
        window, slopes = _window(x[row], before[row], start, stop + n), dy[row, start:stop]
        for j in range(n + 1):
            found[j] += (window[j : j + stop - start] * slopes).sum(0)
    return found


def _differentiable(inputs: Any, needed: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients by the generic body, which can be differentiated again."""
    with torch.enable_grad():
        u, weight, bias, before = (x.view_as(x) if n else x for x, n in zip(inputs, needed, strict=True))
        y = _causal_conv1d(u, weight, bias, before, None, backend="generic")
        wanted = [x for x, n in zip((u, weight, bias, before), needed, strict=True) if n]
        found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, materialize_grads=True))
    return tuple(next(found) if n else None for n in needed)
