"""The selective scan and its gradients for PyTorch on a CPU, some steps at a time and in memory that is held.

With w = dt A, the gates e^w and the adjoint l_k = C_k g_k + e^(w_(k+1)) l_(k+1) of the states x_k:

    grad w_k = l_k e^(w_k) x_(k-1),    grad dt_k = sum_n A grad w_k + u_k sum_n B_k l_k,    grad A = sum_k dt_k grad w_k
    grad u_k = dt_k sum_n B_k l_k,     grad B_k = sum_h dt_k u_k l_k,                       grad C_k = sum_h g_k x_k

Of the forward only the states between chunks are kept; the others are computed again, from the last chunk to the first.
The differentiated generic body keeps as little, but what it keeps lies between what it frees: memory that the C library
cannot give to anything larger, four times as much as all states together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssm_core.recurrences.diagonal import steps_at_once

from ..scans.body import add_products

FEWEST = 16  # steps between the states that are kept


def spacing(u: Tensor, states: int, chunk: int | None) -> int:
    """Steps of a chunk: those asked for, or so few that its states stay small, but not so few that most are kept."""
    batch, H, length = u.shape
    return min(length, max(FEWEST, steps_at_once(batch * H * states, length, u)) if chunk is None else chunk)


def forward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor, reset: Tensor | None,
    lengths: Tensor | None, keep: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y in the memory order of u, the last state, and with `keep` the state before every chunk of T steps."""
    chunks = _Chunks(u, dt, A, B, reset, lengths, T)
    y, x = torch.empty_like(u), first
    outputs, rows = y.movedim(-1, 0), _time_first(C)
    starts = u.new_empty((len(chunks.parts) if keep else 0, *first.shape))
    for i, part in enumerate(chunks.parts):
        if keep:
            starts[i] = x
        chunks.run(part, x)
        outputs[part] = _read(chunks.states, _at(rows, part), chunks.spare)
        x = chunks.states[-1].clone()
    return y, x, starts.movedim(0, 1)


