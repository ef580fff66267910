"""The state space dual of Mamba-2 on a GPU, as Triton kernels: states by a walk over chunks, all else chunk by chunk.

In a chunk of T steps with rows i and j let c_i be the sums of its log gates, S the state before it and S' after it:

    M_ij = exp(c_i - c_j) for i >= j,    t_i = exp(c_i),    l_j = exp(c_T - c_j),    all 0 across a reset,
    y_i = sum_j M_ij (C_i . B_j) x_j + t_i S C_i,    S' = t_T S + sum_j l_j x_j B_j^T.

The adjoint, where A' is the gradient of S' and dy that of y:

    A = t_T A' + sum_i t_i dy_i C_i^T,    dx_j = sum_i M_ij (C_i . B_j) dy_i + l_j A' B_j,
    dB_j = sum_i M_ij (dy_i . x_j) C_i + l_j A'^T x_j,    dC_i = sum_j M_ij (dy_i . x_j) B_j + t_i S^T dy_i.

S and A are the same kind of walk, one of them backward in time. A gate multiplies whatever passes it. The gradient of
its logarithm is the sum of that, without differences that would lose the digits of what a strong decay leaves:

    dg_k = sum_{j < k <= i} M_ij (C_i . B_j) (dy_i . x_j) + sum_{i >= k} t_i dy_i . S C_i + sum_{j < k} l_j x_j . A' B_j
           + t_T <S, A'>.

At a reset it is 0. Steps beyond the length are those of x = B = C = 0 and a log gate of 0, which does not vary.

Between forward and backward only inputs are kept. While the forward runs, the states of all chunks take N / T times the
memory of x; in the backward they do twice, and dB and dC of a head N / P times each. A program adds up those of some
heads of a group, one after another; what several programs have of a group is summed in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssm_core.gated.ssd import FLOOR, _ssd
from ssm_core.recurrences.segments import Segments

# A tile of 64 by 64 is 32 registers for each of 128 threads. With states in blocks of 64 by 32 the walk and the outputs
# keep at most three such tiles besides the operands of a product, and spill nothing of them. The rows keep as much and
# two blocks more: they have twice the threads, and blocks of 32 by 32.
STEPS, P_BLOCK, N_BLOCK = 64, 64, 32
HEADS, PROGRAMS = 8, 512  # at most so many heads of a group in one program, where enough programs are left
WALK_STAGES = 2  # chunks in flight of the walk, which waits for memory: nothing else of a program goes on meanwhile
PRECISE = "tf32x3"  # float32 as three products of tf32
_FLOOR = tl.constexpr(FLOOR)


@triton.jit
def _place(b, k, h, length, heads: tl.constexpr, share: tl.constexpr):
    """Of a step: in arrays that have a row for every head, and in those with one for a group."""
    step = b * length + k
    return step * heads + h, step * (heads // share) + h // share


@triton.jit
def _here(lengths, b, start, length, ragged: tl.constexpr):
    """How many steps there are from a start on."""
    return (tl.minimum(tl.load(lengths + b), length) if ragged else length) - start


@triton.jit
def _tile(x, i, j, height, width, stride):
    """Rows i and columns j of a matrix, zeros outside of it."""
    inside = (i < height)[:, None] & (j < width)[None, :]
    return tl.load(x + (i * stride)[:, None] + j[None, :], mask=inside, other=0.0)


@triton.jit
def _put(x, i, j, height, width, stride, values):
    inside = (i < height)[:, None] & (j < width)[None, :]
    tl.store(x + (i * stride)[:, None] + j[None, :], values, mask=inside)


@triton.jit
def _add(x, i, j, height, width, stride, values, others):
    """To what others have put there, where there are any."""
    at, inside = x + (i * stride)[:, None] + j[None, :], (i < height)[:, None] & (j < width)[None, :]
    tl.store(at, values + tl.load(at, mask=inside & (others > 0), other=0.0), mask=inside)


@triton.jit
def _sums(g, reset, t, here, heads: tl.constexpr, resets: tl.constexpr):
    """Of log gates: of their multiples of a sixteenth, which are exact, and of the rest. And the number of resets."""
    gate = tl.load(g + t * heads, mask=t < here, other=0.0)
    gate = tl.where(gate < _FLOOR, _FLOOR, gate)
    coarse = tl.floor(16 * gate + 0.5) / 16
    segment = tl.cumsum(tl.load(reset + t, mask=t < here, other=0), axis=0) if resets else t * 0
    return tl.cumsum(coarse, axis=0), tl.cumsum(gate - coarse, axis=0), segment


@triton.jit
def _through(coarse, fine, segment):
    """The decay from before a chunk to each of its steps."""
    return tl.exp(tl.where(segment == 0, coarse + fine, float("-inf")))


@triton.jit
def _last(x, steps: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, steps) == steps - 1, x, 0), axis=0)


@triton.jit
def _left(coarse, fine, segment, steps: tl.constexpr):
    """The decay from each step to the end of its chunk."""
    log = (_last(coarse, steps) - coarse) + (_last(fine, steps) - fine)
    return tl.exp(tl.where(segment == _last(segment, steps), log, float("-inf")))


@triton.jit
def _decays(coarse, fine, segment, t):
    """From step j, a column, to step i, a row."""
    joined = (t[:, None] >= t[None, :]) & (segment[:, None] == segment[None, :])
    log = (coarse[:, None] - coarse[None, :]) + (fine[:, None] - fine[None, :])
    return tl.exp(tl.where(joined, log, float("-inf")))


@triton.jit
def _states_kernel(
    x, B, g, reset, lengths, first, states, last, length, chunks,
    heads: tl.constexpr, share: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    adjoint: tl.constexpr, resets: tl.constexpr, ragged: tl.constexpr,
    steps: tl.constexpr, p_block: tl.constexpr, n_block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """The state before every chunk and the last one; adjoint: backward in time, from dy and C in place of x and B."""
    series = tl.program_id(0).to(tl.int64)
    b, h = series // heads, series % heads
    p = tl.program_id(1) * p_block + tl.arange(0, p_block)
    n = tl.program_id(2) * n_block + tl.arange(0, n_block)
    t = tl.arange(0, steps)
    S = _tile(first + series * P * N, p, n, P, N, N)
    for i in range(chunks):
        c = chunks - 1 - i if adjoint else i
        _put(states + (series * chunks + c) * P * N, p, n, P, N, N, S)
        here = _here(lengths, b, c * steps, length, ragged)
        at, shared = _place(b, c * steps, h, length, heads, share)
        coarse, fine, segment = _sums(g + at, reset + (b * length + c * steps), t, here, heads, resets)
        through = _through(coarse, fine, segment)
        weight = through if adjoint else _left(coarse, fine, segment, steps)
        x_tile = weight[:, None] * _tile(x + at * P, t, p, here, P, heads * P)
        B_tile = _tile(B + shared * N, t, n, here, N, heads // share * N)
        S = _last(through, steps) * S + tl.dot(tl.trans(x_tile), B_tile, input_precision=precision)
    _put(last + series * P * N, p, n, P, N, N, S)


@triton.jit
def _outputs_kernel(
    x, B, C, g, reset, lengths, states, y, length, chunks,
    heads: tl.constexpr, share: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    adjoint: tl.constexpr, resets: tl.constexpr, ragged: tl.constexpr,
    steps: tl.constexpr, p_block: tl.constexpr, n_block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """y of one chunk and head; adjoint: dx, from dy, C, B and the adjoint states in place of x, B, C and the states.

    Programs count heads first: those of a group read the same B and C.
    """
    program = tl.program_id(0).to(tl.int64)
    h, c, b = program % heads, program // heads % chunks, program // heads // chunks
    p, t, start = tl.program_id(1) * p_block + tl.arange(0, p_block), tl.arange(0, steps), c * steps
    here = _here(lengths, b, start, length, ragged)
    at, shared = _place(b, start, h, length, heads, share)
    row: tl.constexpr = heads // share * N
    scores = tl.zeros((steps, steps), dtype=tl.float32)
    carried = tl.zeros((steps, p_block), dtype=tl.float32)
    for n0 in range(0, N, n_block):
        n = n0 + tl.arange(0, n_block)
        C_tile, B_tile = _tile(C + shared * N, t, n, here, N, row), _tile(B + shared * N, t, n, here, N, row)
        scores += tl.dot(C_tile, tl.trans(B_tile), input_precision=precision)
        S = _tile(states + ((b * heads + h) * chunks + c) * P * N, p, n, P, N, N)
        carried += tl.dot(C_tile, tl.trans(S), input_precision=precision)
    coarse, fine, segment = _sums(g + at, reset + (b * length + start), t, here, heads, resets)
    weight = _left(coarse, fine, segment, steps) if adjoint else _through(coarse, fine, segment)
    decays = _decays(coarse, fine, segment, t)
    scores *= tl.trans(decays) if adjoint else decays
    x_tile = _tile(x + at * P, t, p, here, P, heads * P)
    values = weight[:, None] * carried + tl.dot(scores, x_tile, input_precision=precision)
    _put(y + at * P, t, p, length - start, P, heads * P, values)


@triton.jit
def _rows_kernel(
    x, B, C, g, reset, lengths, states, adjoints, dy, dB, dC, dg, length, chunks,
    heads: tl.constexpr, share: tl.constexpr, together: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    resets: tl.constexpr, ragged: tl.constexpr,
    steps: tl.constexpr, p_block: tl.constexpr, n_block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """dg of one chunk and some heads, and their share in dB and dC of their group."""
    program = tl.program_id(0).to(tl.int64)
    parts: tl.constexpr = heads // together
    part, c, b = program % parts, program // parts % chunks, program // parts // chunks
    for i in range(together):
        _rows_of_head(
            x, B, C, g, reset, lengths, states, adjoints, dy, dB, dC, dg, length, chunks, part * together + i, c, b, i,
            heads, share, together, P, N, resets, ragged, steps, p_block, n_block, precision,
        )  # fmt: skip
        tl.debug_barrier()  # of dB and dC, to which the next head adds


@triton.jit
def _rows_of_head(
    x, B, C, g, reset, lengths, states, adjoints, dy, dB, dC, dg, length, chunks, h, c, b, others,
    heads: tl.constexpr, share: tl.constexpr, together: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    resets: tl.constexpr, ragged: tl.constexpr,
    steps: tl.constexpr, p_block: tl.constexpr, n_block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """dg of one head, and what it adds to dB and dC, where others have added before."""
    t, start = tl.arange(0, steps), c * steps
    here = _here(lengths, b, start, length, ragged)
    at, shared = _place(b, start, h, length, heads, share)
    _, sums = _place(b, start, h, length, heads, together)
    state = ((b * heads + h) * chunks + c) * P * N
    row: tl.constexpr = heads // share * N
    scores = tl.zeros((steps, steps), dtype=tl.float32)
    for n0 in range(0, N, n_block):
        n = n0 + tl.arange(0, n_block)
        C_tile, B_tile = _tile(C + shared * N, t, n, here, N, row), _tile(B + shared * N, t, n, here, N, row)
        scores += tl.dot(C_tile, tl.trans(B_tile), input_precision=precision)
    products = tl.zeros((steps, steps), dtype=tl.float32)
    for p0 in range(0, P, p_block):
        p = p0 + tl.arange(0, p_block)
        dy_tile = _tile(dy + at * P, t, p, here, P, heads * P)
        x_tile = _tile(x + at * P, t, p, here, P, heads * P)
        products += tl.dot(dy_tile, tl.trans(x_tile), input_precision=precision)
    coarse, fine, segment = _sums(g + at, reset + (b * length + start), t, here, heads, resets)
    through, left = _through(coarse, fine, segment), _left(coarse, fine, segment, steps)
    products *= _decays(coarse, fine, segment, t)
    # What passes the gate after step j comes from j or before, and goes to a later step.
    later = t[:, None] > t[None, :]
    passing = tl.cumsum(tl.where(later, scores * products, 0.0), axis=1)
    passed = tl.sum(tl.where(later, passing, 0.0), axis=0)

    into = tl.zeros((steps,), dtype=tl.float32)
    out = tl.zeros((steps,), dtype=tl.float32)
    along = tl.zeros((p_block,), dtype=tl.float32)
    for n0 in range(0, N, n_block):
        n = n0 + tl.arange(0, n_block)
        dB_tile = tl.zeros((steps, n_block), dtype=tl.float32)
        dC_tile = tl.zeros((steps, n_block), dtype=tl.float32)
        for p0 in range(0, P, p_block):
            p = p0 + tl.arange(0, p_block)
            S, A = _tile(states + state, p, n, P, N, N), _tile(adjoints + state, p, n, P, N, N)
            along += tl.sum(S * A, axis=1)
            x_tile = _tile(x + at * P, t, p, here, P, heads * P)
            dB_tile += tl.dot(x_tile, A, input_precision=precision)
            dy_tile = _tile(dy + at * P, t, p, here, P, heads * P)
            dC_tile += tl.dot(dy_tile, S, input_precision=precision)
        dB_tile *= left[:, None]
        dC_tile *= through[:, None]
        B_tile = _tile(B + shared * N, t, n, here, N, row)
        out += tl.sum(dB_tile * B_tile, axis=1)
        C_tile = _tile(C + shared * N, t, n, here, N, row)
        into += tl.sum(dC_tile * C_tile, axis=1)
        dC_tile += tl.dot(products, B_tile, input_precision=precision)
        _add(dC + sums * N, t, n, length - start, N, heads // together * N, dC_tile, others)
        dB_tile += tl.dot(tl.trans(products), C_tile, input_precision=precision)
        _add(dB + sums * N, t, n, length - start, N, heads // together * N, dB_tile, others)

    whole = _last(through, steps) * tl.sum(along, axis=0)
    passed += tl.sum(tl.where(later, into[:, None], 0.0), axis=0) + tl.cumsum(out, axis=0) + whole
    passed = tl.where(t + 1 < here, passed, 0.0)
    tl.store(dg + at + (t + 1) * heads, passed, mask=(t + 1 < steps) & (start + t + 1 < length))
    tl.store(dg + at, tl.where(here > 0, tl.sum(into, axis=0) + whole, 0.0))


def _given(
    x: Tensor, B: Tensor, g: Tensor, reset: Tensor | None, lengths: Tensor | None, precision: str
) -> tuple[tuple[Tensor, ...], tuple[int, int], dict[str, Any]]:
    """Gates and masks, the steps and the chunks of a sequence, and what the kernels are compiled for."""
    (H, P), (G, N) = x.shape[2:], B.shape[2:]
    masks = (g if v is None else v.to(torch.int32).contiguous() for v in (reset, lengths))
    options = {
        "heads": H, "share": H // G, "P": P, "N": N, "resets": reset is not None, "ragged": lengths is not None,
        "steps": STEPS, "p_block": _block(P, P_BLOCK), "n_block": _block(N, N_BLOCK), "num_stages": 1,
        "precision": precision, "enable_fp_fusion": True,
    }  # fmt: skip
    return (g, *masks), (x.shape[1], triton.cdiv(x.shape[1], STEPS)), options


def _block(size: int, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(size)))


def _together(share: int, programs: int) -> int:
    """How many heads of a group's share a program has, of so many programs with one each."""
    few = max(1, programs // PROGRAMS)
    return math.gcd(share, min(HEADS, 1 << (few.bit_length() - 1)))


def _walk(x: Tensor, B: Tensor, first: Tensor, given: Any, *, adjoint: bool) -> tuple[Tensor, Tensor]:
    """The states before the chunks (batch, H, chunks, P, N), in the order of walking, and the last one."""
    gates, (length, chunks), options = given
    batch, H, P, N = first.shape
    states, last = first.new_empty((batch, H, chunks, P, N)), torch.empty_like(first)
    grid = (batch * H, triton.cdiv(P, options["p_block"]), triton.cdiv(N, options["n_block"]))
    options = options | {"num_stages": WALK_STAGES, "num_warps": 4}
    _states_kernel[grid](x, B, *gates, first, states, last, length, chunks, adjoint=adjoint, **options)
    return states, last


def _outputs(x: Tensor, B: Tensor, C: Tensor, states: Tensor, given: Any, *, adjoint: bool) -> Tensor:
    gates, sizes, options = given
    y = torch.empty_like(x)
    grid = (x.shape[0] * x.shape[2] * sizes[1], triton.cdiv(x.shape[3], options["p_block"]))
    _outputs_kernel[grid](x, B, C, *gates, states, y, *sizes, adjoint=adjoint, num_warps=4, **options)
    return y


def forward(
    x: Tensor,
    g: Tensor,
    B: Tensor,
    C: Tensor,
    first: Tensor,
    reset: Tensor | None,
    lengths: Tensor | None,
    precision: str = PRECISE,
) -> tuple[Tensor, Tensor]:
    """y and the last state, from the log gates g and the first state; `precision` is that of Triton's products."""
    x, g, B, C, first = (v.contiguous() for v in (x, g, B, C, first))
    with torch.cuda.device_of(x):
        given = _given(x, B, g, reset, lengths, precision)
        states, last = _walk(x, B, first, given, adjoint=False)
        return _outputs(x, B, C, states, given, adjoint=False), last


def backward(
    x: Tensor,
    g: Tensor,
    B: Tensor,
    C: Tensor,
    first: Tensor,
    reset: Tensor | None,
    lengths: Tensor | None,
    dy: Tensor,
    dlast: Tensor,
    precision: str = PRECISE,
    together: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, g, B, C and of the first state; `together` are the heads of a program, else its choice."""
    x, g, B, C, first, dy, dlast = (v.contiguous() for v in (x, g, B, C, first, dy, dlast))
    (batch, L, H, P), (G, N) = x.shape, B.shape[2:]
    with torch.cuda.device_of(x):
        gates, sizes, options = given = _given(x, B, g, reset, lengths, precision)
        states, _ = _walk(x, B, first, given, adjoint=False)
        adjoints, dfirst = _walk(dy, C, dlast, given, adjoint=True)
        dx = _outputs(dy, C, B, adjoints, given, adjoint=True)
        together = together or _together(H // G, batch * H * sizes[1])
        dB, dC = (x.new_empty((batch, L, H // together, N)) for _ in range(2))
        dg = torch.empty_like(g)
        options |= {"p_block": _block(P, N_BLOCK), "num_warps": 8, "together": together}
        grid = (batch * H // together * sizes[1],)
        _rows_kernel[grid](x, B, C, *gates, states, adjoints, dy, dB, dC, dg, *sizes, **options)
    dB, dC = (v if v.shape[2] == G else v.unflatten(2, (G, -1)).sum(3) for v in (dB, dC))
    return dx, dg, dB, dC, dfirst


def probe(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what the kernels and the generic body give: with heads of a group and resets, and with full tiles."""
    generator = torch.Generator().manual_seed(0)
    for L, P, N, resets in ((STEPS + 6, 20, 70, True), (STEPS, P_BLOCK, N_BLOCK, False)):
        shapes = (1, L, 2, P), (1, L, 2), (1, L, 1, N), (1, L, 1, N), (1, 2, P, N)
        x, g, B, C, first = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
        leaves, grads = [v.requires_grad_() for v in (x, -g.abs(), B, C, first)], (x.detach() + 1, first.detach() + 1)
        reset = torch.arange(L, device="cpu")[None] == 40 if resets else None
        wanted = _ssd(*leaves, segments=Segments(L, reset), chunk=STEPS, backend="generic")
        slopes = torch.autograd.grad(wanted, leaves, grads)
        arrays: Any = [v.detach().to(device, torch.float32) for v in (*leaves, *grads)]
        mask = reset if reset is None else reset.to(device)
        yield from zip(forward(*[*arrays[:5], mask, None]), wanted, strict=True)
        found = backward(*[*arrays[:5], mask, None, *arrays[5:], PRECISE, 2 if resets else 1])
        yield from zip(found, slopes, strict=True)
