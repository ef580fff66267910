"""The linear recurrence x_k = a_k x_{k-1} + b_k for PyTorch, with time on axis 0.

Its adjoint runs the other way with the conjugate gate of the step after:

    l_k = g_k + conj(a_{k+1}) l_{k+1},    grad b = l,    grad a_k = l_k conj(x_{k-1}),    grad x_{-1} = conj(a_0) l_0

The gate that arrives one step late is the flag `delayed`: x_k = a_{k-1} x_{k-1} + b_k, x_0 = b_0 (in the order of
running). The adjoint of a delayed scan is one that is not, so the backward calls the same operator, to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ssm_core._arrays.sizes import STEPS
from ssm_core.recurrences.fold import fold

from ..functions import is_symbol
from ..gpu import kernels
from ..transforms import forward_mode, reduced, transformed

Tensors = list[Tensor] | tuple[Tensor, ...]
NARROW = 2048  # numbers a step below which launching a step costs more than its arithmetic


def linear_scan(a: Tensor, b: Tensor, initial: Tensor | None, *, axis: int, reverse: bool) -> Any:
    """Fused `ssm_core.recurrences.linear._linear_scan`."""
    if torch.compiler.is_compiling() and forward_mode():
        return NotImplemented  # the traced operator has no tangents
    a, b = a.movedim(axis, 0), b.movedim(axis, 0)
    if b.shape[0] == 0:
        return b.movedim(0, axis)
    first = b.new_zeros(b.shape[1:]) if initial is None else initial.expand(b.shape[1:])
    if torch.compiler.is_exporting():
        return _exported(a, b, first, reverse).movedim(0, axis)
    return _apply(a, b, first, reverse, False).movedim(0, axis)


def _exported(a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """In PyTorch's own operators, which need nothing of this package to run.

    Complex numbers are (Re, Im) along a last axis: within a loop PyTorch differentiates no slices of complex tensors.
    """
    if reverse:
        return _exported(a if len(a) == 1 else a.flip(0), b.flip(0), first, False).flip(0)
    times = _complex_product if b.is_complex() else torch.mul
    if b.is_complex():
        a, b, first = (torch.view_as_real(x.resolve_conj()) for x in (a, b, first))

    def body(x: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        states = _by_doubling(a, b, x, times)
        return states[-1], states

    if not is_symbol(b.shape[0]):
        x = _by_doubling(a, b, first, times)
    elif is_symbol(a.shape[0]):
        x, _ = fold(body, first, (b, a), (), chunk=STEPS)
    else:
        x, _ = fold(body, first, (b,), (a,), chunk=STEPS)
    return x if times is torch.mul else torch.complex(x[..., 0], x[..., 1])


def _by_doubling(a: Tensor, b: Tensor, first: Tensor, times: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """After round i every state holds the sum over its last 2^i steps, and every gate their product."""
    a = a.expand(len(b), *a.shape[1:])
    x = torch.cat([b[:1] + times(a[:1], first), b[1:] + torch.zeros_like(a[:1])])
    shift = 1
    while shift < len(b):
        x = torch.cat([x[:shift], x[shift:] + times(a[shift:], x[:-shift])])
        a = torch.cat([a[:shift], times(a[shift:], a[:-shift])])
        shift *= 2
    return x


def _complex_product(p: Tensor, q: Tensor) -> Tensor:
    a, b, c, d = p[..., 0], p[..., 1], q[..., 0], q[..., 1]
    return torch.stack([a * c - b * d, a * d + b * c], -1)


def _apply(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    function = _LinearScan if torch.compiler.is_compiling() else _LinearScanForward
    return function.apply(a, b, first, reverse, delayed)


@torch.library.custom_op("ssm_core::linear_scan", mutates_args=())
def _operator(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    triton = kernels("scans", b.device, b.dtype)
    if triton is not None:
        states: Tensor = triton.scan(a, b, first, reverse, delayed)
        return states
    return steps(a, b, first, reverse, delayed)


def like(b: Tensor) -> Tensor:
    """Memory for states: in the order of b on a GPU, and with time first on a CPU, where a step then fills a row."""
    return torch.empty_like(b) if b.is_cuda else torch.empty(b.shape, dtype=b.dtype, device=b.device)


def steps(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    """Launched one after another, or in blocks, into a copy of b."""
    out, a, first = like(b).copy_(b), a.resolve_conj(), first.resolve_conj()
    if out.numel() == 0:
        return out
    if _blocked(b):
        _scan_in_blocks(a, first, reverse, delayed, out)
        return out
    states, gates = _in_order(out, reverse), _in_order(a, reverse)
    if len(gates) == 1:
        gates *= len(states)
    if delayed:
        add_products(states[1:], gates[: len(states) - 1], states[:-1])
    else:
        add_products(states, gates, [first, *states[:-1]])
    return out


def _in_order(x: Tensor, reverse: bool) -> list[Tensor]:
    """The steps in the order of running."""
    steps = x.unbind(0)
    return list(reversed(steps) if reverse else steps)


def add_products(sums: Tensors, a: Tensors, b: Tensors) -> None:
    """sums_k += a_k b_k, one after another: b_k may be the sum before.

    On a CPU PyTorch runs through the lists itself, for half of what it costs to launch every product from Python.
    """
    if sums and sums[0].device.type == "cpu" and _lists_run_in_order():
        torch._foreach_addcmul_(sums, a, b)
        return
    for sum_, factor, other in zip(sums, a, b, strict=True):
        sum_.addcmul_(factor, other)


@cache
def _lists_run_in_order() -> bool:
    """Whether a member of the list may read what became of the one before. PyTorch does so, and does not promise it."""

    def counted() -> bool:
        ones = torch.ones(8, 2, device="cpu")
        torch._foreach_addcmul_(ones[1:].unbind(0), ones[1:].unbind(0), ones[:-1].unbind(0))
        return ones[:, 0].tolist() == list(range(1, 9))

    with ThreadPoolExecutor(1) as alone:  # out of the caller's modes, which may have no numbers to look at
        return alone.submit(counted).result()


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
    return kernels("scans", x.device, x.dtype).adjoint(a, first, x, g, reverse)


@_adjoint_operator.register_fake
def _(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty((1, *x.shape[1:])) if a.shape[0] == 1 else like(x), like(x)


def _blocked(b: Tensor) -> bool:
    """Whether launching the steps one by one would cost more than a second pass over memory."""
    return b.shape[0] >= 64 and (b[0].numel() < NARROW or b.is_cuda)


def _scan_in_blocks(a: Tensor, x: Tensor, reverse: bool, delayed: bool, out: Tensor) -> None:
    """A blocks of T steps side by side, in about 4 T + 3 A launches instead of A T, and in the memory of the result.

    States from zero come first, then the states between blocks, then what these add to every step.
    """
    length, constant = out.shape[0], a.shape[0] == 1
    T = max(1, round(length**0.5)) | 1  # odd: rows a power of two apart would share their sets of the cache
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
    states, through = rows(out, first), gate(first)
    for r in others:
        states = rows(out, r).addcmul_(gate(r), states)
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
        x = out[k].addcmul_(a[0 if constant else k + late], x)


def _shifted(first: Tensor, x: Tensor, reverse: bool) -> Tensor:
    """The state before every step."""
    return torch.cat([x[1:], first.unsqueeze(0)]) if reverse else torch.cat([first.unsqueeze(0), x[:-1]])


def _fused_adjoint(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor] | None:
    """The gradients of a, as it broadcasts, and of b in one pass over memory: by the kernel, or by steps that are wide.

    None where a derivative of them may be wanted, and where launching the steps would cost more than it saves.
    """
    if torch.is_grad_enabled() or transformed(g):
        return None
    if kernels("scans", x.device, x.dtype) is not None:
        return _adjoint_operator(a, first, x, g, reverse)
    if torch.compiler.is_compiling() or _blocked(x):
        return None
    return adjoint_steps(a, first, x, g, reverse)


def adjoint_steps(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The gradient of a gate that is constant in time is one row.

    The conjugate of the adjoint, conj(l_k) = conj(g_k) + a_{k+1} conj(l_{k+1}), takes the gates as they are in memory.
    """
    adjoint, a = like(x).copy_(g.conj()), a.resolve_conj()
    running, gates = _in_order(adjoint, not reverse), _in_order(a, not reverse)
    others = running[1:]
    gates = gates * len(others) if a.shape[0] == 1 else gates[:-1]
    add_products(others, gates, running[:-1])
    before, after, start = (x[1:], adjoint[:-1], -1) if reverse else (x[:-1], adjoint[1:], 0)
    if a.shape[0] == 1:
        grad_a = (adjoint[start] * first).unsqueeze(0)
        add_products([grad_a[0]] * len(others), after.unbind(0), before.unbind(0))
    else:
        grad_a = like(x)
        torch.mul(after, before, out=grad_a[:-1] if reverse else grad_a[1:])
        torch.mul(adjoint[start], first, out=grad_a[start])
    if x.is_complex():
        grad_a.conj_physical_(), adjoint.conj_physical_()
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
