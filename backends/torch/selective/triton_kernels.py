"""The selective scan on a GPU, in one pass over memory, as Triton kernels.

    x_k = a_k x_{k-1} + dt_k B_k u_k,   a_k = exp(dt_k A),   y_k = sum_n C_k x_k

with a_k = 0 at resets. Beyond the length of a sequence everything loads as zero, so that the state stays as it is.
The adjoint l of x runs the other way. With g the gradient of y, and m_k that of the state before step k,

    l_k = C_k g_k + m_{k+1},   m_k = a_k l_k,   m_L = gradient of the last state,   m_0 = gradient of the first

    grad u_k = dt_k sum_n l_k B_k             grad dt_k = sum_n A m_k x_{k-1} + u_k sum_n l_k B_k
    grad A = sum_k dt_k m_k x_{k-1}           grad B_k = sum_h l_k dt_k u_k           grad C_k = sum_h x_k g_k

Every program walks along time with some channels of one sequence, in tiles (T steps, D channels, N states). D and N
lie across threads and T in the registers of each, so that a scan along time needs no exchange. The forward keeps the
state before every tile, from which the backward computes those inside again. Sums over channels are written one part
a program and added by torch, in an order that never changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .body import groups, tile

# Of tiles in flight forward and backward, loaded while the one before is computed. Registers that wait for a load are
# free then: on Hopper 64 instead of 96 a thread forward, so that twice as many programs run side by side.
STAGES = (3, 2)


@triton.jit
def _then(a1, b1, a2, b2):
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _then_but_last(a1, b1, p1, q1, a2, b2, p2, q2):
    """(a, b) of all steps, and (p, q) of all but the last: (1, 0) for one step."""
    return a1 * a2, a2 * b1 + b2, a1 * p2, p2 * b1 + q2


@triton.jit
def _channels(inner, groups, D: tl.constexpr):
    """Sequence, group and channels of this program, and which of them exist."""
    blocks = tl.cdiv(inner, D)
    program = tl.program_id(0).to(tl.int64)
    group = (program // blocks) % groups
    column = (program % blocks) * D + tl.arange(0, D)
    return program // blocks // groups, group, group * inner + column, column < inner


@triton.jit
def _load(x, row, row_stride, column, column_stride, mask):
    return tl.load(x + row[:, None] * row_stride + column[None, :] * column_stride, mask=mask, other=0.0)


@triton.jit
def _store(x, row, row_stride, column, column_stride, value, mask):
    tl.store(x + row[:, None] * row_stride + column[None, :] * column_stride, value, mask=mask)


@triton.jit
def _rows(x, i, group, k, h, n, known, real, stride0, stride1, stride2, stride3, constant: tl.constexpr):
    """B or C of a tile, which broadcasts to (T, D, N)."""
    if constant:
        rows = _load(x, h, stride0, n, stride1, real)[None, :, :]
    else:
        rows = _load(x + i * stride0 + group * stride1, k, stride3, n, stride2, known)[:, None, :]
    return rows


@triton.jit
def _gates(steps, poles, reset, first_reset, k, stop, resets: tl.constexpr):
    gate = tl.exp(steps[:, :, None] * poles[None, :, :])
    if resets:
        zeroed = tl.load(reset + first_reset + k, mask=k < stop, other=0) != 0
        gate = tl.where(zeroed[:, None, None], 0.0, gate)
    return gate


@triton.jit
def _row_of(x, row, T: tl.constexpr):
    """One step of a tile."""
    return tl.sum(tl.where((tl.arange(0, T) == row)[:, None, None], x, 0.0), axis=0)


@triton.jit
def _forward_kernel(
    u, dt, A, B, C, first, reset, lengths, y, last, starts,
    u0, u1, u2, dt0, dt1, dt2, B0, B1, B2, B3, C0, C1, C2, C3, y0, y1, y2,
    channels, inner, groups, length, states, B_share, C_share,
    B_constant: tl.constexpr, C_constant: tl.constexpr, resets: tl.constexpr, bounded: tl.constexpr,
    keep: tl.constexpr, stages: tl.constexpr, T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    i, group, h, inside = _channels(inner, groups, D)
    n = tl.arange(0, N).to(tl.int64)
    real = inside[:, None] & (n < states)[None, :]
    poles = _load(A, h, states, n, 1, real)
    x = _load(first, i * channels + h, states, n, 1, real)
    stop = length
    if bounded:
        stop = tl.minimum(tl.load(lengths + i).to(tl.int32), length)
    for start in tl.range(0, length, T, num_stages=stages):
        if keep:
            _store(starts, (i * tl.cdiv(length, T) + start // T) * channels + h, states, n, 1, x, real)
        k = (start + tl.arange(0, T)).to(tl.int64)
        here = (k < stop)[:, None] & inside[None, :]
        known = (k < stop)[:, None] & (n < states)[None, :]
        steps = _load(dt + i * dt0, k, dt2, h, dt1, here)
        signal = _load(u + i * u0, k, u2, h, u1, here)
        b = _rows(B, i, group // B_share, k, h, n, known, real, B0, B1, B2, B3, B_constant)
        c = _rows(C, i, group // C_share, k, h, n, known, real, C0, C1, C2, C3, C_constant)
        gate = _gates(steps, poles, reset, i * length, k, stop, resets)
        through, local = tl.associative_scan((gate, (steps * signal)[:, :, None] * b), 0, _then)
        after = local + through * x[None, :, :]
        read = tl.where(here, tl.sum(after * c, axis=2), 0.0)
        _store(y + i * y0, k, y2, h, y1, read, (k < length)[:, None] & inside[None, :])
        x = _row_of(after, T - 1, T)
    _store(last, i * channels + h, states, n, 1, x, real)


@triton.jit
def _backward_kernel(
    g, last, u, dt, A, B, C, starts, reset, lengths, grad_u, grad_dt, grad_A, grad_B, grad_C, grad_first,
    g0, g1, g2, u0, u1, u2, dt0, dt1, dt2, B0, B1, B2, B3, C0, C1, C2, C3, gu0, gu1, gu2, gdt0, gdt1, gdt2,
    channels, inner, groups, length, states, B_share, C_share,
    B_constant: tl.constexpr, C_constant: tl.constexpr, resets: tl.constexpr, bounded: tl.constexpr,
    want_B: tl.constexpr, want_C: tl.constexpr, stages: tl.constexpr,
    T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    i, group, h, inside = _channels(inner, groups, D)
    n = tl.arange(0, N).to(tl.int64)
    real = inside[:, None] & (n < states)[None, :]
    row = i * channels + h
    part = tl.program_id(0).to(tl.int64) * length
    poles = _load(A, h, states, n, 1, real)
    m = _load(last, row, states, n, 1, real)
    sum_A = tl.zeros((D, N), dtype=m.dtype)
    sum_B = tl.zeros((D, N), dtype=m.dtype)
    sum_C = tl.zeros((D, N), dtype=m.dtype)
    one = tl.full((T, D, N), 1.0, dtype=m.dtype)
    zero = tl.zeros((T, D, N), dtype=m.dtype)
    stop = length
    if bounded:
        stop = tl.minimum(tl.load(lengths + i).to(tl.int32), length)
    count = tl.cdiv(length, T)
    for past in tl.range(0, count, num_stages=stages):
        k = ((count - 1 - past) * T + tl.arange(0, T)).to(tl.int64)
        here = (k < stop)[:, None] & inside[None, :]
        known = (k < stop)[:, None] & (n < states)[None, :]
        written = (k < length)[:, None] & inside[None, :]
        of_part = (k < length)[:, None] & (n < states)[None, :]
        steps = _load(dt + i * dt0, k, dt2, h, dt1, here)
        signal = _load(u + i * u0, k, u2, h, u1, here)
        slope = _load(g + i * g0, k, g2, h, g1, here)
        b = _rows(B, i, group // B_share, k, h, n, known, real, B0, B1, B2, B3, B_constant)
        c = _rows(C, i, group // C_share, k, h, n, known, real, C0, C1, C2, C3, C_constant)
        gate = _gates(steps, poles, reset, i * length, k, stop, resets)

        x = _load(starts, (i * count + count - 1 - past) * channels + h, states, n, 1, real)
        drive = (steps * signal)[:, :, None] * b
        _a, _b, through, local = tl.associative_scan((gate, drive, one, zero), 0, _then_but_last)
        before = local + through * x[None, :, :]
        if want_C:
            of_C = (gate * before + drive) * slope[:, :, None]
            if C_constant:
                sum_C += tl.sum(of_C, axis=0)
            else:
                _store(grad_C, part + k, states, n, 1, tl.sum(of_C, axis=1), of_part)

        read = slope[:, :, None] * c
        _a, _b, through, local = tl.associative_scan((gate, gate * read, one, zero), 0, _then_but_last, reverse=True)
        adjoint = read + (local + through * m[None, :, :])
        driven = tl.sum(adjoint * b, axis=2)
        _store(grad_u + i * gu0, k, gu2, h, gu1, steps * driven, written)
        if want_B:
            of_B = adjoint * (steps * signal)[:, :, None]
            if B_constant:
                sum_B += tl.sum(of_B, axis=0)
            else:
                _store(grad_B, part + k, states, n, 1, tl.sum(of_B, axis=1), of_part)
        adjoint = gate * adjoint
        m = _row_of(adjoint, 0, T)
        of_gate = adjoint * before
        of_steps = tl.sum(of_gate * poles[None, :, :], axis=2) + signal * driven
        _store(grad_dt + i * gdt0, k, gdt2, h, gdt1, tl.where(here, of_steps, 0.0), written)
        sum_A += tl.sum(of_gate * steps[:, :, None], axis=0)
    _store(grad_A, row, states, n, 1, sum_A, real)
    _store(grad_first, row, states, n, 1, m, real)
    if want_B and B_constant:
        _store(grad_B, row, states, n, 1, sum_B, real)
    if want_C and C_constant:
        _store(grad_C, row, states, n, 1, sum_C, real)


class _Launch:
    """The programs of a kernel, and the numbers that each gets."""

    def __init__(
        self, u: Tensor, A: Tensor, B: Tensor, C: Tensor, reset: Tensor | None, lengths: Tensor | None, T: int
    ):
        (batch, H, length), states = u.shape, A.shape[1]
        self.of = [1 if x.ndim == 2 else x.shape[1] for x in (B, C)]
        self.groups = groups(B, C)
        inner = H // self.groups
        _, D, N, warps = tile(states, inner)
        self.blocks = triton.cdiv(inner, D)
        self.grid = (batch * self.groups * self.blocks,)
        self.state, self.starts = (batch, H, states), (batch, triton.cdiv(length, T), H, states)
        self.numbers = (H, inner, self.groups, length, states, *(self.groups // count for count in self.of))
        self.options: dict[str, Any] = {
            "B_constant": B.ndim == 2, "C_constant": C.ndim == 2, "resets": reset is not None,
            "bounded": lengths is not None, "T": T, "D": D, "N": N, "num_warps": warps, "enable_fp_fusion": True,
        }  # fmt: skip
        self.masks = (
            None if reset is None else reset.contiguous().view(torch.uint8),
            None if lengths is None else lengths.contiguous(),
        )


def _strides(*arrays: Tensor) -> list[int]:
    """Of (batch, H, L) three, of rows four."""
    return [s for x in arrays for s in (*x.stride(), *(0,) * (2 if x.ndim == 2 else 0))]


def forward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor, reset: Tensor | None,
    lengths: Tensor | None, keep: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y in the memory order of u, the last state, and with `keep` the state before every tile."""
    launch = _Launch(u, A, B, C, reset, lengths, T)
    y, last = torch.empty_like(u), u.new_empty(launch.state)
    starts = u.new_empty(launch.starts if keep else 0)
    with torch.cuda.device_of(u):
        _forward_kernel[launch.grid](
            u, dt, A.contiguous(), B, C, first.contiguous(), *launch.masks, y, last, starts,
            *_strides(u, dt, B, C, y), *launch.numbers, keep=keep, stages=STAGES[0], **launch.options,
        )  # fmt: skip
    return y, last, starts


