"""The state space dual by products of matrices, as an operator that torch.compile does not look into."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssm_core.gated.ssd import _ssd
from ssm_core.recurrences.segments import Segments

from ..transforms import forward_mode, transformed
from . import dual
from .chunks import steps_of_chunk


def chunked_dual(x: Tensor, g: Tensor, k: Tensor, q: Tensor, state: Tensor, segments: Segments, chunk: int) -> Any:
    """`ssm_core.gated.ssd._ssd`; chunks are the next power of two."""
    alike = all(m.dtype == x.dtype for m in (g, k, q, state))
    none = 0 in (*x.shape, k.shape[-1])
    if not alike or none or transformed(x) or forward_mode() or torch.compiler.is_exporting():
        return NotImplemented
    T = steps_of_chunk(chunk, x.shape[1])
    return _Chunks.apply(x, g, k, q, state, segments.reset, T)


@torch.library.custom_op("ssm_core::chunked_dual", mutates_args=())
def _forward(
    x: Tensor, g: Tensor, k: Tensor, q: Tensor, state: Tensor, reset: Tensor | None, T: int
) -> tuple[Tensor, Tensor, Tensor]:
    return dual.forward(x, g, k, q, state, reset, T)


@_forward.register_fake
def _(
    x: Tensor, g: Tensor, k: Tensor, q: Tensor, state: Tensor, reset: Tensor | None, T: int
) -> tuple[Tensor, Tensor, Tensor]:
    (batch, H, P, N), G = state.shape, k.shape[2]
    states = state.new_empty((-(-x.shape[1] // T), batch, G, H // G * P, N))
    return x.new_empty(x.shape), state.new_empty(state.shape), states


@torch.library.custom_op("ssm_core::chunked_dual_backward", mutates_args=())
def _backward(
    x: Tensor, g: Tensor, k: Tensor, q: Tensor, states: Tensor, reset: Tensor | None, T: int, of_g: bool, dy: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return dual.backward(x, g, k, q, states, reset, T, of_g, dy, dlast)


@_backward.register_fake
def _(
    x: Tensor, g: Tensor, k: Tensor, q: Tensor, states: Tensor, reset: Tensor | None, T: int, of_g: bool, dy: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dx, dg, dk, dq, dfirst = (m.new_empty(m.shape) for m in (x, g, k, q, dlast))
    return dx, dg, dk, dq, dfirst


class _Chunks(torch.autograd.Function):
    """(y, last state) of (x, log gates, B, C, first state, reset, T); keeps the states between chunks."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, last, states = _forward(*inputs)
        *tensors, reset, ctx.T = inputs
        ctx.save_for_backward(*tensors, reset, states)
        return y, last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *tensors, reset, states = ctx.saved_tensors
        needed = ctx.needs_input_grad[:5]
        if (torch.is_grad_enabled() and not torch.compiler.is_compiling()) or transformed(*grads):
            found = _differentiable(tensors, reset, ctx.T, needed, grads)
        else:
            found = _backward(*tensors[:4], states, reset, ctx.T, needed[1], *grads)
        return *(m if n else None for m, n in zip(found, needed, strict=True)), None, None


def _differentiable(tensors: Any, reset: Tensor | None, T: int, needed: Any, grads: Any) -> tuple[Tensor | None, ...]:
    """The gradients by the generic body, which can be differentiated again."""
    with torch.enable_grad():
        leaves = [m.view_as(m) if n else m for m, n in zip(tensors, needed, strict=True)]  # no paths between them
        x, g, k, q, first = leaves
        outputs = _ssd(x, g, k, q, first, segments=Segments(x.shape[1], reset), chunk=T, backend="generic")
        wanted = [m for m, n in zip(leaves, needed, strict=True) if n]
        found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, materialize_grads=True))
    return tuple(next(found) if n else None for n in needed)
