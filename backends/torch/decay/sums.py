"""Decays of the steps of a chunk: added up by halves as logs, and never subtracted, or multiplied.

Steps of the first half of a block meet those of its second half over the boundary between them: what is read decays up
to it, and what reads since it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

INF = float("inf")
FEW = 2  # rows, too few for products of matrices


def least(x: Tensor) -> float:
    """What counts as zero: the product of two such numbers is no normal one, with which processors are slow."""
    return math.sqrt(torch.finfo(x.dtype).tiny)


def decays(sums: Tensor, out: Tensor | None = None) -> Tensor:
    """e^sums in the order of its axes, zero from `least` down; `out` may be the sums."""
    low = least(sums)
    return torch.nn.functional.threshold_(torch.clamp(sums, min=math.log(low) - 1, out=out).exp_(), low, 0.0)


class ChannelProducts:
    """Decays e^g of log decays g (..., T, K) with one a channel, multiplied from single steps to the chunk.

    After all `halves`: those up to a step, or before it if exclusive, `since_start`, and those after it, `to_end`.
    Exponentials take longer than products, whose roundings are those of 2 T numbers at most. States go through many
    chunks, where roundings that are the same in each would add up, and so `through` (..., 1, K) is that of the sum.
    """

    def __init__(self, g: Tensor, decay: Tensor, exclusive: bool) -> None:
        self.exclusive, self.decay = exclusive, decay
        self.since_start = torch.ones_like(g) if exclusive else decay.clone()
        self.to_end = torch.ones_like(g)
        self.through = decays(g.sum(-2, keepdim=True))
        self.lowest = min(0.0, float(g.min())) if g.device.type == "cpu" else -INF  # of a step

    def halves(self) -> Iterator[tuple[int, Tensor | None, Tensor | None]]:
        """Levels: the size h of a half, decays (..., pairs, h, K) since the middle, and those up to it.

        None where nothing decays: of a key right before the step that reads it, or, if exclusive, by a step itself.
        They hold until the next level is asked for.
        """
        *lead, T, K = self.since_start.shape
        of_half, h = self.decay, 1
        while h < T:
            shape = (*lead, T // (2 * h), 2, h, K)
            late, early = self.since_start.view(shape)[..., 1, :, :], self.to_end.view(shape)[..., 0, :, :]
            yield h, None if h == 1 and self.exclusive else late, None if h == 1 else early
            left, right = of_half.view(*lead, T // (2 * h), 2, K).unbind(-2)
            found = late.mul_(left[..., None, :]), early.mul_(right[..., None, :]), left * right
            h *= 2
            if h * self.lowest < math.log(least(late)):
                for x in found:
                    torch.nn.functional.threshold_(x, least(x), 0.0)
            of_half = found[-1]


def head_sums(g: Tensor, exclusive: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Those of log decays g (..., T) with one a head: between the steps, from the start, to the end, and all.

    Between step i and an earlier j (..., T, T): those after j up to i, or before i if exclusive; else -inf, and on the
    diagonal 0, or -inf if exclusive.
    """
    *lead, T = g.shape
    between = g.new_full((*lead, T, T), -INF)
    if not exclusive:
        between.diagonal(dim1=-2, dim2=-1).zero_()
    from_start = torch.zeros_like(g) if exclusive else g.clone()
    to_end, total, h = torch.zeros_like(g), g, 1
    while h < T:
        halves = (*lead, T // (2 * h), 2, h)
        late, early = from_start.view(halves)[..., 1, :], to_end.view(halves)[..., 0, :]
        across(between, h, h).copy_((late[..., :, None] + early[..., None, :]).movedim(-3, -1))
        left, right = total.view(*lead, T // (2 * h), 2).unbind(-1)
        late += left[..., None]
        early += right[..., None]
        total, h = left + right, 2 * h
    return between, from_start, to_end, total.view(*lead, 1)


def across(scores: Tensor, rows: int, columns: int) -> Tensor:
    """The blocks of scores between halves of so many rows and columns: (..., rows, columns, pairs)."""
    *lead, n, m = scores.shape
    blocks = scores.view(*lead, n // (2 * rows), 2, rows, m // (2 * columns), 2, columns)[..., :, 1, :, :, 0, :]
    return blocks.diagonal(dim1=-4, dim2=-2)


def decayed(x: Tensor, decay: Tensor | None) -> Tensor:
    """x times the decay, where there is one."""
    return x if decay is None else x * decay


def add_decayed(to: Tensor, x: Tensor, decay: Tensor | None) -> None:
    """to += x times the decay, where there is one."""
    to.add_(x) if decay is None else to.addcmul_(x, decay)


def over_entries(x: Tensor) -> Tensor:
    """The sum of x (..., n, K) over n, which mostly is 1."""
    return x[..., 0, :] if x.shape[-2] == 1 else x.sum(-2)


def rows_after(x: Tensor, strictly: bool) -> Tensor:
    """The sum of the rows of x from every step on, or of those after it."""
    n = x.shape[-2]
    if n <= FEW:
        later = pad(x[..., 1:, :], (0, 0, 0, 1))
        return later if strictly else x + later
    return x.new_ones((n, n)).triu(1 if strictly else 0) @ x


def rows_before(x: Tensor) -> Tensor:
    """The sum of the rows of x before every step."""
    n = x.shape[-2]
    return pad(x[..., :-1, :], (0, 0, 1, 0)) if n <= FEW else x.new_ones((n, n)).tril(-1) @ x


def passing(W: Tensor, strictly: bool) -> Tensor:
    """The sum over i >= t > j, or i > t > j, of W (..., T, T) at every t."""
    T = W.shape[-1]
    before = W @ W.new_ones((T, T)).triu(1)
    return before.tril_(-1 if strictly else 0).sum(-2)
