"""The chunks of time-invariant systems in one walk over the signal, where there is a kernel for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssm_core.time_invariant.modes.state_passing import Maps, run_state_passing, state_passing
from ssm_core.time_invariant.run import Run
from ssm_core.time_invariant.vandermonde import DiagonalPropagator

from ..gpu import kernels, tf32_allowed
from ..transforms import forward_mode, in_full_precision, transformed


@in_full_precision
def chunks(u: Tensor, run: Run) -> Any:
    """Fused `time_invariant.modes.chunk._chunks`, for real signals, diagonal systems and single precision."""
    if run.reset is not None or not _is_real_and_diagonal(u, run) or transformed(u) or forward_mode():
        return NotImplemented
    triton = kernels("state_passing", u.device)
    if triton is None:
        return NotImplemented
    states = run.first_state()
    fits = states.numel() > 0 and states.shape[-1] * (2 if states.is_complex() else 1) <= triton.STATES
    return run_state_passing(run, triton.STEPS, _passed_on) if fits else NotImplemented


def _passed_on(u: Tensor, maps: Maps, first: Tensor) -> Any:
    return _Chain.apply(u, *maps, first)


def _is_real_and_diagonal(u: Tensor, run: Run) -> bool:
    """Whether the outputs to u are real, the propagator one of poles, and everything in single precision."""
    system, propagator = run.system, run.propagator
    if not isinstance(propagator, DiagonalPropagator) or propagator.several_inputs or propagator.several_outputs:
        return False
    given = [system.poles, system.B, system.C] + ([] if run.initial is None else [run.initial])
    real = system.conj_pairs or not any(x.is_complex() for x in given)
    return real and u.dtype == torch.float32 and all(x.dtype in (torch.float32, torch.complex64) for x in given)


def _kernels(u: Tensor) -> tuple[Any, str]:
    """The module, and how it multiplies: as torch.matmul does with single precision."""
    module = kernels("state_passing", u.device)
    return module, "tf32" if tf32_allowed() else module.PRECISE


@torch.library.custom_op("ssm_core::state_passing", mutates_args=())
def _forward(
    u: Tensor, taps: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    triton, precision = _kernels(u)
    return triton.forward(u, taps, respond, drive, decay, head, first, precision)


@_forward.register_fake
def _(
    u: Tensor, taps: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), first.new_empty(first.shape)


@torch.library.custom_op("ssm_core::state_passing_adjoint", mutates_args=())
def _adjoint(
    u: Tensor, dy: Tensor, taps: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    triton, precision = _kernels(u)
    return triton.adjoint(u, dy, taps, respond, drive, decay, head, first, dlast, precision)


@_adjoint.register_fake
def _(
    u: Tensor, dy: Tensor, taps: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    du, ddrive, dhead, dfirst = (x.new_empty(x.shape) for x in (u, drive, head, first))
    return du, ddrive, dhead, dfirst


@torch.library.custom_op("ssm_core::state_passing_slopes", mutates_args=())
def _slopes(
    u: Tensor, dy: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    triton, precision = _kernels(u)
    return triton.slopes(u, dy, respond, drive, decay, head, first, dlast, precision)


@_slopes.register_fake
def _(
    u: Tensor, dy: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    H, T = respond.shape[0], respond.shape[-1]
    return respond.new_empty((H, T)), respond.new_empty(respond.shape), decay.new_empty(decay.shape)


class _Chain(torch.autograd.Function):
    """`ssm_core.time_invariant.modes.state_passing.state_passing`; keeps its inputs and no states."""

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return _forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *grads: Tensor) -> Any:
        dy, dlast = grads
        if transformed(*grads) or (torch.is_grad_enabled() and not torch.compiler.is_compiling()):
            return _differentiated(ctx.saved_tensors, ctx.needs_input_grad, grads)
        u, taps, respond, drive, decay, head, first = ctx.saved_tensors
        u, dy = u.contiguous(), dy.contiguous()  # once for both walks
        du, ddrive, dhead, dfirst = _adjoint(u, dy, taps, respond, drive, decay, head, first, dlast)
        dtaps = drespond = ddecay = None
        if any(ctx.needs_input_grad[i] for i in (1, 2, 4)):
            dtaps, drespond, ddecay = _slopes(u, dy, respond, drive, decay, head, first, dlast)
        return du, dtaps, drespond, ddrive, ddecay, dhead, dfirst


def _differentiated(inputs: tuple[Tensor, ...], needed: tuple[bool, ...], grads: tuple[Tensor, ...]) -> Any:
    """The gradients by autograd, which can be differentiated again."""
    with torch.enable_grad():
        inputs = tuple(x.view_as(x) for x in inputs)  # apart, where one tensor is given twice
        wanted = [x for x, asked in zip(inputs, needed, strict=True) if asked]
        results = state_passing(inputs[0], Maps(*inputs[1:-1]), inputs[-1])
        found = torch.autograd.grad(results, wanted, grads, create_graph=True, materialize_grads=True)
    remaining = iter(found)
    return tuple(next(remaining) if asked else None for asked in needed)
