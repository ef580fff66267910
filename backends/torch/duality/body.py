"""The state space dual by Triton kernels, as an operator that torch.compile does not look into, with a backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssm_core.gated.ssd import CHUNK, _ssd
from ssm_core.recurrences.segments import Segments

from ..decay.dual_body import chunked_dual
from ..gpu import kernels, tf32_allowed
from ..transforms import forward_mode, in_full_precision, transformed

LARGEST = 256  # P and N


@in_full_precision
def ssd(
    drive: Tensor,
    log_gates: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    *,
    segments: Segments,
    chunk: int,
) -> Any:
    """Fused `ssm_core.gated.ssd._ssd`: on GPUs, in single precision, by Triton with chunks of its own."""
    P, N = drive.shape[-1], B.shape[-1]
    arrays = (drive, log_gates, B, C, state)
    single = all(x.dtype == torch.float32 for x in arrays)
    fits = single and 0 not in (*drive.shape, N) and max(P, N) <= LARGEST
    if not fits or transformed(drive) or forward_mode() or kernels("duality", drive.device) is None:
        return chunked_dual(*arrays, segments, chunk)
    return _Dual.apply(*arrays, segments.reset, segments.lengths)


def _kernels(x: Tensor) -> tuple[Any, str]:
    """The module, and how it multiplies: as torch.matmul does with single precision."""
    module = kernels("duality", x.device)
    return module, "tf32" if tf32_allowed() else module.PRECISE


@torch.library.custom_op("ssm_core::ssd", mutates_args=())
def _forward(
    x: Tensor, g: Tensor, B: Tensor, C: Tensor, first: Tensor, reset: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    module, precision = _kernels(x)
    return module.forward(x, g, B, C, first, reset, lengths, precision)


@_forward.register_fake
def _(
    x: Tensor, g: Tensor, B: Tensor, C: Tensor, first: Tensor, reset: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), first.new_empty(first.shape)


@torch.library.custom_op("ssm_core::ssd_backward", mutates_args=())
def _backward(
    x: Tensor,
    g: Tensor,
    B: Tensor,
    C: Tensor,
    first: Tensor,
    reset: Tensor | None,
    lengths: Tensor | None,
    dy: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    module, precision = _kernels(x)
    return module.backward(x, g, B, C, first, reset, lengths, dy, dlast, precision)


@_backward.register_fake
def _(
    x: Tensor,
    g: Tensor,
    B: Tensor,
    C: Tensor,
    first: Tensor,
    reset: Tensor | None,
    lengths: Tensor | None,
    dy: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = [v.new_empty(v.shape) for v in (x, g, B, C, first)]
    return grads[0], grads[1], grads[2], grads[3], grads[4]


class _Dual(torch.autograd.Function):
    """(y, last state) of (x, log gates, B, C, first state, reset, lengths)."""

    @staticmethod
    def forward(
        x: Tensor, g: Tensor, B: Tensor, C: Tensor, first: Tensor, reset: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return _forward(x, g, B, C, first, reset, lengths)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *grads: Tensor) -> Any:
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[:5]
        again = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if again or transformed(*grads):
            found = _generic_gradients(inputs, needed, grads)
        else:
            found = _backward(*inputs, *grads)
        return *(g if n else None for g, n in zip(found, needed, strict=True)), None, None


def _generic_gradients(inputs: Any, needed: Any, grads: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """Those of the generic body, which can be differentiated again; y is 0 beyond the lengths, as the kernels' is."""
    create = torch.is_grad_enabled()
    *arrays, reset, lengths = inputs
    with torch.enable_grad():
        leaves = [x.view_as(x) if n else x for x, n in zip(arrays, needed, strict=True)]  # no paths between them
        x, g, B, C, first = leaves
        if lengths is not None:
            steps = torch.arange(x.shape[1], device=x.device)
            C = C.masked_fill((steps >= lengths[:, None])[..., None, None], 0)
        segments = Segments(x.shape[1], reset, lengths)
        outputs = _ssd(x, g, B, C, first, segments=segments, chunk=CHUNK, backend="generic")
        varying = [(y, dy) for y, dy in zip(outputs, grads, strict=True) if y.requires_grad]
        ys, dys = zip(*varying, strict=True)
        wanted = [x for x, n in zip(leaves, needed, strict=True) if n]
        found = iter(torch.autograd.grad(ys, wanted, dys, create_graph=create))
    return tuple(next(found) if n else None for n in needed)
