"""The weighted means of RWKV-4 on a CPU, some steps at a time, which stay in the cache.

With m_t = max(m_{t-1} + g_t, k_t), a_t = e^{g_t + m_{t-1} - m_t} and r_t = e^{k_t - m_t}, sums x = (num, den) over e^m:

    x_t = a_t x_{t-1} + r_t (v_t, 1),   M_t = max(m_{t-1}, k_t + u)
    p_t = e^{m_{t-1} - M_t},   s_t = e^{k_t + u - M_t},   N_t, D_t = p_t x_{t-1} + s_t (v_t, 1),   y_t = N_t / D_t

Keys that are near each other need no maximum a step: with m_t = M_t = m, the largest key of the piece, a_t = e^{g_t},
r_t = e^{k_t - m}, p_t = 1 and s_t = e^u r_t, and no D is below e^-NEAR.

No y depends on m and M, which the backward therefore holds fixed: with l_t the gradient of x_t,

    dN = dy / D,   dD = -y dN,   l_{t-1} = p_t (dN_t, dD_t) + a_t l_t,   dg_t = a_t l_t . x_{t-1}
    dv = s dN + r l_num,   dk = s (v dN + dD) + r (v l_num + l_den),   du = sum s (v dN + dD)

The last state alone depends on its m; what that has besides, dm - x . l, goes to the step that the maximum is from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssm_core.gated.rwkv4 import LOWEST, _weighted_means

from .scans.body import add_products
from .transforms import forward_mode, in_full_precision, transformed

PIECE = 2**17  # numbers
BLOCK = 8  # steps of a block, of the many that are too small to be run one by one
NEAR = 30.0  # between the exponents of a piece: no sum of weights falls below 1e-13 of the largest one
State = tuple[Tensor, Tensor, Tensor]


@in_full_precision
def weighted_means(
    k: Tensor, v: Tensor, g: Tensor, bonus: Tensor, state: State, *, valid: Tensor | None, chunk: int
) -> Any:
    """Fused `ssm_core.gated.rwkv4._weighted_means`, whose pieces are of other sizes than its chunks."""
    alike = all(x.dtype == k.dtype for x in (v, g, bonus, *state))
    if not alike or 0 in k.shape or k.device.type != "cpu":
        return NotImplemented
    if torch.compiler.is_compiling() or transformed(k) or forward_mode():
        return NotImplemented
    y, *last = _Means.apply(k, v, g, bonus, *state, valid)
    return y, tuple(last)


class _Means(torch.autograd.Function):
    """(y, num, den, top) of (k, v, g, bonus, num, den, top, valid); keeps the states between pieces."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, g: Tensor, bonus: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *state, valid = rest
        y, states = torch.empty_like(v), []
        for piece in _pieces(k):
            states += state
            k_t, v_t, valid_t, y_t = _time_first(piece, k, v, valid, y)
            s = _through(k_t, v_t, _decays(piece, g), bonus, state, valid_t)
            torch.div(torch.addcmul(s.s * v_t, s.p, s.x[:, 0]), s.D, out=y_t)
            state = [*s.last, s.top]
        ctx.save_for_backward(k, v, g, bonus, valid, y, *state, *states)
        return y, *state

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *grads: Tensor) -> Any:
        k, v, g, bonus, valid, y, *states = ctx.saved_tensors
        needed = ctx.needs_input_grad[:7]
        if torch.is_grad_enabled() or transformed(*grads):
            found = _differentiable((k, v, g, bonus, *states[3:6]), valid, needed, grads)
        else:
            found = _gradients(k, v, g, bonus, valid, y, states, *grads)
        return *(x if n else None for x, n in zip(found, needed, strict=True)), None


class _Steps(NamedTuple):
    """What a piece computes, with time first (T, batch, W), or 1 for T and batch where a and p are the same.

    x (T, 2, batch, W) are the sums before each step, and last (2, batch, W) those after all, over e^top. To come to the
    exponent of the piece and leave it, sums are multiplied by entering and leaving.
    """

    a: Tensor
    r: Tensor
    p: Tensor
    s: Tensor
    x: Tensor
    D: Tensor
    last: Tensor
    top: Tensor
    entering: Tensor | None = None
    leaving: Tensor | None = None
    from_key: Tensor | None = None


