"""Quotients of power series by their recurrence, with the adjoint by hand.

Of w = r/a, a * w = r, with a gradient g of w: l = g/conj(a) backward in time, dr = l, da_j = -sum_k l_k conj(w_{k-j}).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssm_core.backends import numpy as on_the_host
from ssm_core.time_invariant.recursive import _ratio

from .transforms import forward_mode, in_full_precision, transformed

BLOCK = 32  # steps of a block of the sums over time


@in_full_precision
def ratio(r: Tensor, a: Tensor) -> Any:
    """Fused `ssm_core.time_invariant.recursive._ratio`."""
    if torch.compiler.is_compiling() or transformed(r) or forward_mode() or r.dtype != a.dtype or 0 in r.shape:
        return NotImplemented
    return _Ratio.apply(r, a)


class _Ratio(torch.autograd.Function):
    """w (..., L) of r (..., L) and a (..., m)."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, a: Tensor) -> Tensor:
        w = _by_recurrence(r, a)
        ctx.save_for_backward(r, a, w)
        return w

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None]:
        r, a, w = ctx.saved_tensors
        if transformed(g):
            return _of_the_recurrence(r, a, g)
        slope: Tensor = _ratio(g.flip(-1), a.conj().resolve_conj()).flip(-1)
        return slope, -_lagged(slope, w, a.shape[-1]) if ctx.needs_input_grad[1] else None


def _of_the_recurrence(r: Tensor, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of the generic body, for a batch of gradients."""
    with torch.enable_grad():
        leaves = r.view_as(r), a.view_as(a)
        leaves = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in leaves)
        w = _ratio(*leaves, backend="generic")
    of_r, of_a = torch.autograd.grad(w, leaves, g, create_graph=torch.is_grad_enabled())
    return of_r, of_a


def _by_recurrence(r: Tensor, a: Tensor) -> Tensor:
    if r.device.type != "cpu":
        return _ratio(r, a, backend="generic")
    return torch.from_numpy(on_the_host.ratio(*(x.detach().resolve_conj().resolve_neg().numpy() for x in (r, a))))


def _lagged(x: Tensor, y: Tensor, m: int) -> Tensor:
    """sum_k x_k conj(y_{k-j}) for j = 0..m-1: (..., m) of x and y (..., L), by products of blocks of steps.

    Step s of a block of x meets the m - 1 + BLOCK steps of y up to the end of the block: its lags are a diagonal.
    """
    L = x.shape[-1]
    count = -(-L // BLOCK)
    x = torch.nn.functional.pad(x, (0, count * BLOCK - L)).unflatten(-1, (count, BLOCK))
    y = torch.nn.functional.pad(y, (m - 1, count * BLOCK - L)).unfold(-1, m - 1 + BLOCK, BLOCK)
    sums = torch.matmul(x.transpose(-1, -2), y.conj())  # (..., BLOCK, m - 1 + BLOCK)
    turned = torch.nn.functional.pad(sums.flatten(-2), (0, BLOCK)).unflatten(-1, (BLOCK, -1))  # row s by s places
    return turned[..., :m].sum(-2).flip(-1)