def backward(
    g: Tensor, g_last: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor,
    reset: Tensor | None, lengths: Tensor | None, want_B: bool, want_C: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of u, dt, A, B, C and the first state; those of rows of every step are (batch, G, L, N)."""
    launch = _Launch(u, A, B, C, reset, lengths, T)
    grad_u, grad_dt = torch.empty_like(u), torch.empty_like(dt)
    grad_A, grad_first = u.new_empty(launch.state), u.new_empty(launch.state)
    batch, _, length = u.shape
    parts = []
    for x, count, wanted in zip((B, C), launch.of, (want_B, want_C), strict=True):
        programs = launch.groups // count * launch.blocks
        shape = launch.state if x.ndim == 2 else (batch, count, programs, length, A.shape[1])
        parts.append(u.new_empty(shape if wanted else 0))
    with torch.cuda.device_of(u):
        _backward_kernel[launch.grid](
            g, g_last.contiguous(), u, dt, A.contiguous(), B, C, starts, *launch.masks,
            grad_u, grad_dt, grad_A, *parts, grad_first,
            *_strides(g, u, dt, B, C, grad_u, grad_dt), *launch.numbers, want_B=want_B, want_C=want_C,
            stages=STAGES[1], **launch.options,
        )  # fmt: skip
    grad_B, grad_C = (part if part.ndim == 1 else part.sum(0 if part.ndim == 3 else 2) for part in parts)
    return grad_u, grad_dt, grad_A.sum(0), grad_B, grad_C, grad_first


def probe(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what the kernels and the recurrence as written give: of full tiles, and with everything."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    slow = os.environ.get("TRITON_INTERPRET") == "1"
    odd, full = ((2, 2, 2, 17), (1, 16, 1, 16)) if slow else ((2, 48, 13, 37), (1, 64, 16, 64))
    for (batch, H, N, L), count in ((full, 1), (odd, 0), (odd, 2)):
        T, rows = tile(N, H // max(1, count))[0], (batch, count, N, L) if count else (H, N)
        exact = [draw(batch, H, L), draw(batch, H, L).sigmoid(), -draw(H, N).exp(), draw(*rows), draw(*rows)]
        exact = [x.requires_grad_() for x in (*exact, draw(batch, H, N))]
        grads = [draw(batch, H, L), draw(batch, H, N)]
        reset, lengths = draw(batch, L) > 1.5, torch.tensor([L, L - 5], device="cpu")
        masks = [reset.to(device), lengths.to(device)]
        if count == 1:
            reset, lengths, masks = reset[:, :1].expand(-1, L) & False, lengths[:1], [None, None]
        outputs = _steps(*exact, reset, lengths)
        wanted = torch.autograd.grad(outputs, exact, grads)
        given: Any = [x.detach().to(device, dtype) for x in (*exact, *grads)]
        y, last, starts = forward(*[*given[:6], *masks, True, T])
        found = backward(*[*given[6:], *given[:5], starts, *masks, True, True, T])
        for x, right in zip((y, last, *found), (*outputs, *wanted), strict=True):
            yield x.mT if x.ndim == 4 else x, right


def _steps(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The recurrence as written, step by step; zero beyond the lengths."""
    u, dt, A, B, C, x, reset, lengths = arguments
    H, outputs = u.shape[1], []
    for k in range(u.shape[2]):
        b, c = (m if m.ndim == 2 else m[..., k].repeat_interleave(H // m.shape[1], dim=1) for m in (B, C))
        steps, valid = dt[:, :, k, None], (k < lengths)[:, None, None]
        before = x.where(~reset[:, k, None, None], 0)
        x = ((steps * A).exp() * before + steps * u[:, :, k, None] * b).where(valid, x)
        outputs.append((c * x).where(valid, 0).sum(-1))
    return torch.stack(outputs, dim=-1), x
