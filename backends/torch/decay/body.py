"""Gated linear attention with a decay a channel, as an operator that torch.compile does not look into."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssm_core.gated.decay_run import _channel_decay
from ssm_core.recurrences.segments import Segments

from ..transforms import forward_mode, in_full_precision, transformed
from . import chunks


@in_full_precision
def channel_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    *,
    bonus: Tensor | None,
    exclusive: bool,
    segments: Segments,
    chunk: int,
) -> Any:
    """Fused `ssm_core.gated.decay_run._channel_decay`; chunks are the next power of two."""
    alike = all(x.dtype == v.dtype for x in (q, k, g, state))
    none = 0 in (*v.shape, k.shape[-1])
    if not alike or none or transformed(q) or forward_mode() or torch.compiler.is_exporting():
        return NotImplemented
    weight = bonus
    if bonus is not None and not exclusive:
        weight = bonus + 1
    if bonus is None and exclusive:
        weight = torch.zeros_like(k[0, 0])
    T = chunks.steps_of_chunk(chunk, v.shape[1])
    return _Chunks.apply(q, k, v, g, state, weight, segments.reset, exclusive, T)


@torch.library.custom_op("ssm_core::channel_decay", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, weight: Tensor | None, reset: Tensor | None,
    exclusive: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return chunks.forward(q, k, v, g, state, weight, reset, exclusive, T)


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, weight: Tensor | None, reset: Tensor | None,
    exclusive: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    n = -(-v.shape[1] // T)
    states = state.new_empty((n, *state.shape))
    return v.new_empty(v.shape), state.new_empty(state.shape), states


@torch.library.custom_op("ssm_core::channel_decay_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, states: Tensor, weight: Tensor | None, reset: Tensor | None,
    exclusive: bool, T: int, dy: Tensor, dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return chunks.backward(q, k, v, g, states, weight, reset, exclusive, T, dy, dlast)


@_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, states: Tensor, weight: Tensor | None, reset: Tensor | None,
    exclusive: bool, T: int, dy: Tensor, dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dq, dk, dv, dg, dfirst = (x.new_empty(x.shape) for x in (q, k, v, g, dlast))
    return dq, dk, dv, dg, dfirst, q.new_empty(q.shape[2:])


class _Chunks(torch.autograd.Function):
    """(y, last state) of (q, k, v, g, first state, weight, reset, exclusive, T); keeps the states between chunks."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, last, states = _forward(*inputs)
        *tensors, reset, ctx.exclusive, ctx.T = inputs
        ctx.save_for_backward(*tensors, reset, states)
        return y, last

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *tensors, reset, states = ctx.saved_tensors
        needed = ctx.needs_input_grad[:6]
        if (torch.is_grad_enabled() and not torch.compiler.is_compiling()) or transformed(*grads):
            found = _differentiable(tensors, reset, ctx.exclusive, ctx.T, needed, grads)
        else:
            q, k, v, g, _, weight = tensors
            found = _backward(q, k, v, g, states, weight, reset, ctx.exclusive, ctx.T, *grads)
        return *(x if n else None for x, n in zip(found, needed, strict=True)), None, None, None


def _differentiable(
    tensors: Any, reset: Tensor | None, exclusive: bool, T: int, needed: Any, grads: Any
) -> tuple[Tensor | None, ...]:
    """The gradients by the generic body, which can be differentiated again."""
    with torch.enable_grad():
        leaves = [x.view_as(x) if n else x for x, n in zip(tensors, needed, strict=True)]  # no paths between them
        q, k, v, g, first, weight = leaves
        bonus = None if weight is None else weight - (0 if exclusive else 1)
        segments = Segments(v.shape[1], reset)
        outputs = _channel_decay(
            q, k, v, g, first, bonus=bonus, exclusive=exclusive, segments=segments, chunk=T, backend="generic"
        )
        wanted = [x for x, n in zip(leaves, needed, strict=True) if n]
        found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, materialize_grads=True))
    return tuple(next(found) if n else None for n in needed)
