"""The linear recurrence on a GPU, in one pass over memory, as a Triton kernel.

Every program walks along time with a few columns: it loads a tile of T steps at once, scans it in registers by

    (a1, b1) then (a2, b2)  =  (a1 a2, a2 b1 + b2),

puts the state before the tile in, and goes on with the last row. The order of all sums is fixed, so results are the
same on every run. Any length, any number of columns; complex numbers are pairs of reals.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .scans import steps

STEPS, COLUMNS = 64, 32  # of a tile


@triton.jit
def _then(a1, b1, a2, b2):
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _then_complex(ar1, ai1, br1, bi1, ar2, ai2, br2, bi2):
    return (
        ar1 * ar2 - ai1 * ai2,
        ar1 * ai2 + ai1 * ar2,
        ar2 * br1 - ai2 * bi1 + br2,
        ar2 * bi1 + ai2 * br1 + bi2,
    )


@triton.jit
def _row(k, length, reverse: tl.constexpr):
    """The row of memory of the k-th step in the order of running."""
    return length - 1 - k if reverse else k


@triton.jit
def _last(x, steps: tl.constexpr):
    """The last row of a tile."""
    return tl.sum(tl.where((tl.arange(0, steps) == steps - 1)[:, None], x, 0.0), axis=0)


@triton.jit
def _scan_kernel(
    a, b, first, out, length, width,
    constant: tl.constexpr, reverse: tl.constexpr, delayed: tl.constexpr, complex: tl.constexpr,
    steps: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """x_k = a_k x_{k-1} + b_k for columns of (length, width) arrays; see `scans` for `delayed`."""
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    inside = column < width
    scale: tl.constexpr = 2 if complex else 1
    x = tl.load(first + scale * column, mask=inside, other=0.0)
    xi = tl.load(first + scale * column + 1, mask=inside, other=0.0) if complex else x
    late: tl.constexpr = 1 if delayed else 0
    for start in range(0, length, steps):
        k = start + tl.arange(0, steps)
        here = (k < length)[:, None] & inside[None, :]
        at = scale * (_row(k, length, reverse)[:, None].to(tl.int64) * width + column[None, :])
        gated = here & (k >= late)[:, None]  # a delayed gate is 0 at first: the state before is not seen
        row = k * 0 if constant else _row(k - late, length, reverse)
        gate_at = scale * (row[:, None].to(tl.int64) * width + column[None, :])
        gate = tl.load(a + gate_at, mask=gated, other=0.0)
        drive = tl.load(b + at, mask=here, other=0.0)
        if complex:
            gate_im = tl.load(a + gate_at + 1, mask=gated, other=0.0)
            drive_im = tl.load(b + at + 1, mask=here, other=0.0)
            gate, gate_im, drive, drive_im = tl.associative_scan((gate, gate_im, drive, drive_im), 0, _then_complex)
            zero = ((x == 0) & (xi == 0))[None, :]
            re = drive + tl.where(zero, 0.0, gate * x[None, :] - gate_im * xi[None, :])
            im = drive_im + tl.where(zero, 0.0, gate * xi[None, :] + gate_im * x[None, :])
            tl.store(out + at, re, mask=here)
            tl.store(out + at + 1, im, mask=here)
            x, xi = _last(re, steps), _last(im, steps)
        else:
            gate, drive = tl.associative_scan((gate, drive), 0, _then)
            states = drive + tl.where((x == 0)[None, :], 0.0, gate * x[None, :])  # 0, where a product overflowed
            tl.store(out + at, states, mask=here)
            x = _last(states, steps)


def scan(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    """x_k = a_k x_{k-1} + b_k along axis 0 of b (L, ...); a (L or 1, ...) broadcasts, first (...)."""
    length = b.shape[0]
    out = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    if out.numel() == 0:
        return out
    width = out.numel() // length
    constant = a.shape[0] == 1 and length > 1
    a = a.expand(1 if constant else length, *b.shape[1:])
    arrays = [_flat(x) for x in (a, b, first.expand(b.shape[1:]), out)]
    grid = (triton.cdiv(width, COLUMNS),)
    _scan_kernel[grid](
        *arrays, length, width, constant=constant, reverse=reverse, delayed=delayed, complex=b.is_complex(),
        steps=STEPS, columns=COLUMNS,
    )  # fmt: skip
    return out


def _flat(x: Tensor) -> Tensor:
    """The memory of x in order, complex numbers as pairs."""
    x = x.resolve_conj().contiguous()
    return torch.view_as_real(x) if x.is_complex() else x


def probe(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what the kernel and the steps one by one give."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.complex64):
        a, b = (torch.randn(70, 40, dtype=dtype, generator=generator).to(device) for _ in range(2))
        a, first = a / (1 + a.abs()), b[0] + 1
        for reverse, delayed in ((False, False), (True, True)):
            yield scan(a, b, first, reverse, delayed), steps(a, b, first, reverse, delayed)
