"""What readers meet of keys written before them, with one decay a head or one a channel, and the adjoint of that.

Readers (chunks, N, T, 2, K) read before the decay of their step, so that a log decay passes between step i and an
earlier j where j < t < i; keys are (chunks, N, T, m, K). The adjoint of a log decay is the sum of what passes it, as in
`..decay.dual` and `..decay.chunks`.
"""

from __future__ import annotations

from torch import Tensor

from ..decay.sums import (
    ChannelProducts,
    across,
    add_decayed,
    decayed,
    decays,
    head_sums,
    over_entries,
    passing,
    rows_after,
    rows_before,
)

Gradients = tuple[Tensor, Tensor, Tensor]


class HeadDecays:
    """Of log decays g (chunks, N, T, 1)."""

    def __init__(self, readers: Tensor, keys: Tensor, g: Tensor) -> None:
        self.readers, self.keys = readers, keys
        between, from_start, to_end, total = head_sums(g[..., 0], exclusive=True)
        self.between = decays(between, out=between)[:, :, :, None, :, None]
        self.since_start, self.to_end = (decays(x)[..., None, None] for x in (from_start, to_end))
        self.through = decays(total)[..., None]
        *lead, T, _, _ = readers.shape
        self.scores = (readers.flatten(2, 3) @ keys.flatten(2, 3).mT).view(*lead, T, 2, T, -1).mul_(self.between)

    def adjoint(self, dscores: Tensor, dread: Tensor, dwritten: Tensor, dthrough: Tensor) -> Gradients:
        """Gradients of readers, keys and g, of those of scores, of what all readers read of the state before the chunk
        and all keys write to the state after it, and of `through`, times it."""
        passed = passing((dscores * self.scores).sum((3, 5)), strictly=True)
        dscores = (dscores * self.between).flatten(4, 5).flatten(2, 3)
        dread, dwritten = dread * self.since_start, dwritten * self.to_end
        T = self.keys.shape[2]
        read, written = ((x * y).sum((-1, -2)) for x, y in ((dread, self.readers), (dwritten, self.keys)))
        ones = read.new_ones((T, T))
        dg = passed + read @ ones.tril(-1) + written @ ones.triu(1) + dthrough.sum(-1, keepdim=True)
        dreaders = (dscores @ self.keys.flatten(2, 3)).view_as(dread).add_(dread)
        dkeys = (dscores.mT @ self.readers.flatten(2, 3)).view_as(dwritten).add_(dwritten)
        return dreaders, dkeys, dg[..., None]


class ChannelDecays:
    """Of log decays g (chunks, N, T, K) and decays e^g; the adjoint needs the levels."""

    def __init__(self, readers: Tensor, keys: Tensor, g: Tensor, decay: Tensor, levels: bool) -> None:
        self.readers, self.keys = readers, keys
        *lead, T, _, _ = readers.shape
        m = keys.shape[3]
        self.scores, self.levels = readers.new_zeros((*lead, T, 2, T, m)), []
        flat = self.scores.flatten(4, 5).flatten(2, 3)
        products = ChannelProducts(g, decay, exclusive=True)
        for h, after, before in products.halves():
            after, before = (None if x is None else x[..., None, :] for x in (after, before))
            late, early = decayed(_half(readers, h, 1), after), decayed(_half(keys, h, 0), before)
            found = late.flatten(-3, -2) @ early.flatten(-3, -2).mT
            across(flat, 2 * h, m * h).copy_(found.movedim(-3, -1))
            if levels:
                after, before = (None if x is None else x.clone() for x in (after, before))
                self.levels.append((h, late, early, after, before))
        self.since_start, self.to_end = products.since_start[..., None, :], products.to_end[..., None, :]
        self.through = products.through.mT

    def adjoint(self, dscores: Tensor, dread: Tensor, dwritten: Tensor, dthrough: Tensor) -> Gradients:
        """As of `HeadDecays`."""
        flat = dscores.flatten(4, 5).flatten(2, 3)
        dreaders, dkeys = dread * self.since_start, dwritten * self.to_end
        dg = rows_after((dreaders * self.readers).sum(-2), strictly=True)
        dg += rows_before(over_entries(dkeys * self.keys))
        dg += dthrough[:, :, None, :]
        for h, late, early, after, before in self.levels:
            slopes = across(flat, 2 * h, self.keys.shape[3] * h).movedim(-1, -3)
            late_rows, early_rows = late.flatten(-3, -2), early.flatten(-3, -2)
            if early_rows.shape[-2] == 1:  # too small for products of matrices
                dlate, dearly = slopes * early_rows, (slopes * late_rows).sum(-2, keepdim=True)
            else:
                dlate, dearly = slopes @ early_rows, slopes.mT @ late_rows
            dlate, dearly = dlate.view_as(late), dearly.view_as(early)
            add_decayed(_half(dreaders, h, 1), dlate, after)
            add_decayed(_half(dkeys, h, 0), dearly, before)
            if h > 1:
                first, second = dg.view(*dg.shape[:2], -1, 2, h, dg.shape[-1]).unbind(-3)
                second += rows_after(dlate.mul_(late).sum(-2), strictly=True)
                first += rows_before(over_entries(dearly.mul_(early)))
        return dreaders, dkeys, dg


def _half(x: Tensor, h: int, which: int) -> Tensor:
    """The first or second halves (..., pairs, h, n, K) of blocks of 2 h steps of x (..., T, n, K)."""
    *lead, T, n, K = x.shape
    return x.view(*lead, T // (2 * h), 2, h, n, K)[..., which, :, :, :]
