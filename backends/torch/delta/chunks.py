"""Chunks of delta rules and their adjoint: no graph, and memory of a few chunks.

Some chunks at a time are a piece, of which all is one batched product but the walk of the states. With what readers
meet of the keys, A of R and P of q, and the values of the keys, w or (w, v),

    (I + A) w = z - R S,   y = q S + P values,   S' = e^total S + keys^T values

where R, q and keys are decayed from the start of the chunk and to its end. The adjoint of a chunk, given dy and dS':

    dvalues = P^T dy + keys dS',   (I + A)^T dz = dw,   dS = e^total dS' + q^T dy - R^T dz
    d(A, P) = (-dz, dy) values^T,   d(R, q) = (-dz, dy) S^T,   dkeys = values dS'^T
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .decays import ChannelDecays, HeadDecays
from .inverse import unit_inverse
from .rule import Given, Rule

SIZE = 2**18  # numbers of a signal of a piece: few enough for caches, and many enough for every call of a library
FIRST, LAST = ("g", "reset"), ("q",)  # signals of the first and of the last substep alone

Signals = Sequence[Tensor | None]


class Layout(NamedTuple):
    """How signals (batch, L, [R,] heads, .) become pieces of chunks of T substeps, (chunks, batch, H, T, .)."""

    batch: int
    L: int
    R: int
    H: int
    T: int
    width: int  # the larger one of K and V

    @classmethod
    def of(cls, signals: Signals, T: int) -> Layout:
        s = Given(*signals)
        batch, L, *several, H, V = s.v.shape
        return cls(batch, L, several[0] if several else 1, H, T, max(V, s.k.shape[-1]))

    @property
    def chunks(self) -> int:
        return -(-self.L * self.R // self.T)

    def results(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Memory for y, and for the states (chunks + 1, batch H, K, V) that a first one leads to."""
        y = first.new_empty((self.batch, self.L, self.H, first.shape[-1]))
        return y, first.new_empty((self.chunks + 1, self.batch * self.H, *first.shape[2:]))

    def pieces(self) -> list[tuple[slice, slice]]:
        """The steps and the chunks of each."""
        chunks = max(1, SIZE // (self.batch * self.H * self.T * self.width))
        ends = [*range(0, self.L, -(-chunks // self.R) * self.T), self.L]
        return [(slice(a, b), slice(a * self.R // self.T, -(-b * self.R // self.T))) for a, b in pairwise(ends)]

    def given(self, signals: Signals, steps: slice) -> Given:
        names = Given._fields
        return Given(*(None if x is None else self.taken(n, x, steps) for n, x in zip(names, signals, strict=True)))

    def taken(self, name: str, x: Tensor, steps: slice) -> Tensor:
        """A piece, of every head what its group has; zeros where a substep has none, and behind the end."""
        x = self._wide(name, x)[:, steps]
        if self.R > 1 and name in FIRST + LAST:
            filled = x.new_zeros((*x.shape[:2], self.R, *x.shape[2:]))
            filled[:, :, -1 if name in LAST else 0] = x
            x = filled
        x = x if x.ndim == 4 else x.flatten(1, 2)
        missing = -x.shape[1] % self.T
        x = torch.cat([x, x.new_zeros((len(x), missing, *x.shape[2:]))], dim=1) if missing else x
        x = x.unflatten(1, (-1, self.T)).permute(1, 0, 3, 2, 4)
        return x if name == "reset" or x.shape[2] == self.H else x.repeat_interleave(self.H // x.shape[2], dim=2)

    def put(self, name: str, x: Tensor, into: Tensor, steps: slice) -> None:
        """The way back: of a group the sum over its heads."""
        into = self._wide(name, into)[:, steps]
        x = x if into.shape[-2] == self.H else x.unflatten(2, (into.shape[-2], -1)).sum(3)
        x = x.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, : into.shape[1] * self.R]
        if self.R > 1:
            x = x.unflatten(1, (-1, self.R))
            x = x[:, :, -1] if name in LAST else x[:, :, 0] if name in FIRST else x
        into.copy_(x)

    def _wide(self, name: str, x: Tensor) -> Tensor:
        """With axes of heads and of entries of one."""
        if name == "reset":
            return x[..., None, None]
        return x[..., None] if name == "beta" or (name == "g" and x.ndim == 3) else x


class Piece:
    """Chunks of a piece without their states, of N heads of all sequences; the levels of decays are for the adjoint."""

    def __init__(self, given: Given, scale: float, levels: bool = False) -> None:
        self.rule = rule = Rule(given, scale)
        self.sizes = tuple(given.q.shape[1:3])
        readers, keys, self.values, g = (x.flatten(1, 2) for x in (rule.readers, rule.keys, rule.values, rule.g))
        if g.shape[-1] == 1:
            self.decays: HeadDecays | ChannelDecays = HeadDecays(readers, keys, g)
        else:
            self.decays = ChannelDecays(readers, keys, g, rule.decay.flatten(1, 2), levels)
        self.scores, self.through = self.decays.scores, self.decays.through
        self.scores[..., 1, :, :].diagonal(dim1=2, dim2=3).copy_(rule.own().flatten(1, 2).mT)
        self.P = self.scores[..., 1, :, :].flatten(-2)
        self.readers, self.keys = readers * self.decays.since_start, keys * self.decays.to_end
        self.inverse = unit_inverse(self.scores[..., 0, :, 0])
        self.general = keys.shape[3] > 1
        self.w = self.values[..., 0, :]
        self.z = -(self.scores[..., 0, :, 1] @ self.values[..., 1, :]) if self.general else self.w  # till it is found

    def walk(self, states: Tensor) -> None:
        """The values w, and the states after all chunks behind the first one."""
        R, solved = self.readers[..., 0, :], self.keys[..., 0, :].mT
        entering = self.keys[..., 1, :].mT @ self.values[..., 1, :] if self.general else None
        for c, (before, after) in enumerate(pairwise(states)):
            w = torch.bmm(self.inverse[c], torch.baddbmm(self.z[c], R[c], before, alpha=-1), out=self.w[c])
            torch.mul(self.through[c], before, out=after)
            if entering is not None:
                after += entering[c]
            after.baddbmm_(solved[c], w)

    def outputs(self, states: Tensor) -> Tensor:
        y = self.readers[..., 1, :] @ states[:-1]
        y.flatten(0, 1).baddbmm_(self.P.flatten(0, 1), self.values.flatten(2, 3).flatten(0, 1))
        return y.unflatten(1, self.sizes)

    def adjoint(self, dy: Tensor, states: Tensor, dstate: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Gradients of the signals, and of the state before the piece."""
        before, (R, q), keys = states[:-1], self.readers.unbind(-2), self.keys
        slopes = dy.new_empty((*self.w.shape[:-1], 2, dy.shape[-1]))
        slopes[..., 1, :] = dy.flatten(1, 2)
        dy = slopes[..., 1, :]
        self.w.copy_(self.inverse @ (self.z - R @ before))
        dvalues = (self.P.mT @ dy).view_as(self.values)
        driven, dafter = q.mT @ dy, torch.empty_like(before)
        for c in reversed(range(len(before))):
            dafter[c] = dstate
            dz = torch.bmm(self.inverse[c].mT, torch.baddbmm(dvalues[c, :, :, 0], keys[c, :, :, 0], dstate))
            dstate = torch.addcmul(driven[c], self.through[c], dstate).baddbmm_(R[c].mT, dz, alpha=-1)
            slopes[c, :, :, 0] = dz.neg_()
        dz = slopes[..., 0, :]
        if self.general:
            dz = dvalues[..., 1, :] + keys[..., 1, :] @ dafter + self.scores[..., 0, :, 1].mT @ dz
        else:
            dz = dz.neg()
        rows, values = slopes.flatten(2, 3), self.values.flatten(2, 3)
        dscores = (rows @ values.mT).view_as(self.scores)
        down = dscores[..., 1, :, :].diagonal(dim1=2, dim2=3).mT.contiguous()
        dread, dwritten = (rows @ before.mT).view_as(self.readers), (values @ dafter.mT).view_as(keys)
        dthrough = (self.through * before * dafter).sum(-1)
        found = *self.decays.adjoint(dscores, dread, dwritten, dthrough), dz, down
        dreaders, dkeys, dg, dz, down = (x.unflatten(1, self.sizes) for x in found)
        return self.rule.adjoint(dreaders, dkeys, dz, dg, down), dstate


def forward(signals: Signals, first: Tensor, scale: float, T: int) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states before and after all chunks. The last of the signals are resets."""
    layout = Layout.of(signals, T)
    y, states = layout.results(first)
    states[0] = first.flatten(0, 1)
    for steps, chunks in layout.pieces():
        piece, here = Piece(layout.given(signals, steps), scale), states[chunks.start : chunks.stop + 1]
        piece.walk(here)
        layout.put("q", piece.outputs(here), y, steps)
    return y, states[-1].view(first.shape).clone(), states


def backward(
    signals: Signals, states: Tensor, scale: float, T: int, dy: Tensor, dlast: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The gradients of the signals that are given, without resets, and of the first state."""
    layout = Layout.of(signals, T)
    grads = [None if x is None else x.new_empty(x.shape) for x in signals[:-1]]
    dstate = dlast.flatten(0, 1)
    for steps, chunks in reversed(layout.pieces()):
        piece, here = Piece(layout.given(signals, steps), scale, levels=True), states[chunks.start : chunks.stop + 1]
        found, dstate = piece.adjoint(layout.taken("q", dy, steps), here, dstate)
        for name, x, grad in zip(Given._fields, found, grads, strict=False):
            if grad is not None:
                layout.put(name, x, grad, steps)
    return [x for x in grads if x is not None], dstate.view(dlast.shape).clone()
