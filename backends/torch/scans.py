"""The linear recurrence x_k = a_k x_{k-1} + b_k for PyTorch, with time on axis 0.

Its adjoint runs the other way with the conjugate gate of the step after:

    l_k = g_k + conj(a_{k+1}) l_{k+1},    grad b = l,    grad a_k = l_k conj(x_{k-1}),    grad x_{-1} = conj(a_0) l_0

The gate that arrives one step late is the flag `delayed`: x_k = a_{k-1} x_{k-1} + b_k, x_0 = b_0 (in the order of
running). The adjoint of a delayed scan is one that is not, so the backward calls the same operator, to any order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .gpu_kernels import kernels
from .transforms import forward_mode, reduced, transformed

NARROW = 2048  # numbers a step below which launching a step costs more than its arithmetic


def linear_scan(a: Tensor, b: Tensor, initial: Tensor | None, *, axis: int, reverse: bool) -> Any:
    """The twin of `ssm_core.scans._linear_scan`."""
    if torch.compiler.is_compiling() and forward_mode():
        return NotImplemented  # the traced operator has no tangents
    a, b = a.movedim(axis, 0), b.movedim(axis, 0)
    if b.shape[0] == 0:
        return b.movedim(0, axis)
    first = b.new_zeros(b.shape[1:]) if initial is None else initial.expand(b.shape[1:])
    return _apply(a, b, first, reverse, False).movedim(0, axis)


def _apply(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    function = _LinearScan if torch.compiler.is_compiling() else _LinearScanForward
    return function.apply(a, b, first, reverse, delayed)


@torch.library.custom_op("ssm_core::linear_scan", mutates_args=())
def _operator(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    triton = kernels("triton_scans", b.device)
    if triton is not None:
        states: Tensor = triton.scan(a, b, first, reverse, delayed)
        return states
    return steps(a, b, first, reverse, delayed)


def like(b: Tensor) -> Tensor:
    """Memory for states: in the order of b on a GPU, and with time first on a CPU, where a step then fills a row."""
    return torch.empty_like(b) if b.is_cuda else torch.empty(b.shape, dtype=b.dtype, device=b.device)


def steps(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    """Launched one after another, or in blocks."""
    out, a, first = like(b), a.resolve_conj(), first.resolve_conj()
    b = b.contiguous() if b.ndim > 1 and b.shape[-1] > 1 and b.stride(-1) > 1 else b.resolve_conj()
    if out.numel() == 0:
        return out
    if _blocked(b):
        _scan_in_blocks(a, b, first, reverse, delayed, out)
    else:
        _scan(a.unbind(0), b.unbind(0), first, reverse, delayed, out.unbind(0))
    return out


@_operator.register_fake
def _(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    return like(b)


@_operator.register_vmap
def _(info: Any, in_dims: Any, a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Any:
    """The mapped axis becomes the one after time."""

    def front(x: Tensor, dim: int | None, to: int) -> Tensor:
        return x.unsqueeze(to) if dim is None else x.movedim(dim, to)

    a, b, first = front(a, in_dims[0], 1), front(b, in_dims[1], 1), front(first, in_dims[2], 0)
    b = b.expand(b.shape[0], info.batch_size, *b.shape[2:])
    return _operator(a, b, first.expand(b.shape[1:]), reverse, delayed), 1


@torch.library.custom_op("ssm_core::linear_scan_adjoint", mutates_args=())
def _adjoint_operator(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The kernel's, as `adjoint_steps`."""
    return kernels("triton_scans", x.device).adjoint(a, first, x, g, reverse)


