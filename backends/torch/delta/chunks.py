"""Chunks of delta rules and their adjoint: no graph, and memory of a few chunks.

Some chunks at a time are a piece, of which all is one batched product but the walk of the states. With what readers meet
of the keys, A of R and P of q, the solution w of a unit lower triangular system, and values (w) or (w, v) of the keys,

    (I + A) w = z - R S,   y = q S + P values,   S' = e^total S + keys^T values

where R, q and keys are decayed from the start of the chunk and to its end. The adjoint of a chunk, given dy and dS':

    dvalues = P^T dy + keys dS',   (I + A)^T dz = dw,   dS = e^total dS' + q^T dy - R^T dz
    d(A, P) = (-dz, dy) values^T,   d(R, q) = (-dz, dy) S^T,   dkeys = values dS'^T
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..decay.chunks import in_chunks
from .decays import ChannelDecays, HeadDecays
from .rule import Given, Rule

SIZE = 2**18  # numbers of a signal of a piece: few enough for caches, and many enough for every call of a library
FIRST, LAST = ("g", "reset"), ("q",)  # signals of the first and of the last substep alone

Signals = Sequence[Tensor | None]


class Layout(NamedTuple):
    """How signals (batch, L, [R,] heads, .) become pieces of chunks of T substeps, (N, chunks, T, .) of N = batch H."""

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
        R = several[0] if several else 1
        return cls(batch, L, R, H, T, max(V, s.k.shape[-1]))

    @property
    def chunks(self) -> int:
        return -(-self.L * self.R // self.T)

    def pieces(self) -> list[tuple[slice, slice]]:
        """Those of steps and of chunks."""
        chunks = max(1, SIZE // (self.batch * self.H * self.T * self.width))
        ends = [*range(0, self.L, -(-chunks // self.R) * self.T), self.L]
        return [(slice(a, b), slice(a * self.R // self.T, -(-b * self.R // self.T))) for a, b in pairwise(ends)]

    def given(self, signals: Signals, steps: slice) -> Given:
        names = Given._fields
        return Given(*(None if x is None else self.taken(n, x, steps) for n, x in zip(names, signals, strict=True)))

    def taken(self, name: str, x: Tensor, steps: slice) -> Tensor:
        """A piece (N, chunks, T, .), of every head what its group has; zeros where a substep has none."""
        x = self._wide(name, x)[:, steps]
        if self.R > 1 and name in FIRST + LAST:
            filled = x.new_zeros((*x.shape[:2], self.R, *x.shape[2:]))
            filled[:, :, -1 if name in LAST else 0] = x
            x = filled
        x = x if x.ndim == 4 else x.flatten(1, 2)
        x = in_chunks(x, self.T)
        return x.repeat_interleave(self.H // x.shape[1], dim=1).flatten(0, 1)

    def put(self, name: str, x: Tensor, into: Tensor, steps: slice) -> None:
        """The way back: of a group the sum over its heads."""
        into = self._wide(name, into)[:, steps]
        x = x.unflatten(0, (self.batch, into.shape[-2], -1))
        x = x.sum(2) if x.shape[2] > 1 else x[:, :, 0]
        x = x.flatten(2, 3)[:, :, : into.shape[1] * self.R].transpose(1, 2)
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
    """Chunks of a piece without their states."""

    def __init__(self, given: Given, scale: float) -> None:
        self.rule = rule = Rule(given, scale)
        kind = HeadDecays if given.g.shape[-1] == 1 else ChannelDecays
        self.decays = kind(rule.readers, rule.keys, rule.g)
        scores = self.decays.scores
        self.own = rule.own()
        scores[..., 1, :, :].diagonal(dim1=2, dim2=3).copy_(self.own.movedim(-1, -2))
        self.A, self.P, self.all = scores[..., 0, :, 0], scores[..., 1, :, :].flatten(-2), scores
        self.readers, self.keys = rule.readers * self.decays.since_start, rule.keys * self.decays.to_end
        self.values = rule.values.new_empty((*rule.values.shape[:-1], rule.keys.shape[3], rule.values.shape[-1]))
        z = rule.values
        if self.general:
            self.values[..., 1, :] = rule.values
            z = scores[..., 0, :, 1] @ -rule.values
        V = z.shape[-1]
        found = torch.linalg.solve_triangular(
            self.A, torch.cat([z, self.readers[..., 0, :]], dim=-1), upper=False, unitriangular=True
        )
        self.U, self.W = found[..., :V], found[..., V:]

    @property
    def general(self) -> bool:
        return self.rule.keys.shape[3] > 1

    def walk(self, state: Tensor, before: Tensor) -> Tensor:
        """The state after all chunks; the ones before them are written down, and the values of the keys."""
        through, solved, w = self.decays.through, self.keys[..., 0, :], self.values[..., 0, :]
        entering = self.keys[..., 1, :].mT @ self.rule.values if self.general else None
        for c in range(w.shape[1]):
            before[:, c] = state
            w[:, c] = torch.baddbmm(self.U[:, c], self.W[:, c], state, alpha=-1)
            kept = through[:, c] * state
            kept = kept if entering is None else kept.add_(entering[:, c])
            state = kept.baddbmm_(solved[:, c].mT, w[:, c])
        return state

    def outputs(self, before: Tensor) -> Tensor:
        return torch.matmul(self.readers[..., 1, :], before).add_(self.P @ self.values.flatten(2, 3))

    def adjoint(self, dy: Tensor, before: Tensor, dstate: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Gradients of the signals, and of the state before the piece."""
        w, solved, through = self.values[..., 0, :], self.keys[..., 0, :], self.decays.through
        torch.sub(self.U, self.W @ before, out=w)
        dvalues = (self.P.mT @ dy).view_as(self.values)
        driven, dafter, dw = self.readers[..., 1, :].mT @ dy, torch.empty_like(before), torch.empty_like(dy)
        for c in reversed(range(dy.shape[1])):
            dafter[:, c] = dstate
            dw[:, c] = torch.baddbmm(dvalues[:, c, :, 0], solved[:, c], dstate)
            dstate = torch.addcmul(driven[:, c], through[:, c], dstate).baddbmm_(self.W[:, c].mT, dw[:, c], alpha=-1)
        dz = torch.linalg.solve_triangular(self.A.mT, dw, upper=True, unitriangular=True)
        slopes = torch.stack([-dz, dy], dim=-2)
        rows, values = slopes.flatten(2, 3), self.values.flatten(2, 3)
        if self.general:
            dz = dvalues[..., 1, :] + self.keys[..., 1, :] @ dafter - self.all[..., 0, :, 1].mT @ dz
        dscores = (rows @ values.mT).view_as(self.all)
        down = dscores[..., 1, :, :].diagonal(dim1=2, dim2=3).mT.contiguous()
        dreaders, dkeys, dg = self.decays.adjoint(
            dscores,
            (rows @ before.mT).view_as(self.readers),
            (values @ dafter.mT).view_as(self.keys),
            (through * before * dafter).sum(-1),
        )
        return self.rule.adjoint(dreaders, dkeys, dz, dg, down), dstate


