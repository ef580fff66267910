"""Chunked state passing on a GPU: no states and no Toeplitz matrices in memory.

The function is `ssm_core.time_invariant.modes.state_passing.state_passing`.

A program walks over the chunks of one channel for some rows of the batch. It holds the matrices of the channel and the
states. With M the Toeplitz matrix of K and d = z^T (z^r in the first chunk),

    y_c = M u_c + P x_c,     x_{c+1} = d x_c + Q u_c,     c = 0..A-1

The adjoint l_c of x_c starts as the gradient of the last state, l_A, and walks back (' transposes):

    du_c = M' dy_c + Q' l_{c+1},     l_c = P' dy_c + conj(d) l_{c+1},
    dQ = sum_c l_{c+1} u_c',         dz^r = l_1 conj(x_0)

The rest meets states, which a second walk forward computes again. dd = sum_{c>0} l_{c+1} conj(x_c) would need l and x
of one time. The walk carries v = dx/dd instead, which meets what enters l at each chunk:

    dM = sum_c dy_c u_c',     dP = sum_c dy_c x_c',
    dd = sum_{c>0} (P' dy_c) conj(v_c) + l_A conj(v_A),     v_1 = 0,     v_{c+1} = d v_c + x_c

Complex numbers are halves, (Re, Im); those of P are (Re, -Im) of C z^(t+1), so those of P' dy are (Re, Im) again. The
first chunk, of r <= T steps, is a tile that begins with them where it meets K and P, and one that ends with them where
it meets Q; zeros fill it up. Every program writes the sums over its rows, and they are added in a fixed order, so
results are the same on every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssm_core.time_invariant.modes.state_passing import Maps, state_passing

# A warp has all the columns of a product. With 32 steps, 64 numbers of state and a warp for every 16 steps, M, P and Q
# take 160 registers a thread, each being two parts for tf32x3, and what meets them 100 more: all that there are, and
# the walks of the backward spill some. More warps would do the same work again; more steps or rows would spill more.
# Rows are few also because there may be no more programs than channels.
STEPS, ROWS, WARPS = 32, 16, 2
FORWARD_ROWS, FEW = ROWS, 8  # forward few where there are no more: half of the products, and nothing spilled
STATES = 64  # numbers of state, both halves, that fit so
PRECISE = "tf32x3"  # float32 as three products of tf32


@triton.jit
def _place(rows, channels, N, T: tl.constexpr, states: tl.constexpr, R: tl.constexpr, halves: tl.constexpr):
    """Where a program is in gates (H, halves, N), matrices (H, halves, N, T) and states (B, H, halves, N)."""
    blocks = tl.cdiv(rows, R)
    channel = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * R + tl.arange(0, R)
    series = row.to(tl.int64) * channels + channel
    n = tl.arange(0, states)
    gate = channel * halves * N + n
    entry = gate[:, None] * T + tl.arange(0, T)[None, :]
    state = series[None, :] * (halves * N) + n[:, None]
    return series, row < rows, gate, entry, state


@triton.jit
def _first_steps(length, T: tl.constexpr):
    """r, the steps of the first chunk."""
    return length - (tl.cdiv(length, T) - 1) * T


@triton.jit
def _load(x, at, apart, inside, paired: tl.constexpr):
    """Both halves; the second is not used where there is one."""
    re = tl.load(x + at, mask=inside, other=0.0)
    im = tl.load(x + apart + at, mask=inside, other=0.0) if paired else re
    return re, im


@triton.jit
def _store(x, re, im, at, apart, inside, paired: tl.constexpr):
    tl.store(x + at, re, mask=inside)
    if paired:
        tl.store(x + apart + at, im, mask=inside)


@triton.jit
def _steps(series, here, start, first, stop, length, T: tl.constexpr):
    """Where T steps of signals (B, H, L) from `start` on are, as (T, rows), and which lie in [first, stop)."""
    k = start + tl.arange(0, T)
    return series[None, :] * length + k[:, None], ((k >= first) & (k < stop))[:, None] & here[None, :]


@triton.jit
def _toeplitz(taps, rows, T: tl.constexpr, R: tl.constexpr):
    """M': K[j - i]"""
    channel = (tl.program_id(0) // tl.cdiv(rows, R)).to(tl.int64)
    lag = tl.arange(0, T)[None, :] - tl.arange(0, T)[:, None]
    return tl.load(taps + channel * T + lag, mask=lag >= 0, other=0.0)


@triton.jit
def _turned(a, b, x, xi, paired: tl.constexpr):
    """(a + ib) (x + i xi) for gates (N,) and states (N, rows)."""
    re = a[:, None] * x - b[:, None] * xi if paired else a[:, None] * x
    im = a[:, None] * xi + b[:, None] * x if paired else xi
    return re, im


@triton.jit
def _dots(A, Ai, x, re, im, paired: tl.constexpr, precision: tl.constexpr):
    """re + A x, im + Ai x"""
    re = tl.dot(A, x, re, input_precision=precision)
    im = tl.dot(Ai, x, im, input_precision=precision) if paired else im
    return re, im


@triton.jit
def _sum_of_dots(A, Ai, x, xi, y, paired: tl.constexpr, precision: tl.constexpr):
    """y + A x + Ai xi"""
    y = tl.dot(A, x, y, input_precision=precision)
    y = tl.dot(Ai, xi, y, input_precision=precision) if paired else y
    return y


@triton.jit
def _products(x, xi, v, vi, re, im, paired: tl.constexpr):
    """re + i im + x conj(v)"""
    re = re + x * v + xi * vi if paired else re + x * v
    im = im + xi * v - x * vi if paired else im
    return re, im


@triton.jit
def _forward_kernel(
    u, taps, respond, drive, decay, head, first, y, last, rows, channels, length, N,
    paired: tl.constexpr, T: tl.constexpr, states: tl.constexpr, R: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    halves: tl.constexpr = 2 if paired else 1
    series, here, gate, entry, state = _place(rows, channels, N, T, states, R, halves)
    real = tl.arange(0, states) < N
    inside = real[:, None] & here[None, :]
    M = tl.trans(_toeplitz(taps, rows, T, R))
    P, Pi = _load(respond, entry, N * T, real[:, None], paired)
    P, Pi = tl.trans(P), tl.trans(Pi)
    Q, Qi = _load(drive, entry, N * T, real[:, None], paired)
    x, xi = _load(first, state, N, inside, paired)

    r = _first_steps(length, T)
    at, given = _steps(series, here, 0, 0, r, length, T)
    out = tl.dot(M, tl.load(u + at, mask=given, other=0.0), input_precision=precision)
    tl.store(y + at, _sum_of_dots(P, Pi, x, xi, out, paired, precision), mask=given)
    a, b = _load(head, gate, N, real, paired)
    x, xi = _turned(a, b, x, xi, paired)
    at, given = _steps(series, here, r - T, 0, r, length, T)
    x, xi = _dots(Q, Qi, tl.load(u + at, mask=given, other=0.0), x, xi, paired, precision)

    a, b = _load(decay, gate, N, real, paired)
    for start in range(r, length, T):
        at, given = _steps(series, here, start, 0, length, length, T)
        now = tl.load(u + at, mask=given, other=0.0)
        out = tl.dot(M, now, input_precision=precision)
        tl.store(y + at, _sum_of_dots(P, Pi, x, xi, out, paired, precision), mask=given)
        x, xi = _turned(a, b, x, xi, paired)
        x, xi = _dots(Q, Qi, now, x, xi, paired, precision)
    _store(last, x, xi, state, N, inside, paired)


@triton.jit
def _adjoint_kernel(
    u, dy, taps, respond, drive, decay, head, first, dlast, du, ddrive, dhead, dfirst, rows, channels, length, N,
    paired: tl.constexpr, T: tl.constexpr, states: tl.constexpr, R: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """The walk back."""
    halves: tl.constexpr = 2 if paired else 1
    series, here, gate, entry, state = _place(rows, channels, N, T, states, R, halves)
    real = tl.arange(0, states) < N
    inside = real[:, None] & here[None, :]
    M = _toeplitz(taps, rows, T, R)
    P, Pi = _load(respond, entry, N * T, real[:, None], paired)
    Q, Qi = _load(drive, entry, N * T, real[:, None], paired)
    Q, Qi = tl.trans(Q), tl.trans(Qi)
    lam, lami = _load(dlast, state, N, inside, paired)
    dQ = tl.zeros((states, T), dtype=tl.float32)
    dQi = tl.zeros((states, T), dtype=tl.float32)

    r = _first_steps(length, T)
    a, b = _load(decay, gate, N, real, paired)
    for back in range(T, length - r + 1, T):
        at, given = _steps(series, here, length - back, 0, length, length, T)
        slope = tl.load(dy + at, mask=given, other=0.0)
        now = tl.trans(tl.load(u + at, mask=given, other=0.0))
        out = tl.dot(M, slope, input_precision=precision)
        tl.store(du + at, _sum_of_dots(Q, Qi, lam, lami, out, paired, precision), mask=given)
        dQ = tl.dot(lam, now, dQ, input_precision=precision)
        if paired:
            dQi = tl.dot(lami, now, dQi, input_precision=precision)
        lam, lami = _turned(a, -b, lam, lami, paired)
        lam, lami = _dots(P, Pi, slope, lam, lami, paired, precision)

    at, given = _steps(series, here, r - T, 0, r, length, T)
    out = tl.dot(M, tl.load(dy + at, mask=given, other=0.0), input_precision=precision)
    tl.store(du + at, _sum_of_dots(Q, Qi, lam, lami, out, paired, precision), mask=given)
    now = tl.trans(tl.load(u + at, mask=given, other=0.0))
    dQ = tl.dot(lam, now, dQ, input_precision=precision)
    if paired:
        dQi = tl.dot(lami, now, dQi, input_precision=precision)
    x, xi = _load(first, state, N, inside, paired)
    none = tl.zeros((states, R), dtype=tl.float32)
    re, im = _products(lam, lami, x, xi, none, none, paired)
    own = tl.program_id(0).to(tl.int64) * halves * N + tl.arange(0, states)
    _store(ddrive, dQ, dQi, own[:, None] * T + tl.arange(0, T)[None, :], N * T, real[:, None], paired)
    _store(dhead, tl.sum(re, axis=1), tl.sum(im, axis=1), own, N, real, paired)
    a, b = _load(head, gate, N, real, paired)
    at, given = _steps(series, here, 0, 0, r, length, T)
    lam, lami = _turned(a, -b, lam, lami, paired)
    lam, lami = _dots(P, Pi, tl.load(dy + at, mask=given, other=0.0), lam, lami, paired, precision)
    _store(dfirst, lam, lami, state, N, inside, paired)


@triton.jit
def _slopes_kernel(
    u, dy, respond, drive, decay, head, first, dlast, dtaps, drespond, ddecay, rows, channels, length, N,
    paired: tl.constexpr, T: tl.constexpr, states: tl.constexpr, R: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """The second walk forward."""
    halves: tl.constexpr = 2 if paired else 1
    series, here, gate, entry, state = _place(rows, channels, N, T, states, R, halves)
    real = tl.arange(0, states) < N
    inside = real[:, None] & here[None, :]
    P, Pi = _load(respond, entry, N * T, real[:, None], paired)
    Q, Qi = _load(drive, entry, N * T, real[:, None], paired)
    x, xi = _load(first, state, N, inside, paired)
    v = tl.zeros((states, R), dtype=tl.float32)
    vi = tl.zeros((states, R), dtype=tl.float32)
    dd = tl.zeros((states, R), dtype=tl.float32)
    ddi = tl.zeros((states, R), dtype=tl.float32)
    dM = tl.zeros((T, T), dtype=tl.float32)
    dP = tl.zeros((states, T), dtype=tl.float32)
    dPi = tl.zeros((states, T), dtype=tl.float32)

    r = _first_steps(length, T)
    at, given = _steps(series, here, 0, 0, r, length, T)
    turned = tl.trans(tl.load(dy + at, mask=given, other=0.0))
    dM = tl.dot(tl.load(u + at, mask=given, other=0.0), turned, dM, input_precision=precision)
    dP = tl.dot(x, turned, dP, input_precision=precision)
    if paired:
        dPi = tl.dot(xi, turned, dPi, input_precision=precision)
    a, b = _load(head, gate, N, real, paired)
    x, xi = _turned(a, b, x, xi, paired)
    at, given = _steps(series, here, r - T, 0, r, length, T)
    x, xi = _dots(Q, Qi, tl.load(u + at, mask=given, other=0.0), x, xi, paired, precision)

    a, b = _load(decay, gate, N, real, paired)
    at, given = _steps(series, here, r, 0, length, length, T)
    now = tl.load(u + at, mask=given, other=0.0)
    slope = tl.load(dy + at, mask=given, other=0.0)
    for start in range(r, length, T):  # loads run a chunk ahead: their tiles have too many uses for the pipeliner
        at, given = _steps(series, here, start + T, 0, length, length, T)
        u_next = tl.load(u + at, mask=given, other=0.0)
        dy_next = tl.load(dy + at, mask=given, other=0.0)
        turned = tl.trans(slope)
        dM = tl.dot(now, turned, dM, input_precision=precision)
        dP = tl.dot(x, turned, dP, input_precision=precision)
        if paired:
            dPi = tl.dot(xi, turned, dPi, input_precision=precision)
        none = tl.zeros((states, R), dtype=tl.float32)
        g, gi = _dots(P, Pi, slope, none, none, paired, precision)
        dd, ddi = _products(g, gi, v, vi, dd, ddi, paired)
        v, vi = _turned(a, b, v, vi, paired)
        v, vi = v + x, vi + xi
        x, xi = _turned(a, b, x, xi, paired)
        x, xi = _dots(Q, Qi, now, x, xi, paired, precision)
        now, slope = u_next, dy_next

    g, gi = _load(dlast, state, N, inside, paired)
    dd, ddi = _products(g, gi, v, vi, dd, ddi, paired)
    own = tl.program_id(0).to(tl.int64) * halves * N + tl.arange(0, states)
    _store(drespond, dP, dPi, own[:, None] * T + tl.arange(0, T)[None, :], N * T, real[:, None], paired)
    _store(ddecay, tl.sum(dd, axis=1), tl.sum(ddi, axis=1), own, N, real, paired)
    # dM' with row j turned left by j: then column k belongs to the tap k, where there is one.
    j = tl.arange(0, T)[:, None]
    lag = tl.arange(0, T)[None, :] - j
    own_taps = dtaps + tl.program_id(0).to(tl.int64) * T * T
    tl.store(own_taps + j * T + (lag + T) % T, tl.where(lag >= 0, dM, 0.0))


def forward(
    u: Tensor, taps: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor,
    precision: str = PRECISE,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`ssm_core.time_invariant.modes.state_passing.state_passing`"""
    y, last = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (u, first))
    at_once = FEW if u.shape[0] <= FEW else FORWARD_ROWS
    _launch(_forward_kernel, precision, respond, u, taps, respond, drive, decay, head, first, y, last, at_once=at_once)
    return y, last


def adjoint(
    u: Tensor, dy: Tensor, taps: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor,
    dlast: Tensor, precision: str = PRECISE,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of u, drive, head and first."""
    du, dfirst = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (u, first))
    ddrive, dhead = (_parts(u, *x.shape) for x in (drive, head))
    results = (du, ddrive, dhead, dfirst)
    _launch(_adjoint_kernel, precision, respond, u, dy, taps, respond, drive, decay, head, first, dlast, *results)
    return du, ddrive.sum(1), dhead.sum(1), dfirst


def slopes(
    u: Tensor, dy: Tensor, respond: Tensor, drive: Tensor, decay: Tensor, head: Tensor, first: Tensor, dlast: Tensor,
    precision: str = PRECISE,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of taps, respond and decay."""
    H, T = respond.shape[0], respond.shape[-1]
    dtaps, drespond, ddecay = (_parts(u, *shape) for shape in ((H, T, T), respond.shape, decay.shape))
    _launch(
        _slopes_kernel, precision, respond, u, dy, respond, drive, decay, head, first, dlast, dtaps, drespond, ddecay
    )
    return dtaps.sum((1, 2)), drespond.sum(1), ddecay.sum(1)


def _parts(u: Tensor, H: int, *shape: int) -> Tensor:
    """Memory for what every block of rows adds to an array (H, *shape)."""
    return torch.empty((H, triton.cdiv(u.shape[0], ROWS), *shape), dtype=u.dtype, device=u.device)


def _launch(kernel: Any, precision: str, respond: Tensor, *arrays: Tensor, at_once: int | None = None) -> None:
    """A program for every channel and block of rows, of so many at once; the first of the arrays is u."""
    rows, channels, length = arrays[0].shape
    (_, halves, N, T), R = respond.shape, at_once or ROWS
    kernel[(channels * triton.cdiv(rows, R),)](
        *(x.contiguous() for x in arrays), rows, channels, length, N, paired=halves == 2, T=T,
        states=max(16, triton.next_power_of_2(N)), R=R, num_warps=WARPS, precision=precision, enable_fp_fusion=True,
    )  # fmt: skip


def probe(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what the kernels and chunked state passing give, of lengths and rows that fill their tiles or do not."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    H, T = 2, STEPS
    for halves, B, L, N in ((1, 17, 2 * T + 6, 3), (2, 16, 2 * T, 32)):
        maps = [draw(H, T), draw(H, halves, N, T), draw(H, halves, N, T)]
        gates = [0.5 * draw(H, halves, N).tanh() for _ in range(2)]
        arrays = [x.requires_grad_() for x in (draw(B, H, L), *maps, *gates, draw(B, H, halves, N))]
        y, last = state_passing(arrays[0], Maps(*arrays[1:-1]), arrays[-1])
        slopes_of = draw(*y.shape), draw(*last.shape)
        wanted = torch.autograd.grad((y, last), arrays, slopes_of)
        single = [x.detach().to(device, torch.float32) for x in (*arrays, *slopes_of)]
        u, taps, respond, drive, decay, head, first, dy, dlast = single
        du, ddrive, dhead, dfirst = adjoint(u, dy, taps, respond, drive, decay, head, first, dlast)
        dtaps, drespond, ddecay = slopes(u, dy, respond, drive, decay, head, first, dlast)
        found = du, dtaps, drespond, ddrive, ddecay, dhead, dfirst
        outputs = forward(u, taps, respond, drive, decay, head, first)
        yield from zip((*outputs, *found), (y, last, *wanted), strict=True)
    some, of_some = forward(u[:FEW], taps, respond, drive, decay, head, first[:FEW])
    yield from zip((some, of_some), (y[:FEW], last[:FEW]), strict=True)
