"""Chunks of the state space dual, one decay a head, and their adjoint: no graph, and groups joined into one product.

As in `chunks`, some chunks at a time are a piece, log decays are added up and never subtracted, and the adjoint of one
is the sum of what passes it:

    dg_t = sum_{i >= t > j} W_ij + sum_{i >= t} r_i + sum_{j < t} w_j + <e^total S, dS>

with W = A dA of the matrix A of a chunk, r what is read of the state before it, w what is written to the one after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .chunks import in_chunks, of_piece, pieces_of, walked
from .sums import INF, decays, head_sums, passing


class DualPiece:
    """Chunks of a piece: x (batch, H, chunks, T, P) by heads and (batch, G, chunks, T, J P) by groups of J heads."""

    def __init__(self, x: Tensor, g: Tensor, k: Tensor, q: Tensor, reset: Tensor | None, T: int) -> None:
        self.T, self.sizes = T, (*x.shape[2:], k.shape[2])  # H, P, G
        self.k, self.q = in_chunks(k, T), in_chunks(q, T)
        self.heads, self.groups = self.in_both(x)
        segment = None if reset is None else in_chunks(reset[..., None, None].to(x.dtype), T)[..., 0].cumsum(-1)
        one_for_all = reset is None and does_not_change(g) and x.shape[1] % T == 0
        self._decays(in_chunks((g[:1, :T] if one_for_all else g)[..., None], T)[..., 0], segment)

    def in_both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """By heads and by groups, which may be the same."""
        H, P, G = self.sizes
        heads = in_chunks(x, self.T)
        return heads, heads if H == G else in_chunks(x.reshape(*x.shape[:2], G, H // G * P), self.T)

    def in_groups(self, x: Tensor) -> Tensor:
        """Numbers (batch, H, chunks, T) as (batch, G, chunks, T, J, 1)."""
        H, _, G = self.sizes
        return x.unflatten(1, (G, H // G)).permute(0, 1, 3, 4, 2)[..., None]

    def features(self, x: Tensor) -> Tensor:
        """(batch, G, chunks, T, J P) as (..., J, P)."""
        return x.unflatten(-1, (-1, self.sizes[1]))

    def _decays(self, g: Tensor, segment: Tensor | None) -> None:
        """Of log decays g (batch, H, chunks, T), or (1, H, 1, T) for all chunks: between all steps, and of the state
        before and the one after."""
        between, from_start, to_end, total = head_sums(g, exclusive=False)
        if segment is not None:  # (batch, 1, chunks, T)
            between = between.masked_fill_(segment[..., :, None] != segment[..., None, :], -INF)
            from_start = from_start.masked_fill(segment != 0, -INF)
            to_end = to_end.masked_fill(segment != segment[..., -1:], -INF)
            total = total.masked_fill(segment[..., -1:] != 0, -INF)
        self.decay = decays(between, out=between)
        self.reading, self.writing = (self.in_groups(decays(x)) for x in (from_start, to_end))
        through = self.in_groups(decays(total))[..., 0, :, :]  # (batch, G, chunks, J, 1)
        through = through.expand(*through.shape[:2], self.k.shape[2], through.shape[3], self.sizes[1])
        self.through = through.flatten(-2)[..., None]

    def matrix(self) -> Tensor:
        """A (batch, H, chunks, T, T)."""
        H, _, G = self.sizes
        scores = (self.q @ self.k.mT)[:, :, None]
        return (self.decay.unflatten(1, (G, H // G)) * scores).flatten(1, 2)

    def weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (batch, G, chunks, T, J P) times a number a head."""
        return (self.features(x) * weight).flatten(-2)

    def in_time(self, of_heads: Tensor, of_groups: Tensor, t: int) -> Tensor:
        """The sum of both as (batch, t, H, P), in the memory of the second."""
        H, _, G = self.sizes
        found = self.features(of_groups)  # (batch, G, chunks, T, J, P)
        found += of_heads.unflatten(1, (G, H // G)).permute(0, 1, 3, 4, 2, 5)
        return found.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)[:, :t].flatten(2, 3)


def does_not_change(g: Tensor) -> bool:
    """Whether g (batch, t, H) is one row for all steps, which it repeats without memory of their own."""
    return g.stride(1) == 0 and (g.stride(0) == 0 or g.shape[0] == 1)


def in_time(x: Tensor, t: int) -> Tensor:
    """(batch, G, chunks, T, N) as (batch, t, G, N)."""
    return x.flatten(2, 3)[:, :, :t].transpose(1, 2)


def joined(state: Tensor, G: int) -> Tensor:
    """(batch, H, P, N) as (batch, G, J P, N)."""
    return state.unflatten(1, (G, -1)).flatten(2, 3)


def forward(
    x: Tensor, g: Tensor, k: Tensor, q: Tensor, first: Tensor, reset: Tensor | None, T: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states (batch, G, J P, N) before all chunks, as `of_piece` finds them."""
    L, G, y = x.shape[1], k.shape[2], torch.empty_like(x, memory_format=torch.contiguous_format)
    state = joined(first, G)
    states = state.new_empty((-(-L // T), *state.shape))
    for start, stop in pieces_of(T, L):
        piece = _piece(x, g, k, q, reset, start, stop, T)
        driven = piece.weighted(piece.groups, piece.writing).mT @ piece.k
        before = of_piece(states, start // T, driven.shape[2])
        state = walked(state, piece.through, driven, before)
        carried = piece.q @ before.mT
        piece.features(carried).mul_(piece.reading)
        y[:, start:stop] = piece.in_time(piece.matrix() @ piece.heads, carried, stop - start)
    return y, state.reshape(first.shape).clone(), states


def _piece(
    x: Tensor, g: Tensor, k: Tensor, q: Tensor, reset: Tensor | None, start: int, stop: int, T: int
) -> DualPiece:
    x, g, k, q = (m[:, start:stop] for m in (x, g, k, q))
    return DualPiece(x, g, k, q, None if reset is None else reset[:, start:stop], T)


def backward(
    x: Tensor, g: Tensor, k: Tensor, q: Tensor, states: Tensor, reset: Tensor | None, T: int, of_g: bool, dy: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Those of x, g, k, q and the first state; that of g is without meaning if not asked for."""
    grads = [m.new_empty(m.shape) for m in (x, g, k, q)]
    dstate = joined(dlast, k.shape[2])
    for start, stop in reversed(list(pieces_of(T, x.shape[1]))):
        piece = _piece(x, g, k, q, reset, start, stop, T)
        before = of_piece(states, start // T, piece.k.shape[2])
        found, dstate = _adjoint(piece, dy[:, start:stop], before, dstate, of_g)
        for grad, m in zip(grads, found, strict=True):
            if m is not None:
                grad[:, start:stop] = m
    return grads[0], grads[1], grads[2], grads[3], dstate.reshape(dlast.shape).clone()


def _adjoint(
    piece: DualPiece, dy: Tensor, states: Tensor, dlast: Tensor, of_g: bool
) -> tuple[tuple[Tensor | None, ...], Tensor]:
    """Of one piece: (dx, dg, dk, dq), and the gradient of the state before it."""
    k, q, t, (H, _, G) = piece.k, piece.q, dy.shape[1], piece.sizes
    dheads, dgroups = piece.in_both(dy)
    A = piece.matrix()
    dA = dheads @ piece.heads.mT
    across = passing(dA * A, strictly=False) if of_g else None
    dscores = (dA.mul_(piece.decay)).unflatten(1, (G, H // G)).sum(2)
    dx = A.mT @ dheads

    dread = piece.weighted(dgroups, piece.reading)
    driven = dread.mT @ q
    dafter = torch.empty_like(states)
    dlast = walked(dlast, piece.through, driven, dafter, backward=True)
    written = piece.weighted(piece.groups, piece.writing)
    dwritten = k @ dafter.mT
    dg = None
    if across is not None:
        read, wrote = (piece.features(m).sum(-1) for m in ((q @ states.mT).mul_(dread), written * dwritten))
        kept = piece.through[..., 0] * (states * dafter).sum(-1)
        kept = kept.unflatten(-1, (H // G, -1)).sum(-1)  # (batch, G, chunks, J)
        ones = read.new_ones((piece.T, piece.T))
        carried = ones.triu() @ read + ones.tril(-1) @ wrote + kept[..., None, :]  # (batch, G, chunks, T, J)
        dg = (across.permute(0, 2, 3, 1) + carried.permute(0, 2, 3, 1, 4).flatten(3, 4)).flatten(1, 2)[:, :t]
    dq = (dscores @ k).add_(dread @ states)
    dk = (dscores.mT @ q).add_(written @ dafter)
    piece.features(dwritten).mul_(piece.writing)
    dx_time = piece.in_time(dx, dwritten, t)
    return (dx_time, dg, in_time(dk, t), in_time(dq, t)), dlast
