"""The weighted means of RWKV-4 on a CPU, some steps at a time, which stay in the cache.

With m_t = max(m_{t-1} + g_t, k_t), a_t = e^{g_t + m_{t-1} - m_t} and r_t = e^{k_t - m_t}, sums x = (num, den) over e^m:

    x_t = a_t x_{t-1} + r_t (v_t, 1),   M_t = max(m_{t-1}, k_t + u)
    p_t = e^{m_{t-1} - M_t},   s_t = e^{k_t + u - M_t},   N_t, D_t = p_t x_{t-1} + s_t (v_t, 1),   y_t = N_t / D_t

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

PIECE = 2**16  # numbers
State = tuple[Tensor, Tensor, Tensor]


@in_full_precision
def weighted_means(
    k: Tensor, v: Tensor, g: Tensor, bonus: Tensor, state: State, *, valid: Tensor | None, chunk: int
) -> Any:
    """Fused `ssm_core.gated.rwkv4._weighted_means`, whose pieces are of other sizes than its chunks."""
    g = g.expand_as(k)
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
            s = _through(_time_first(piece, k, v, g, valid), bonus, state)
            y[:, piece] = (s.N / s.D).transpose(0, 1)
            m = torch.where(s.x[-1, 1] > 0, s.m[-1], state[2])
            state = [*s.x[-1].clone(), m]
        ctx.save_for_backward(k, v, g, bonus, valid, *state, *states)
        return y, *state

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *grads: Tensor) -> Any:
        k, v, g, bonus, valid, *states = ctx.saved_tensors
        needed = ctx.needs_input_grad[:7]
        if torch.is_grad_enabled() or transformed(grads[0]):
            found = _differentiable((k, v, g, bonus, *states[3:6]), valid, needed, grads)
        else:
            found = _gradients(k, v, g, bonus, valid, states, *grads)
        return *(x if n else None for x, n in zip(found, needed, strict=True)), None


class _Steps(NamedTuple):
    """What a piece computes, with time first (T, batch, W), and x (T, 2, batch, W) with those before, earlier."""

    m: Tensor
    from_key: Tensor
    a: Tensor
    r: Tensor
    p: Tensor
    s: Tensor
    x: Tensor
    earlier: Tensor
    N: Tensor
    D: Tensor


def _pieces(k: Tensor) -> list[slice]:
    T = max(1, PIECE // (k.shape[0] * k.shape[2]))
    return [slice(start, min(start + T, k.shape[1])) for start in range(0, k.shape[1], T)]


def _time_first(piece: slice, *signals: Tensor | None) -> list[Any]:
    return [None if x is None else x[:, piece].transpose(0, 1).contiguous() for x in signals]


def _through(signals: list[Any], bonus: Tensor, state: Any) -> _Steps:
    (k, v, g, valid), (num, den, top) = signals, state
    first = torch.where(den > 0, top, LOWEST)
    m, carried, last = torch.empty_like(k), torch.empty_like(k), first
    for m_t, carried_t, k_t, g_t in zip(m.unbind(), carried.unbind(), k.unbind(), g.unbind(), strict=True):
        torch.add(last, g_t, out=carried_t)
        torch.maximum(carried_t, k_t, out=m_t)
        last = m_t
    a, r = carried.sub(m).exp_(), k.sub(m).exp_()
    if valid is not None:
        r = r.masked_fill_(~valid, 0)
    before = torch.cat([first[None], m[:-1]]).masked_fill_(g <= LOWEST / 2, LOWEST)
    x = torch.stack([r * v, r], 1)
    x0 = torch.stack([num, den])
    states = x.unbind()
    add_products(states, a[:, None].unbind(), [x0, *states[:-1]])
    earlier = torch.cat([x0[None], x[:-1]])
    raised = k + bonus
    M = torch.maximum(before, raised)
    p, s = before.sub_(M).exp_(), raised.sub_(M).exp_()
    N, D = torch.addcmul(s * v, p, earlier[:, 0]), torch.addcmul(s, p, earlier[:, 1])
    return _Steps(m, k > carried, a, r, p, s, x, earlier, N, D)


def _gradients(
    k: Tensor, v: Tensor, g: Tensor, bonus: Tensor, valid: Tensor | None, states: Any, dy: Tensor, *last: Tensor
) -> tuple[Tensor, ...]:
    dk, dv, dg = (torch.empty_like(x) for x in (k, v, g))
    dbonus, (num, den, _), states = torch.zeros_like(bonus), states[:3], states[3:]
    after, excess = torch.stack(last[:2]), last[2]
    excess = torch.where(den > 0, excess - num * after[0] - den * after[1], excess)
    for piece in reversed(_pieces(k)):
        *states, num, den, top = states
        time_first = _time_first(piece, k, v, g, valid)
        s, values, (dy_t,) = _through(time_first, bonus, (num, den, top)), time_first[1], _time_first(piece, dy)
        dN = dy_t / s.D
        dD = (s.N / s.D).mul_(dN).neg_()
        into = torch.stack([s.p * dN, s.p * dD], 1)  # of the sums before each step
        slopes = torch.cat([into[1:], after[None]])
        backwards = slopes.unbind()[::-1]
        add_products(backwards[1:], s.a[1:, None].unbind()[::-1], backwards[:-1])
        newest = torch.addcmul(dD, values, dN).mul_(s.s)
        written = torch.addcmul(slopes[:, 1], values, slopes[:, 0]).mul_(s.r)
        faded = (slopes * s.earlier).sum(1).mul_(s.a)
        after = torch.addcmul(into[0], s.a[0], slopes[0])
        keys = newest + written
        if bool(excess.any()):
            excess = _to_origin(excess, s, keys, faded)
        dk[:, piece], dg[:, piece] = keys.transpose(0, 1), faded.transpose(0, 1)
        dv[:, piece] = torch.addcmul(s.s * dN, s.r, slopes[:, 0]).transpose(0, 1)
        dbonus += newest.sum((0, 1))
    dtop = torch.where(den > 0, excess + num * after[0] + den * after[1], excess)
    return dk, dv, dg, dbonus, *after, dtop


def _to_origin(excess: Tensor, s: _Steps, dk: Tensor, dg: Tensor) -> Tensor:
    """Adds the gradient of the last m to the key that it is, and to the decays since; what is left of it before."""
    moved = s.x[-1, 1] > 0
    for t in reversed(range(len(dk))):
        here = s.from_key[t] & moved
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