def _pieces(k: Tensor) -> list[slice]:
    T = max(1, PIECE // (k.shape[0] * k.shape[2]))
    return [slice(start, min(start + T, k.shape[1])) for start in range(0, k.shape[1], T)]


def _time_first(piece: slice, *signals: Tensor | None) -> list[Any]:
    return [None if x is None else x[:, piece].transpose(0, 1) for x in signals]


def _decays(piece: slice, g: Tensor) -> Tensor:
    """Those of a piece with time first: one row where all steps have the same."""
    return g[None, None] if g.ndim == 1 else _time_first(piece, g)[0]


def _through(
    k: Tensor, v: Tensor, g: Tensor, bonus: Tensor, state: Any, valid: Tensor | None, *, by_maxima: bool = False
) -> _Steps:
    num, den, top = state
    first = torch.where(den > 0, top, LOWEST)
    largest = torch.maximum(k.amax(0), first)
    grown = len(k) * g.amax().clamp(min=0)
    near = bool((largest - k.amin(0)).amax() + bonus.abs().amax() + grown <= NEAR)
    if near and not by_maxima and (valid is None or bool(valid.all())):
        return _over_one(k, v, g, bonus, (num, den, first), largest)
    return _over_maxima(k, v, g.expand_as(k), bonus, (num, den, first, top), valid)


def _over_one(k: Tensor, v: Tensor, g: Tensor, bonus: Tensor, state: Any, largest: Tensor) -> _Steps:
    """With one exponent for all steps of the piece."""
    num, den, first = state
    r, a, p = k.sub(largest).exp_(), g.exp(), (g > LOWEST / 2).to(k.dtype)
    entering = first.sub(largest).exp_()
    x = _sums(num * entering, den * entering, a, r, v)
    s = r * bonus.exp()
    if len(g) == 1:
        steps = torch.arange(len(k), -1, -1, dtype=k.dtype, device=k.device)
        since = steps[:, None, None] * g.clamp(min=LOWEST)  # no steps of -inf are 0
    else:
        since = torch.cat([g.flip(0).cumsum(0).flip(0), torch.zeros_like(g[:1])])
    top = torch.maximum(first + since[0], (k + since[1:]).amax(0))
    leaving = largest.sub_(top).exp_()
    D = torch.addcmul(s, p, x[:-1, 1])
    return _Steps(a, r, p, s, x[:-1], D, x[-1] * leaving, top, entering, leaving)


def _over_maxima(k: Tensor, v: Tensor, g: Tensor, bonus: Tensor, state: Any, valid: Tensor | None) -> _Steps:
    """With the exponent of every step its own."""
    num, den, first, top = state
    m, carried, last = torch.empty_like(k), torch.empty_like(k), first
    for m_t, carried_t, k_t, g_t in zip(m.unbind(), carried.unbind(), k.unbind(), g.unbind(), strict=True):
        torch.add(last, g_t, out=carried_t)
        torch.maximum(carried_t, k_t, out=m_t)
        last = m_t
    a, r = carried.sub(m).exp_(), k.sub(m).exp_()
    if valid is not None:
        r = r.masked_fill_(~valid, 0)
    before = torch.cat([first[None], m[:-1]]).masked_fill_(g <= LOWEST / 2, LOWEST)
    x = _sums(num, den, a, r, v)
    raised = k + bonus
    M = torch.maximum(before, raised)
    p, s = before.sub_(M).exp_(), raised.sub_(M).exp_()
    D, top = torch.addcmul(s, p, x[:-1, 1]), torch.where(x[-1, 1] > 0, m[-1], top)
    return _Steps(a, r, p, s, x[:-1], D, x[-1].clone(), top, from_key=k > carried)


def _sums(num: Tensor, den: Tensor, a: Tensor, r: Tensor, v: Tensor) -> Tensor:
    """(T + 1, 2, batch, W): those before all steps, and after each."""
    x = r.new_empty((len(r) + 1, 2, *r.shape[1:]))
    x[0, 0], x[0, 1], x[1:, 1] = num, den, r
    torch.mul(r, v, out=x[1:, 0])
    _run(x, a)
    return x


def _run(x: Tensor, a: Tensor, *, reverse: bool = False) -> None:
    """x_t += a_t x_{t-1}, one after another, from the first x; in reverse x_t += a_t x_{t+1}, from the last."""
    n, gates = len(x) - 1, list(a[:, None].unbind())
    if len(a) == 1:
        done = _run_in_blocks(x, a, reverse)
        gates *= n - done
        x = x[: n - done + 1] if reverse else x[done:]
    order = slice(None, None, -1 if reverse else 1)
    rows = x.unbind()[order]
    add_products(rows[1:], gates[order], rows[:-1])


def _run_in_blocks(x: Tensor, a: Tensor, reverse: bool) -> int:
    """Blocks of steps with one a side by side, then their last steps in turn, which the others are told; how many."""
    n = len(x) - 1
    blocks = n // BLOCK
    if blocks < 2:
        return 0

    def of_all(j: int) -> Tensor:
        """Step j of every block, in the order of memory; 0 is the one before."""
        last = (blocks - 1) * BLOCK
        first = n - last - j if reverse else j
        return x[first : first + last + 1 : BLOCK]

    before, *steps = (of_all(j) for j in range(BLOCK + 1))
    powers = a.expand(BLOCK, *a.shape[1:]).cumprod(0).unbind()
    order = slice(None, None, -1 if reverse else 1)
    add_products(steps[1:], [a] * (BLOCK - 1), steps[:-1])
    add_products(steps[-1].unbind()[order], [powers[-1]] * blocks, before.unbind()[order])
    add_products(steps[:-1], powers[:-1], [before] * (BLOCK - 1))
    return blocks * BLOCK


def _gradients(
    k: Tensor,
    v: Tensor,
    g: Tensor,
    bonus: Tensor,
    valid: Tensor | None,
    y: Tensor,
    states: Any,
    dy: Tensor,
    *last: Tensor,
) -> tuple[Tensor, ...]:
    dk, dv, dg = k.new_empty(k.shape), v.new_empty(v.shape), torch.zeros_like(g)
    dbonus, (num, den, _), states = torch.zeros_like(bonus), states[:3], states[3:]
    after, excess = torch.stack(last[:2]), last[2]
    excess = torch.where(den > 0, excess - num * after[0] - den * after[1], excess)
    for piece in reversed(_pieces(k)):
        *states, num, den, top = states
        k_t, v_t, valid_t, y_t, dy_t, keys, values = _time_first(piece, k, v, valid, y, dy, dk, dv)
        traced = bool(excess.any())
        s = _through(k_t, v_t, _decays(piece, g), bonus, (num, den, top), valid_t, by_maxima=traced)
        dN = dy_t / s.D
        dD = (y_t * dN).neg_()
        slopes = k.new_empty((len(k_t) + 1, 2, *k_t.shape[1:]))  # of the sums before all steps, and after each
        torch.mul(s.p, dN, out=slopes[:-1, 0])
        torch.mul(s.p, dD, out=slopes[:-1, 1])
        slopes[-1] = after if s.leaving is None else after * s.leaving
        _run(slopes, s.a, reverse=True)
        after, slopes = slopes[0] if s.entering is None else slopes[0] * s.entering, slopes[1:]
        newest = torch.addcmul(dD, v_t, dN).mul_(s.s)
        torch.addcmul(slopes[:, 1], v_t, slopes[:, 0], out=keys).mul_(s.r).add_(newest)
        faded = torch.mul(slopes[:, 0], s.x[:, 0]).addcmul_(slopes[:, 1], s.x[:, 1]).mul_(s.a)
        if traced:
            excess = _to_origin(excess, s, keys, faded)
        if g.ndim == 1:
            dg += faded.sum((0, 1))
        else:
            dg[:, piece] = faded.transpose(0, 1)
        torch.addcmul(s.s.mul_(dN), s.r, slopes[:, 0], out=values)
        dbonus += newest.sum((0, 1))
    dtop = torch.where(den > 0, excess + num * after[0] + den * after[1], excess)
    return dk, dv, dg, dbonus, *after, dtop


def _to_origin(excess: Tensor, s: _Steps, dk: Tensor, dg: Tensor) -> Tensor:
    """Adds the gradient of the last m to the key that it is, and to the decays since; what is left of it before."""
    moved, from_key = s.last[1] > 0, s.from_key
    assert from_key is not None  # the exponents are maxima
    for t in reversed(range(len(dk))):
        here = from_key[t] & moved
        dk[t] += torch.where(here, excess, 0)
        excess = torch.where(here, 0, excess)
        dg[t] += torch.where(moved, excess, 0)
    return excess


def _differentiable(
    tensors: Any, valid: Tensor | None, needed: Any, grads: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients by the generic body, which can be differentiated again."""
    with torch.enable_grad():
        leaves = [x.view_as(x) if n else x for x, n in zip(tensors, needed, strict=True)]  # no paths between them
        k, v, g, bonus, *state = leaves
        y, last = _weighted_means(k, v, g, bonus, tuple(state), valid=valid, chunk=k.shape[1], backend="generic")
        wanted = [x for x, n in zip(leaves, needed, strict=True) if n]
        found = iter(torch.autograd.grad((y, *last), wanted, grads, create_graph=True, materialize_grads=True))
    return tuple(next(found) if n else None for n in needed)