def forward(signals: Signals, first: Tensor, scale: float, T: int) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states before all chunks (batch H, chunks, K, V); resets are the last of the signals."""
    layout, q, v = Layout.of(signals, T), signals[0], signals[2]
    y = v.new_empty((*q.shape[:2], layout.H, v.shape[-1]))
    state = first.flatten(0, 1)
    states = first.new_empty((len(state), layout.chunks, *first.shape[2:]))
    for steps, chunks in layout.pieces():
        piece = Piece(layout.given(signals, steps), scale)
        state = piece.walk(state, states[:, chunks])
        layout.put("q", piece.outputs(states[:, chunks]), y, steps)
    return y, state.view(first.shape).clone(), states


def backward(
    signals: Signals, states: Tensor, scale: float, T: int, dy: Tensor, dlast: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The gradients of the signals that are given, without resets, and of the first state."""
    layout = Layout.of(signals, T)
    grads = [None if x is None else x.new_empty(x.shape) for x in signals[:-1]]
    dstate = dlast.flatten(0, 1)
    for steps, chunks in reversed(layout.pieces()):
        piece = Piece(layout.given(signals, steps), scale)
        found, dstate = piece.adjoint(layout.taken("q", dy, steps), states[:, chunks], dstate)
        for name, x, grad in zip(Given._fields, found, grads, strict=False):
            if grad is not None:
                layout.put(name, x, grad, steps)
    return [x for x in grads if x is not None], dstate.view(dlast.shape).clone()