def backward(
    g: Tensor, g_last: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor,
    reset: Tensor | None, lengths: Tensor | None, want_B: bool, want_C: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of u, dt, A, B, C and the first state; those of rows of every step are (batch, G, L, N)."""
    chunks = _Chunks(u, dt, A, B, reset, lengths, T)
    grad_u, grad_dt, grad_A, carry = torch.empty_like(u), torch.empty_like(dt), torch.zeros_like(A), g_last
    grad_B, grad_C = (
        x.new_zeros((0,) if not wanted else x.shape if x.ndim == 2 else x.mT.shape)
        for x, wanted in ((B, want_B), (C, want_C))
    )
    of_u, of_dt, of_y, rows = grad_u.movedim(-1, 0), grad_dt.movedim(-1, 0), g.movedim(-1, 0), _time_first(C)
    held = torch.empty_like(chunks.space[0])
    for part, x in zip(reversed(chunks.parts), reversed(starts.unbind(1)), strict=True):
        u_k, dt_k = chunks.run(part, x)
        gate, states, spare, slopes = chunks.gates, chunks.states, chunks.spare, of_y[part].contiguous()
        adjoint = _times_rows(slopes, _at(rows, part), held[: len(gate)])
        adjoint[-1] += carry
        ahead = adjoint.unbind(0)[::-1]
        add_products(ahead[1:], gate.unbind(0)[:0:-1], ahead[:-1])
        carry = gate[0] * adjoint[0]
        if want_C:
            _add_rows(grad_C, part, slopes, states, spare)

        of_w = gate
        of_w *= adjoint
        torch.mul(of_w[1:], states[:-1], out=of_w[1:])
        of_w[0] *= x
        outside = chunks.outside(part)
        if outside is not None:
            of_w.masked_fill_(outside, 0)
            adjoint.masked_fill_(outside, 0)
        driven = _read(adjoint, _at(chunks.B, part), spare)
        of_u[part] = driven * dt_k
        of_dt[part] = torch.mul(of_w, A, out=spare).sum(-1).addcmul_(driven, u_k)
        grad_A += torch.mul(of_w, dt_k[..., None], out=spare).sum((0, 1))
        if want_B:
            _add_rows(grad_B, part, dt_k * u_k, adjoint, spare)
    return grad_u, grad_dt, grad_A, grad_B, grad_C, carry


class _Chunks:
    """Gates and states (T, batch, H, N) of one chunk at a time, in the same memory for all of them."""

    def __init__(
        self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, reset: Tensor | None, lengths: Tensor | None, T: int
    ):
        batch, H, length = u.shape
        self.u, self.dt, self.A, self.B = u.movedim(-1, 0), dt.movedim(-1, 0), A, _time_first(B)
        self.reset = None if reset is None else reset.T[..., None, None]
        steps = torch.arange(length, device=u.device)[:, None, None, None]
        self.beyond = None if lengths is None else steps >= lengths[:, None, None]
        self.space = u.new_empty((3, T, batch, H, A.shape[1]))
        self.parts = [slice(start, min(start + T, length)) for start in range(0, length, T)]

    def run(self, part: slice, x: Tensor) -> tuple[Tensor, Tensor]:
        """Fills the gates and the states of a chunk from the state before it; returns its u and dt (T, batch, H)."""
        u, dt = self.u[part].contiguous(), self.dt[part].contiguous()
        gates, states, self.spare = self.space[:, : len(u)].unbind(0)
        torch.mul(dt[..., None], self.A, out=gates).exp_()
        _times_rows(dt * u, _at(self.B, part), states)
        outside = self.outside(part)
        if self.reset is not None:
            gates.masked_fill_(self.reset[part], 0)
        if outside is not None:
            gates.masked_fill_(outside, 1)
            states.masked_fill_(outside, 0)
        steps = states.unbind(0)
        add_products(steps, gates.unbind(0), (x, *steps[:-1]))
        self.gates, self.states = gates, states
        return u, dt

    def outside(self, part: slice) -> Tensor | None:
        """Where the steps of a chunk lie beyond the lengths."""
        return None if self.beyond is None else self.beyond[part]


def _time_first(rows: Tensor) -> Tensor:
    """(L, batch, G, N), or constant rows (H, N) as they are."""
    return rows if rows.ndim == 2 else rows.movedim(-1, 0)


def _at(rows: Tensor, part: slice) -> Tensor:
    return rows if rows.ndim == 2 else rows[part]


def _times_rows(x: Tensor, rows: Tensor, out: Tensor) -> Tensor:
    """x (T, batch, H) times rows (H, N) or (T, batch, G, N): (T, batch, H, N)."""
    if rows.ndim == 2:
        return torch.mul(x[..., None], rows, out=out)
    groups = (rows.shape[2], -1)
    torch.mul(x.unflatten(2, groups)[..., None], rows[..., None, :], out=out.unflatten(2, groups))
    return out


def _read(states: Tensor, rows: Tensor, spare: Tensor) -> Tensor:
    """sum_n rows_n x_n of states (T, batch, H, N): (T, batch, H)."""
    if rows.ndim == 2:
        return torch.mul(states, rows, out=spare).sum(-1)
    return torch.matmul(states.unflatten(2, (rows.shape[2], -1)), rows[..., None])[..., 0].flatten(2)


def _add_rows(grad: Tensor, part: slice, x: Tensor, states: Tensor, spare: Tensor) -> None:
    """sum_h x_h states_h of every step and group into grad (batch, G, L, N), or over all steps into (H, N)."""
    if grad.ndim == 2:
        grad += torch.mul(x[..., None], states, out=spare).sum((0, 1))
        return
    groups = (grad.shape[1], -1)
    products = torch.matmul(x.unflatten(2, groups)[..., None, :], states.unflatten(2, groups))
    grad[:, :, part] = products[..., 0, :].movedim(0, 2)
