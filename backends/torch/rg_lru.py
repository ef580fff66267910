"""The gates of RG-LRU on a CPU, some steps at a time, which stay in the cache through all of their functions.

With s = sigmoid(r), log a = s m for the strongest m, the share p = sqrt(1 - a^2), o = sigmoid(i) and the drive p o x,
the adjoint of gate and drive is

    dx = p o ddrive,   di = dx x (1 - o),   dlog a = a dgate - a^2/p o x ddrive,   dr = m s (1 - s) dlog a

with 0 for a^2/p where p = 0, and dm = sum s dlog a. Where a sequence begins the gate is 0 and p is 1: no dlog a.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssm_core.gated.rg_lru import _driven

from .transforms import forward_mode, in_full_precision, transformed

PIECE = 2**15  # numbers


@in_full_precision
def driven(x: Tensor, input_gate: Tensor, recurrent_gate: Tensor, strongest: Tensor, begins: Tensor) -> Any:
    """Fused `ssm_core.gated.rg_lru._driven`."""
    arrays = (x, input_gate, recurrent_gate, strongest)
    alike = all(m.dtype == x.dtype for m in arrays) and all(m.shape == x.shape for m in arrays[:3])
    plain = alike and 0 not in x.shape and x.device.type == "cpu"
    if not plain or torch.compiler.is_compiling() or transformed(x) or forward_mode():
        return NotImplemented
    return _Driven.apply(*arrays, begins.expand(x.shape[:2]))


class _Driven(torch.autograd.Function):
    """(gate, drive) of (x, i, r, m, begins); keeps these alone."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        x, i, r, most, begins = inputs
        gate, drive = (x.new_empty(x.shape) for _ in range(2))
        for at in _pieces(x):
            kept, entering = gate[at], drive[at]
            _opened(r[at], most, begins[at], kept, share := torch.empty_like(kept))
            torch.mul(torch.sigmoid(i[at]), x[at], out=entering).mul_(share)
        return gate, drive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        inputs, (dgate, ddrive) = ctx.saved_tensors, grads
        if torch.is_grad_enabled() or transformed(*grads):
            return _differentiable(inputs, ctx.needs_input_grad, grads)
        x, i, r, most, begins = inputs
        dx, di, dr = (x.new_empty(x.shape) for _ in range(3))
        dmost = torch.zeros_like(most)
        for at in _pieces(x):
            opening = _opened(
                r[at], most, begins[at], kept := torch.empty_like(dx[at]), share := torch.empty_like(kept)
            )
            o = torch.sigmoid(i[at])
            slope = kept.square().div_(share).masked_fill_(share == 0, 0)
            torch.mul(share, o, out=dx[at]).mul_(ddrive[at])
            entering = o * x[at]
            torch.mul(dx[at], x[at], out=di[at]).mul_(o.neg_().add_(1))
            dlog = kept.mul_(dgate[at]).sub_(slope.mul_(entering).mul_(ddrive[at]))
            dmost += torch.mul(dlog, opening, out=slope).sum(0)
            torch.mul(slope, most, out=dr[at]).mul_(opening.neg_().add_(1))
        return dx, di, dr, dmost, None


def _opened(r: Tensor, most: Tensor, begins: Tensor, kept: Tensor, share: Tensor) -> Tensor:
    """sigmoid(r) of some steps (T, W), and into the others a and sqrt(1 - a^2): 0 and 1 where a sequence begins."""
    opening = torch.sigmoid(r)
    log_a = torch.mul(opening, most, out=kept)
    torch.mul(log_a, 2, out=share).expm1_().neg_().sqrt_()
    kept.exp_()
    if begins.any():
        kept[begins], share[begins] = 0, 1
    return opening


def _pieces(x: Tensor) -> Iterator[tuple[int, slice]]:
    """Rows of the batch and some of their steps."""
    at_once = max(1, PIECE // x.shape[2])
    for row in range(len(x)):
        for start in range(0, x.shape[1], at_once):
            yield row, slice(start, start + at_once)


def _differentiable(inputs: Any, needed: Any, grads: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """The gradients by the generic body, which can be differentiated again."""
    *arrays, begins = inputs
    with torch.enable_grad():
        leaves = [m.view_as(m) if n else m for m, n in zip(arrays, needed, strict=False)]
        outputs = [(y, dy) for y, dy in zip(_driven(*leaves, begins, backend="generic"), grads, strict=True)]
        outputs = [(y, dy) for y, dy in outputs if y.requires_grad]
        wanted = [m for m, n in zip(leaves, needed, strict=False) if n]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in outputs], wanted, [dy for _, dy in outputs], create_graph=True, materialize_grads=True
            )
        )
    return *(next(found) if n else None for n in needed[:4]), None
