"""Chunks of gated linear attention with a decay a channel, and their adjoint: no graph, and buffers that are reused.

Some chunks at a time are a piece: all of it is one batched product but the walk of the states. The adjoint of a log
decay is the sum of what passes it. Between the halves of a level, where every pair passes the middle,

    dg_t = sum_{i >= t} q_i dq_i for t in the second half,   dg_t = sum_{j < t} k_j dk_j for t in the first

(i > t for an exclusive read), and likewise what is read of the state before the chunk, what is written to the state
after it, and <e^total S, dS>. Nothing is added that is taken away again: its roundings would drown strong decays.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .sums import ChannelProducts, across, add_decayed, decayed, decays, rows_after, rows_before

PIECE = 512  # steps


class Levels(NamedTuple):
    """The halves of one level: rows that read and rows that are read, and their decays to the middle."""

    h: int
    late: Tensor
    early: Tensor
    after: Tensor | None
    before: Tensor | None


class Piece:
    """Chunks (batch, H, chunks, T, ...) of a piece; decays are multiplied by the levels."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, exclusive: bool, segment: Tensor | None) -> None:
        self.q, self.k, self.v, self.g, self.segment = q, k, v, g, segment
        self.exclusive = exclusive
        self.T = q.shape[3]

    def levels(self) -> Iterator[Levels]:
        """From single steps to halves of the chunk. Afterwards there are `reading`, `writing` and `through`."""
        *lead, T, K = self.q.shape
        decay = ChannelProducts(self.g, decays(self.g), self.exclusive)
        for h, after, before in decay.halves():
            halves = (*lead, T // (2 * h), 2, h, K)
            late = decayed(self.q.view(halves)[..., 1, :, :], after)
            early = decayed(self.k.view(halves)[..., 0, :, :], before)
            yield Levels(h, late, early, after, before)
        self.reading, self.writing, through = decay.since_start, decay.to_end, decay.through
        if self.segment is not None:  # (batch, 1, chunks, T)
            s = self.segment[..., None]
            self.reading.masked_fill_(s != 0, 0)
            self.writing.masked_fill_(s != s[..., -1:, :], 0)
            through = through.masked_fill(s[..., -1:, :] != 0, 0)
        self.through = through[..., 0, :, None]  # (batch, H, chunks, K, 1)

    def masked(self, scores: Tensor) -> Tensor:
        """Scores of steps of the same sequence."""
        if self.segment is None:
            return scores
        return scores.masked_fill_(self.segment[..., :, None] != self.segment[..., None, :], 0)

    def scores(self, weight: Tensor | None) -> Tensor:
        scores = self.q.new_zeros((*self.q.shape[:4], self.T))
        same = self.q * self.k if weight is None else self.q * self.k * weight
        scores.diagonal(dim1=-2, dim2=-1).copy_(same.sum(-1))
        for level in self.levels():
            found = (level.late * level.early).sum(-1, keepdim=True) if level.h == 1 else level.late @ level.early.mT
            across(scores, level.h, level.h).copy_(found.movedim(-3, -1))
        return self.masked(scores)


def steps_of_chunk(chunk: int, length: int) -> int:
    """The next power of two, and no more than the sequence needs; one for all lengths of at least the chunk."""
    T = 1 << (chunk - 1).bit_length()
    while T > 1 and length <= T // 2:
        T //= 2
    return T


def pieces_of(T: int, length: int) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of pieces of whole chunks."""
    steps = max(1, PIECE // T) * T
    for start in range(0, length, steps):
        yield start, min(start + steps, length)


def in_chunks(x: Tensor, T: int) -> Tensor:
    """(batch, t, H, D) as contiguous (batch, H, chunks, T, D), zeros behind the end."""
    batch, t, H, D = x.shape
    n = -(-t // T)
    if n * T == t:
        return x.unflatten(1, (n, T)).permute(0, 3, 1, 2, 4).contiguous()
    found = x.new_zeros((batch, H, n, T, D))
    found.view(batch, H, n * T, D)[:, :, :t].copy_(x.transpose(1, 2))
    return found


def in_time(x: Tensor, t: int) -> Tensor:
    """Back to (batch, t, H, D)."""
    return x.flatten(2, 3)[:, :, :t].transpose(1, 2)


def piece_of(
    tensors: tuple[Tensor, ...], reset: Tensor | None, start: int, stop: int, T: int, exclusive: bool
) -> Piece:
    q, k, v, g = (in_chunks(x[:, start:stop], T) for x in tensors)
    segment = None
    if reset is not None:
        rows = reset[:, start:stop, None, None].to(q.dtype)
        segment = in_chunks(rows, T)[..., 0].cumsum(-1)
    return Piece(q, k, v, g, exclusive, segment)


def of_piece(states: Tensor, start: int, chunks: int) -> Tensor:
    """Those before some chunks, (batch, H, chunks, ...) of memory (all chunks, batch, H, ...): a piece lies together,
    so that products of matrices take it as it is."""
    return states[start : start + chunks].view(*states.shape[1:3], chunks, *states.shape[3:])


def walked(first: Tensor, through: Tensor, driven: Tensor, states: Tensor, backward: bool = False) -> Tensor:
    """The state after S <- through S + driven over all chunks, (batch, H, chunks, ...) each, and into `states` the one
    before every chunk; or from the last chunk to the first."""
    steps = [(through[:, :, c], driven[:, :, c], states[:, :, c]) for c in range(driven.shape[2])]
    steps = steps[::-1] if backward else steps
    steps[0][2].copy_(first)
    for (gate, drive, state), (_, _, after) in pairwise(steps):
        torch.addcmul(drive, gate, state, out=after)
    gate, drive, state = steps[-1]
    return torch.addcmul(drive, gate, state)


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, first: Tensor, weight: Tensor | None, reset: Tensor | None,
    exclusive: bool, T: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state, and the states before all chunks, as `of_piece` finds them."""
    L, y, state = v.shape[1], v.new_empty(v.shape), first
    states = first.new_empty((-(-L // T), *first.shape))
    rows = None if weight is None else weight[:, None, None, :]
    for start, stop in pieces_of(T, L):
        piece = piece_of((q, k, v, g), reset, start, stop, T, exclusive)
        found = piece.scores(rows) @ piece.v
        driven = (piece.k * piece.writing).mT @ piece.v
        before = of_piece(states, start // T, driven.shape[2])
        state = walked(state, piece.through, driven, before)
        found += (piece.q * piece.reading) @ before
        y[:, start:stop] = in_time(found, stop - start)
    return y, state, states


def backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, states: Tensor, weight: Tensor | None, reset: Tensor | None,
    exclusive: bool, T: int, dy: Tensor, dstate: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Those of q, k, v, g, the first state, and the weight."""
    L = v.shape[1]
    grads = [x.new_empty(x.shape) for x in (q, k, v, g)]
    rows = None if weight is None else weight[:, None, None, :]
    dweight = q.new_zeros(q.shape[2:])
    for start, stop in reversed(list(pieces_of(T, L))):
        piece = piece_of((q, k, v, g), reset, start, stop, T, exclusive)
        dout = in_chunks(dy[:, start:stop], T)
        before = of_piece(states, start // T, dout.shape[2])
        found, dstate, own = _adjoint(piece, dout, before, dstate, rows)
        dweight += own.sum((0, 2, 3))
        for grad, x in zip(grads, found, strict=True):
            grad[:, start:stop] = in_time(x, stop - start)
    return grads[0], grads[1], grads[2], grads[3], dstate, dweight


def _adjoint(
    piece: Piece, dy: Tensor, states: Tensor, dlast: Tensor, weight: Tensor | None
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Of one piece: (dq, dk, dv, dg), the gradient of the state before it, and q k dy . v of every step and itself."""
    q, k, v = piece.q, piece.k, piece.v
    dscores = piece.masked(dy @ v.mT)
    scores, dq, dk, dg = torch.zeros_like(dscores), torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(q)
    for h, late, early, after, before in piece.levels():
        found = (late * early).sum(-1, keepdim=True) if h == 1 else late @ early.mT
        across(scores, h, h).copy_(found.movedim(-3, -1))
        slopes = across(dscores, h, h).movedim(-1, -3)
        halves = (*q.shape[:3], piece.T // (2 * h), 2, h, q.shape[-1])
        dlate, dearly = (slopes * early, slopes * late) if h == 1 else (slopes @ early, slopes.mT @ late)
        add_decayed(dq.view(halves)[..., 1, :, :], dlate, after)
        add_decayed(dk.view(halves)[..., 0, :, :], dearly, before)
        first, second = dg.view(halves).unbind(-3)
        if after is not None:
            second += rows_after(dlate.mul_(late), piece.exclusive)
        if before is not None:
            first += rows_before(dearly.mul_(early))
    same = q * k if weight is None else q * k * weight
    scores.diagonal(dim1=-2, dim2=-1).copy_(same.sum(-1))
    scores = piece.masked(scores)

    driven = (q * piece.reading).mT @ dy
    dafter = torch.empty_like(states)
    dlast = walked(dlast, piece.through, driven, dafter, backward=True)
    dv = torch.matmul(scores.mT, dy).add_((k * piece.writing) @ dafter)
    read, written = (dy @ states.mT).mul_(piece.reading), (v @ dafter.mT).mul_(piece.writing)
    dg += rows_after(q * read, piece.exclusive)
    dg += rows_before(k * written)
    dg += (piece.through[..., 0] * (states * dafter).sum(-1))[..., None, :]
    own = dscores.diagonal(dim1=-2, dim2=-1)[..., None]
    dq += read
    dk += written
    dq += own * (k if weight is None else k * weight)
    dk += own * (q if weight is None else q * weight)
    return (dq, dk, dv, dg), dlast, own * q * k