@_adjoint_operator.register_fake
def _(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty((1, *x.shape[1:])) if a.shape[0] == 1 else like(x), like(x)


def _blocked(b: Tensor) -> bool:
    """Whether launching the steps one by one would cost more than a second pass over memory."""
    return b.shape[0] >= 64 and (b[0].numel() < NARROW or b.is_cuda)


def _scan(gates: Any, drives: Any, x: Tensor, reverse: bool, delayed: bool, states: Any) -> None:
    """One fused multiply-add a step, into the result."""
    length, gate = len(drives), gates[0]
    order = range(length - 1, -1, -1) if reverse else range(length)
    constant, late = len(gates) == 1, (1 if reverse else -1) if delayed else 0
    for k in order:
        if delayed and k == order[0]:
            x = states[k].copy_(drives[k])
        else:
            x = torch.addcmul(drives[k], gate if constant else gates[k + late], x, out=states[k])


def _scan_in_blocks(a: Tensor, b: Tensor, x: Tensor, reverse: bool, delayed: bool, out: Tensor) -> None:
    """A blocks of T steps side by side, in about 4 T + 3 A launches instead of A T, and in the memory of the result.

    States from zero come first, then the states between blocks, then what these add to every step.
    """
    length, constant = b.shape[0], a.shape[0] == 1
    T = max(1, round(length**0.5))
    A = length // T
    start = length - A * T if reverse else 0  # of whole blocks; the rest of the steps is run last
    steps, blocks = (range(n - 1, -1, -1) if reverse else range(n) for n in (T, A))
    late = (1 if reverse else -1) if delayed else 0

    def rows(m: Tensor, r: int) -> Tensor:
        """Row r of every block."""
        return m[start + r : start + A * T : T]

    def gate(r: int) -> Tensor:
        if constant or 0 <= r + late < T:
            return a if constant else rows(a, r + late)
        other = rows(a, (r + late) % T)  # in the block before; the first block to run has none
        return torch.cat([other[1:], other[-1:]] if reverse else [other[:1], other[:-1]])

    first, *others = steps
    states = rows(out, first).copy_(rows(b, first))
    through = gate(first)
    for r in others:
        states = torch.addcmul(rows(b, r), gate(r), states, out=rows(out, r))
        through = through * gate(r)
    x = torch.zeros_like(x) if delayed else x
    carries = torch.empty_like(states)
    for i in blocks:
        carries[i] = x
        x = states[i] + torch.where(x == 0, 0, through[0 if constant else i] * x)  # 0, where a product overflowed
    carries = torch.where(carries == 0, 0, gate(first) * carries)
    rows(out, first).add_(carries)
    for r in others:
        carries *= gate(r)
        rows(out, r).add_(carries)
    for k in range(start - 1, -1, -1) if reverse else range(A * T, length):
        x = torch.addcmul(b[k], a[0 if constant else k + late], x, out=out[k])


def _shifted(first: Tensor, x: Tensor, reverse: bool) -> Tensor:
    """The state before every step."""
    return torch.cat([x[1:], first.unsqueeze(0)]) if reverse else torch.cat([first.unsqueeze(0), x[:-1]])


def _fused_adjoint(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor] | None:
    """The gradients of a, as it broadcasts, and of b in one pass over memory: by the kernel, or by steps that are wide.

    None where a derivative of them may be wanted, and where launching the steps would cost more than it saves.
    """
    if torch.is_grad_enabled() or transformed(g):
        return None
    if kernels("triton_scans", x.device) is not None:
        return _adjoint_operator(a, first, x, g, reverse)
    if torch.compiler.is_compiling() or _blocked(x):
        return None
    return adjoint_steps(a, first, x, g, reverse)


def adjoint_steps(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The gradient of a gate that is constant in time is one row."""
    length, constant, adjoint = x.shape[0], a.shape[0] == 1, like(x)
    grad_a = torch.zeros_like(x[:1]) if constant else torch.empty_like(adjoint)
    gates, grads, states, results = (t.unbind(0) for t in (a.conj().resolve_conj(), g, x, adjoint))
    gate, products = gates[0], grad_a.unbind(0)
    back = 1 if reverse else -1
    for k in range(length) if reverse else range(length - 1, -1, -1):
        ahead = k - back  # the step after k in the order of running, whose adjoint is known
        if 0 <= ahead < length:
            lam = torch.addcmul(grads[k], gate if constant else gates[ahead], results[ahead], out=results[k])
        else:
            lam = results[k].copy_(grads[k])
        before = states[k + back] if 0 <= k + back < length else first
        if constant:
            products[0].addcmul_(lam, before.conj())
        else:
            torch.mul(lam, before.conj(), out=products[k])
    return grad_a, adjoint


class _LinearScan(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
        return _operator(a, b, first, reverse, delayed)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        a, _, first, ctx.reverse, ctx.delayed = inputs
        ctx.save_for_backward(a, first, output)
        if forward_mode():  # such tensors outlive a checkpoint
            ctx.save_for_forward(a, first, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, first, x = ctx.saved_tensors
        g, reverse, last = grads[0], ctx.reverse, (0 if ctx.reverse else -1)
        gated, start = ctx.needs_input_grad[0], (-1 if reverse else 0)
        fused = _fused_adjoint(a, first, x, g, reverse) if gated and not ctx.delayed else None
        if fused is not None:
            grad_a, adjoint = fused
        else:
            adjoint = _apply(a.conj(), g, torch.zeros_like(first), not reverse, not ctx.delayed)
            grad_a = None
            if gated and ctx.delayed:  # gate k meets the state k and the adjoint after it
                grad_a = _shifted(torch.zeros_like(adjoint[last]), adjoint, not reverse) * x.conj()
            elif gated:
                grad_a = adjoint * _shifted(first, x, reverse).conj()
        grad_first = torch.zeros_like(first) if ctx.delayed else a[start].conj() * adjoint[start]
        return None if grad_a is None else reduced(grad_a, a.shape), adjoint, grad_first, None, None


class _LinearScanForward(_LinearScan):
    """With forward mode too, which torch.compile cannot trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        a, first, x = ctx.saved_tensors
        da, db, dfirst = tangents[:3]
        drive = torch.zeros_like(x) if db is None else db
        dfirst = torch.zeros_like(first) if dfirst is None else dfirst
        if da is not None:
            before = _shifted(torch.zeros_like(first) if ctx.delayed else first, x, ctx.reverse)
            if ctx.delayed:
                da = da if da.shape[0] == 1 else _shifted(torch.zeros_like(da[0]), da, ctx.reverse)
            drive = drive + da * before
        return _apply(a, drive, dfirst, ctx.reverse, ctx.delayed)
