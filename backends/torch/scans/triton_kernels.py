"""The linear recurrence and its adjoint on a GPU, each in one pass over memory, as one Triton kernel.

Every program walks along time with a few columns: it loads a tile of T steps at once, puts the state before them into
the first one, b_0 + a_0 x, and scans the tile in registers by

    (a1, b1) then (a2, b2)  =  (a1 a2, a2 b1 + b2).

The adjoint is the scan the other way with the gates of the step after. It meets the states x on its way, so that the
gradient of the gate takes no pass of its own:

    l_k = g_k + conj(a_{k+1}) l_{k+1},    grad b = l,    grad a_k = l_k conj(x_{k-1})

Where columns are so few that programs of them alone would leave the GPU idle, time is split into segments, in two
passes. The first gives of every segment the product P of its gates and its last state s from zero, each run by a
program of its own. In the second every program puts the segments before its own together,

    x = P_{i-1} x + s_{i-1} = ... ,

in the same way as the steps of a tile, and runs its segment from there. Of the adjoint P and s are those of the delayed
gates, and the rest is the same.

Time and the columns, which are up to three axes, have any strides: wherever time is, nothing is copied. The order of
all sums is fixed, so results are the same on every run. A complex64 is loaded and stored as one word of 64 bits, a
complex128 as a pair of reals.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssm_core._arrays.shapes import merged

from .body import adjoint_steps, like, steps

# Bytes of a tile: 16 registers a thread, of which at most 8 tiles live at once. The interpreter goes number by number.
# Programs that are on a GPU at once: four on each of 132 multiprocessors, each with two tiles under way.
# Segments from which time is split: two passes over 1/n of the time each, which read twice, are then well below one.
TILE, PROGRAMS, FEWEST = (512, 2, 2) if os.environ.get("TRITON_INTERPRET") == "1" else (8192, 512, 8)
STAGES, WARPS = 3, 4


@triton.jit
def _then(a1, b1, a2, b2):
    return a1 * a2, tl.where(b1 == 0, b2, a2 * b1 + b2)  # a product that overflowed meets no zero


@triton.jit
def _then_complex(ar1, ai1, br1, bi1, ar2, ai2, br2, bi2):
    zero = (br1 == 0) & (bi1 == 0)
    return (
        ar1 * ar2 - ai1 * ai2,
        ar1 * ai2 + ai1 * ar2,
        tl.where(zero, br2, ar2 * br1 - ai2 * bi1 + br2),
        tl.where(zero, bi2, ar2 * bi1 + ai2 * br1 + bi2),
    )


@triton.jit
def _load(memory, at, mask, form: tl.constexpr):
    """Real and imaginary parts. Of reals the second is not used."""
    if form == "real":
        re = tl.load(memory + at, mask=mask, other=0.0)
        im = re
    elif form == "word":
        word = tl.load(memory + at, mask=mask, other=0)
        re = word.to(tl.int32).to(tl.float32, bitcast=True)
        im = (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    else:
        re = tl.load(memory + 2 * at, mask=mask, other=0.0)
        im = tl.load(memory + 2 * at + 1, mask=mask, other=0.0)
    return re, im


@triton.jit
def _store(memory, at, re, im, mask, form: tl.constexpr):
    if form == "real":
        tl.store(memory + at, re, mask=mask)
    elif form == "word":
        low = re.to(tl.uint32, bitcast=True).to(tl.int64)
        tl.store(memory + at, (im.to(tl.uint32, bitcast=True).to(tl.int64) << 32) | low, mask=mask)
    else:
        tl.store(memory + 2 * at, re, mask=mask)
        tl.store(memory + 2 * at + 1, im, mask=mask)


@triton.jit
def _row(x, chosen):
    return tl.sum(tl.where(chosen, x, 0.0), axis=0)


@triton.jit
def _entering(products, lasts, segment, column, width, state, state_im, segments: tl.constexpr, form: tl.constexpr):
    """The state before a segment: of the rows (1, state), (P_0, s_0), (P_1, s_1), ..., and (1, 0) from its own on."""
    i = tl.arange(0, segments)[:, None]
    known = (i > 0) & (i <= segment) & (column < width)[None, :]
    gate, gate_im = _load(products, (i - 1) * width + column[None, :], known, form)
    drive, drive_im = _load(lasts, (i - 1) * width + column[None, :], known, form)
    gate, drive = tl.where(known, gate, 1.0), tl.where(i == 0, state[None, :], drive)
    if form == "real":
        _, drive = tl.associative_scan((gate, drive), 0, _then)
    else:
        drive_im = tl.where(i == 0, state_im[None, :], drive_im)
        _, _, drive, drive_im = tl.associative_scan((gate, gate_im, drive, drive_im), 0, _then_complex)
    return _row(drive, i == segments - 1), _row(drive_im, i == segments - 1)


@triton.jit
def _scan_kernel(
    a, b, x, out, grad_a, first, products, lasts, length, tiles_each, width, middle, inner,
    a_time, a_outer, a_middle, a_inner, b_time, b_outer, b_middle, b_inner,
    x_time, x_outer, x_middle, x_inner, out_time, out_outer, out_middle, out_inner,
    constant: tl.constexpr, reverse: tl.constexpr, delayed: tl.constexpr, adjoint: tl.constexpr,
    form: tl.constexpr, stages: tl.constexpr, steps: tl.constexpr, columns: tl.constexpr,
    segments: tl.constexpr, summary: tl.constexpr,
):  # fmt: skip
    """x_k = a_k x_{k-1} + b_k. For the adjoint b is g, x the states, first what was before them, and all is delayed.

    With a summary, of every segment of time P into `products` and s into `lasts`, which are read without. `segments`
    is a power of two, and those that run after the last step have no programs.
    """
    program, segment, begin_tile, tiles = tl.program_id(0), 0, 0, tl.cdiv(length, steps)
    end_tile = tiles
    if summary or segments > 1:
        across = tl.cdiv(width, columns)
        program, segment = program % across, program // across
        begin_tile, end_tile = segment * tiles_each, tl.minimum((segment + 1) * tiles_each, tiles)
    column = program * columns + tl.arange(0, columns)
    inside = column < width
    i = (column % inner).to(tl.int64)[None, :]
    m = (column // inner % middle).to(tl.int64)[None, :]
    o = (column // inner // middle).to(tl.int64)[None, :]
    in_a = o * a_outer + m * a_middle + i * a_inner
    in_b = o * b_outer + m * b_middle + i * b_inner
    in_x = o * x_outer + m * x_middle + i * x_inner
    in_out = o * out_outer + m * out_middle + i * out_inner
    rows = tl.arange(0, steps)
    edge, last = (rows == (steps - 1 if reverse else 0))[:, None], (rows == (0 if reverse else steps - 1))[:, None]
    back: tl.constexpr = 1 if reverse else -1  # from a step to the one before it, in the order of running

    begin, begin_im = _load(first, column, inside, form)
    state, state_im = begin, begin_im
    if adjoint:
        state, state_im = tl.zeros_like(begin), tl.zeros_like(begin)
    through, through_im = tl.full([columns], 1.0, begin.dtype), tl.zeros([columns], begin.dtype)
    if summary:
        state, state_im = tl.zeros_like(begin), tl.zeros_like(begin)
    elif segments > 1:
        state, state_im = _entering(products, lasts, segment, column, width, state, state_im, segments, form)
    fixed, fixed_im = _load(a, in_a, inside[None, :], form)
    total, total_im = tl.zeros([steps, columns], fixed.dtype), tl.zeros([steps, columns], fixed.dtype)
    for tile in tl.range(begin_tile, end_tile, num_stages=stages):
        k = (tiles - 1 - tile if reverse else tile) * steps + rows
        here = (k < length)[:, None] & inside[None, :]
        j = k + back if delayed else k
        gated = (j >= 0) & (j < length)  # a delayed gate is 0 at first: the state before is not seen
        if constant:
            gate = tl.where(gated[:, None], fixed, 0.0)
            gate_im = tl.where(gated[:, None], fixed_im, 0.0)
        else:
            gate, gate_im = _load(a, j[:, None].to(tl.int64) * a_time + in_a, gated[:, None] & here, form)
        gate = tl.where((k < length)[:, None], gate, 1.0)  # rows that are not there hand the state on
        drive, drive_im = _load(b, k[:, None].to(tl.int64) * b_time + in_b, here, form)
        if form == "real":
            drive = tl.where(edge, drive + gate * state[None, :], drive)
            gate, drive = tl.associative_scan((gate, drive), 0, _then, reverse=reverse)
        else:
            gate_im = tl.where((k < length)[:, None], -gate_im if adjoint else gate_im, 0.0)
            re = drive + gate * state[None, :] - gate_im * state_im[None, :]
            im = drive_im + gate * state_im[None, :] + gate_im * state[None, :]
            drive, drive_im = tl.where(edge, re, drive), tl.where(edge, im, drive_im)
            gate, gate_im, drive, drive_im = tl.associative_scan(
                (gate, gate_im, drive, drive_im), 0, _then_complex, reverse=reverse
            )
            state_im = _row(drive_im, last)
        state = _row(drive, last)
        if summary:
            p = _row(gate, last)
            if form == "real":
                through = through * p
            else:
                p_im = _row(gate_im, last)
                through, through_im = through * p - through_im * p_im, through * p_im + through_im * p
        else:
            at = k[:, None].to(tl.int64) * out_time + in_out
            _store(out, at, drive, drive_im, here, form)
            if adjoint:
                j = k - back
                seen = ((j >= 0) & (j < length))[:, None]
                before, before_im = _load(x, j[:, None].to(tl.int64) * x_time + in_x, seen & here, form)
                before = tl.where(seen, before, begin[None, :])
                product, product_im = drive * before, drive
                if form != "real":
                    before_im = tl.where(seen, before_im, begin_im[None, :])
                    product, product_im = product + drive_im * before_im, drive_im * before - drive * before_im
                if constant:
                    total, total_im = total + tl.where(here, product, 0.0), total_im + tl.where(here, product_im, 0.0)
                else:
                    _store(grad_a, at, product, product_im, here, form)
    row = segment * width + column
    if summary:
        _store(products, row, through, through_im, inside, form)
        _store(lasts, row, state, state_im, inside, form)
    elif adjoint and constant:
        _store(grad_a, row, tl.sum(total, axis=0), tl.sum(total_im, axis=0), inside, form)


def scan(a: Tensor, b: Tensor, first: Tensor, reverse: bool, delayed: bool) -> Tensor:
    """x_k = a_k x_{k-1} + b_k along axis 0 of b (L, ...); a (L or 1, ...) broadcasts, first (...)."""
    out = like(b)
    _launch(a, b, b, out, out, first, reverse=reverse, delayed=delayed, adjoint=False)
    return out


def adjoint(a: Tensor, first: Tensor, x: Tensor, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The gradients of the gate as it broadcasts, of one row where it is constant, and of b."""
    grad_b = like(x)
    grad_a = x.new_empty((1, *x.shape[1:])) if a.shape[0] == 1 else like(x)
    _launch(a, g, x, grad_b, grad_a, first, reverse=not reverse, delayed=True, adjoint=True)
    return grad_a, grad_b


