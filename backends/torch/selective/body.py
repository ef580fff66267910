"""The selective scan for PyTorch: its kernels where they run, and explicit gradients on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ssm_core.recurrences.segments import Segments

from ..gpu import kernels
from ..transforms import forward_mode, in_full_precision, transformed
from . import steps

STATES = 64  # beyond, the states that a program keeps between tiles outgrow what the kernel saves


@in_full_precision
def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    state: Tensor,
    segments: Segments,
    discretization: str,
    chunk: int | None,
) -> tuple[Tensor, Tensor]:
    """Fused `ssm_core.gated.selective._selective_scan`."""
    arrays = (u, dt, A, B, C, state)
    fits = u.dtype in (torch.float32, torch.float64) and all(x.dtype == u.dtype for x in arrays)
    if discretization != "mamba" or not fits or A.shape[1] < 1:
        return NotImplemented
    module = _module(u)
    if module is None or (module is not steps and A.shape[1] > STATES):
        return NotImplemented
    mapped = torch._C._are_functorch_transforms_active()  # which, unlike `transformed`, sees what is compiled too
    if mapped or transformed(u) or forward_mode():
        return NotImplemented
    on_host, reset, lengths = module is steps, segments.reset, segments.lengths
    T = steps.spacing(u, A.shape[1], chunk) if on_host else tile(A.shape[1], u.shape[1] // groups(B, C))[0]
    if torch.is_grad_enabled() and any(x.requires_grad for x in arrays):
        y, last, _ = _SelectiveScan.apply(*arrays, reset, lengths, chunk, T)
    else:
        y, last, _ = _forward(*arrays, reset, lengths, False, T)
    return y, last


def _module(u: Tensor) -> Any:
    """What computes the scan: the kernels, or steps on a CPU; None for a compiler, which fuses the generic body."""
    found = kernels("selective", u.device, u.dtype)
    on_host = found is None and u.device.type == "cpu" and not torch.compiler.is_compiling()
    return steps if on_host else found


def tile(states: int, channels: int) -> tuple[int, int, int, int]:
    """Steps T, channels D, states N in powers of two, and the warps of a program, for so many channels side by side.

    The parts of the gradients of B and of C have N / D times the size of u, and the states kept between tiles N / T
    times. A thread holds T D N / 32 warps = 16 numbers of a tile: the backward, where about twelve such live at once,
    takes 207 registers a thread on Hopper for N = 16, and spills a little with the 16 warps of N beyond.
    """
    N = _power(states)
    D = min(_power(channels), max(16, min(64, 256 // N)))
    return (16 if D * N <= 512 else 8), D, N, max(1, min(16, D * N // 32))


def groups(B: Tensor, C: Tensor) -> int:
    """Groups of channels that share their rows of both."""
    return math.lcm(*(1 if x.ndim == 2 else int(x.shape[1]) for x in (B, C)))


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << (int(n) - 1).bit_length()


@torch.library.custom_op("ssm_core::selective_scan", mutates_args=())
def _forward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor, reset: Tensor | None,
    lengths: Tensor | None, keep: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _module(u).forward(u, dt, A, B, C, first, reset, lengths, keep, T)


@_forward.register_fake
def _(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor, reset: Tensor | None,
    lengths: Tensor | None, keep: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    (batch, H, length), N = u.shape, A.shape[1]
    starts = u.new_empty((batch, (length + T - 1) // T, H, N) if keep else (0,))
    return torch.empty_like(u), u.new_empty(first.shape), starts


@torch.library.custom_op("ssm_core::selective_scan_backward", mutates_args=())
def _backward(
    g: Tensor, g_last: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor,
    reset: Tensor | None, lengths: Tensor | None, want_B: bool, want_C: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _module(u).backward(g, g_last, u, dt, A, B, C, starts, reset, lengths, want_B, want_C, T)


@_backward.register_fake
def _(
    g: Tensor, g_last: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor,
    reset: Tensor | None, lengths: Tensor | None, want_B: bool, want_C: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_B, of_C = (
        u.new_empty((0,) if not wanted else x.shape if x.ndim == 2 else x.mT.shape)
        for x, wanted in ((B, want_B), (C, want_C))
    )
    return torch.empty_like(u), torch.empty_like(dt), u.new_empty(A.shape), of_B, of_C, u.new_empty(g_last.shape)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _forward(*arguments[:-2], True, arguments[-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.chunk, ctx.T = inputs
        ctx.save_for_backward(*tensors, output[2])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *arrays, reset, lengths, starts = ctx.saved_tensors
        needed = ctx.needs_input_grad[: len(arrays)]
        if not torch.compiler.is_compiling() and (torch.is_grad_enabled() or transformed(*grads[:2])):
            return *_differentiable(arrays, needed, (reset, lengths, ctx.chunk), grads[:2]), *[None] * 4
        want_B, want_C = needed[3:5]
        found = _backward(*grads[:2], *arrays[:5], starts, reset, lengths, want_B, want_C, ctx.T)
        found = [x.mT if x.ndim == 4 else x for x in found]
        return *(x if need else None for x, need in zip(found, needed, strict=True)), *[None] * 4


def _differentiable(arrays: Any, needed: Any, options: Any, grads: Any) -> tuple[Tensor | None, ...]:
    """Gradients by differentiating the generic body, which can be differentiated again."""
    from ssm_core.gated.selective import _selective_scan  # which loads this module

    *masks, chunk = options
    with torch.enable_grad():
        apart = [x.view_as(x) for x in arrays]  # one may depend on another, or be it
        *signals, state = apart
        segments = Segments(signals[0].shape[-1], *masks)
        options = {"state": state, "segments": segments, "discretization": "mamba", "chunk": chunk}
        results = _selective_scan(*signals, **options, backend="generic")
        wanted = [x for x, need in zip(apart, needed, strict=True) if need]
        found = iter(torch.autograd.grad(results, wanted, grads, create_graph=True))
    return tuple(next(found) if need else None for need in needed)
