"""The gated delta rule, as an operator that torch.compile does not look into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssm_core.gated.delta_run import OPTIONAL, _gated_delta
from ssm_core.recurrences.segments import Segments

from ..decay.chunks import steps_of_chunk
from ..transforms import forward_mode, in_full_precision, transformed
from . import chunks

SIGNALS = 9  # q, k, v, log decays, beta, erase, write, a, b


@in_full_precision
def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    *,
    beta: Tensor | None,
    erase: Tensor | None,
    write: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    segments: Segments,
    scale: float,
    chunk: int,
) -> Any:
    """Fused `ssm_core.gated.delta_run._gated_delta`; chunks are the next power of two."""
    signals = (q, k, v, log_decay, beta, erase, write, a, b)
    alike = all(x.dtype == v.dtype for x in (*signals, state) if x is not None)
    none = 0 in (*v.shape, k.shape[-1])
    if not alike or none or transformed(q) or forward_mode() or torch.compiler.is_exporting():
        return NotImplemented
    substeps = v.shape[2] if v.ndim == 5 else 1
    T = steps_of_chunk(chunk, v.shape[1] * substeps)
    return _Chunks.apply(*signals, state, segments.reset, scale, T)


@torch.library.custom_op("ssm_core::gated_delta", mutates_args=())
def _forward(signals: Sequence[Tensor | None], first: Tensor, scale: float, T: int) -> tuple[Tensor, Tensor, Tensor]:
    return chunks.forward(signals, first, scale, T)


@_forward.register_fake
def _(signals: Sequence[Tensor | None], first: Tensor, scale: float, T: int) -> tuple[Tensor, Tensor, Tensor]:
    y, states = chunks.Layout.of(signals, T).results(first)
    return y, first.new_empty(first.shape), states


@torch.library.custom_op("ssm_core::gated_delta_backward", mutates_args=())
def _backward(
    signals: Sequence[Tensor | None], states: Tensor, scale: float, T: int, dy: Tensor, dlast: Tensor
) -> tuple[list[Tensor], Tensor]:
    return chunks.backward(signals, states, scale, T, dy, dlast)


@_backward.register_fake
def _(
    signals: Sequence[Tensor | None], states: Tensor, scale: float, T: int, dy: Tensor, dlast: Tensor
) -> tuple[list[Tensor], Tensor]:
    return [x.new_empty(x.shape) for x in signals[:SIGNALS] if x is not None], dlast.new_empty(dlast.shape)


class _Chunks(torch.autograd.Function):
    """(y, last state) of signals, first state, reset, scale and T; keeps the states between chunks."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *signals, first, reset, ctx.scale, ctx.T = inputs
        y, last, states = _forward([*signals, reset], first, ctx.scale, ctx.T)
        ctx.save_for_backward(*signals, first, reset, states)
        return y, last

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *tensors, reset, states = ctx.saved_tensors
        needed = ctx.needs_input_grad[: SIGNALS + 1]
        if (torch.is_grad_enabled() and not torch.compiler.is_compiling()) or transformed(*grads):
            found = _differentiable(tensors, reset, ctx.scale, ctx.T, needed, grads)
        else:
            signals = tensors[:SIGNALS]
            of_given, dfirst = _backward([*signals, reset], states, ctx.scale, ctx.T, *grads)
            left = iter(of_given)
            found = *(None if x is None else next(left) for x in signals), dfirst
        return *(x if n else None for x, n in zip(found, needed, strict=True)), None, None, None


def _differentiable(
    tensors: Any, reset: Tensor | None, scale: float, T: int, needed: Any, grads: Any
) -> tuple[Tensor | None, ...]:
    """The gradients by the generic body, which can be differentiated again."""
    with torch.enable_grad():
        leaves = [x.view_as(x) if n else x for x, n in zip(tensors, needed, strict=True)]  # no paths between them
        segments = Segments(tensors[0].shape[1], reset)
        q, k, v, g, *rest, first = leaves
        optional = dict(zip(OPTIONAL, rest, strict=True))
        options: dict[str, Any] = {"segments": segments, "scale": scale, "chunk": T, "backend": "generic"}
        outputs = _gated_delta(q, k, v, g, first, **optional, **options)
        wanted = [x for x, n in zip(leaves, needed, strict=True) if n]
        found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, materialize_grads=True))
    return tuple(next(found) if n else None for n in needed)