def _launch(
    a: Tensor, b: Tensor, x: Tensor, out: Tensor, grad_a: Tensor, first: Tensor,
    *, reverse: bool, delayed: bool, adjoint: bool,
) -> None:  # fmt: skip
    if out.numel() == 0:
        return
    length, width = out.shape[0], out.numel() // out.shape[0]
    first = first.expand(out.shape[1:])
    arrays = [t.resolve_conj().resolve_neg() for t in (a.expand(a.shape[0], *out.shape[1:]), b, x, out)]
    axes = merged(out.shape[1:], *(t.stride()[1:] for t in arrays))
    if len(axes) > 3:
        for parts in zip(*(t.unbind(1) for t in (*arrays, grad_a)), first.unbind(0), strict=True):
            _launch(*parts, reverse=reverse, delayed=delayed, adjoint=adjoint)
        return
    axes = [(1, (0,) * 4)] * (3 - len(axes)) + axes
    strides = [(t.stride(0), *(stride[i] for _, stride in axes)) for i, t in enumerate(arrays)]
    least = 1 if out.stride(0) == 1 else 8  # a sector of memory is full with these
    columns = min(32, max(least, triton.next_power_of_2(width // PROGRAMS)))
    across, steps = triton.cdiv(width, columns), TILE // out.element_size() // columns
    tiles_each, segments = _segments(triton.cdiv(length, steps), min(steps, PROGRAMS // across))
    summaries = out.new_empty((2, segments, width)) if segments > 1 else (out, out)
    sums = grad_a if segments == 1 or not (adjoint and len(a) == 1) else grad_a.new_empty((segments, width))

    first = first.resolve_conj().resolve_neg().contiguous()

    def walk(segments: int, read: int, *, summary: bool) -> None:
        _scan_kernel[(across * segments,)](
            *(_words(t) for t in (*arrays, sums, first, *summaries)),
            length, tiles_each, width, axes[1][0], axes[2][0], *(n for of_one in strides for n in of_one),
            constant=len(a) == 1, reverse=reverse, delayed=delayed, adjoint=adjoint,
            form="word" if out.dtype == torch.complex64 else "pair" if out.is_complex() else "real",
            stages=STAGES, steps=steps, columns=columns, segments=read, summary=summary, num_warps=WARPS,
            enable_fp_fusion=True,
        )  # fmt: skip

    with torch.cuda.device_of(out):
        if segments > 1:
            walk(segments - 1, 1, summary=True)
        walk(segments, triton.next_power_of_2(segments), summary=False)
        if sums is not grad_a:
            torch.sum(sums, 0, out=grad_a.view(-1))


def _segments(tiles: int, most: int) -> tuple[int, int]:
    """Tiles of a segment of time, and segments: one, but where there may be enough of them to be worth two passes.

    There may be as many as programs of them fill the GPU with, and as tiles, and as rows of a tile, which then has room
    for what is known of all of them.
    """
    each = triton.cdiv(tiles, min(tiles, most)) if min(tiles, most) >= FEWEST else tiles
    return each, triton.cdiv(tiles, each)


def _words(x: Tensor) -> Tensor:
    """The memory of x as the kernel reads it."""
    return x.view(torch.int64) if x.dtype == torch.complex64 else torch.view_as_real(x) if x.is_complex() else x


def probe(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what the kernel and the steps one by one give: of full tiles, of others, and with time last."""
    generator, wide = torch.Generator().manual_seed(0), torch.promote_types(dtype, torch.float64)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=wide, generator=generator, device="cpu")

    odd, full, turned = (TILE // 32 + 6, 9), (TILE // 64, 32 * PROGRAMS), (2, TILE // 4)
    narrow = (TILE // 4 + 5, 3)
    cases = (full, False, False), (narrow, True, False), (narrow, False, True), (odd, True, True), (turned, True, False)
    for shape, reverse, constant in cases:
        a, b, g = (x.mT if shape is turned else x for x in (draw(*shape) for _ in range(3)))
        a, first = (a / (1 + a.abs()))[: 1 if constant else len(a)], b[0] + 1
        x = steps(a, b, first, reverse, reverse)
        on_device: Any = [v.to(device, dtype) for v in (a, b, first, x, g)]
        yield scan(*[*on_device[:3], reverse, reverse]), x
        found = adjoint(*[on_device[0], *on_device[2:], reverse])
        yield from zip(found, adjoint_steps(a, first, x, g, reverse), strict=True)
