"""The states of Mamba-3, which turn, and what steps do to them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._arrays.idioms import matmul, moved
from .._arrays.library import Array, Namespace, namespace
from ..recurrences.segments import Segments
from ..recurrences.summaries import forgotten, through_segments, without_steps

Mamba3State = tuple[Array, Array, Array, Array]


class Turning(NamedTuple):
    """The summary of steps of `mamba3_scan`: see `mamba3_summary`. `kept` is 0 where a reset forgets the angles."""

    through: Array
    late: Array
    kept: Array
    empty: Array
    state: Mamba3State

    def after(self, state: Mamba3State) -> Mamba3State:
        xp = namespace("after", S=state[1])
        angle, S, K, x = forgotten(self.kept[:, 0, 0, 0] == 0, state, xp)
        own_angle, own, own_K, own_x = self.state
        kept, ranked = self.kept[..., 0], K.ndim == 4
        before = matmul(xp.matrix_transpose(x), K, xp) if ranked else x[..., :, None] * K[..., None, :]
        angle = kept * angle
        S = self.through * (S + self.late * before) + turned(own, angle[..., None, :], xp)
        empty = self.empty if ranked else self.empty[..., 0]
        K = turned(own_K, angle[..., None, :] if ranked else angle, xp) + empty * K
        total = angle + own_angle
        return total - 2 * math.pi * xp.floor(total / (2 * math.pi)), S, K, own_x + empty * x

    def then(self, later: Turning) -> Turning:
        P, late = later.through * self.through, self.late + self.empty * later.late
        return Turning(P, late, later.kept * self.kept, later.empty * self.empty, later.after(self.state))


def turning(state: Mamba3State, log_gates: Array, late: Array, segments: Segments, xp: Namespace) -> Turning:
    """The summary of steps that lead from zero to the state; late (batch, L, H) are the weights of inputs before."""
    S = state[1]
    P = xp.exp(xp.sum(segments.masked(log_gates, 1, xp), axis=1))[..., None, None]
    late = segments.masked(late, 1, xp)
    late = late[:, 0, :] if segments.length else xp.zeros_like(S[..., 0, 0])
    kept = through_segments(xp.ones_like(S[..., :1, :1]), segments, 3, xp)
    empty = without_steps(segments, S, xp)
    return Turning(through_segments(P, segments, 3, xp), late[..., None, None], kept, empty, state)


class RankFirst(NamedTuple):
    """A summary for states that hold their K and inputs as (batch, R, H, ...)."""

    summary: Turning

    @property
    def state(self) -> Mamba3State:
        found: Mamba3State = ranks_before_heads(self.summary.state, True, namespace("state", S=self.summary.through))
        return found

    def after(self, state: Mamba3State) -> Mamba3State:
        xp = namespace("after", S=state[1])
        found: Mamba3State = ranks_before_heads(self.summary.after(heads_before_ranks(state, True, xp)), True, xp)
        return found


def turned(rows: Array, theta: Array, xp: Namespace) -> Array:
    """rows (..., N) with the pairs of their first 2 M features turned by theta (..., M)."""
    M = theta.shape[-1]
    if M == 0:
        return rows
    cos, sin = xp.cos(theta), xp.sin(theta)
    first, second = rows[..., 0 : 2 * M : 2], rows[..., 1 : 2 * M : 2]
    pairs = xp.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
    found = xp.reshape(pairs, (*rows.shape[:-1], 2 * M))
    return found if rows.shape[-1] == 2 * M else xp.concat([found, rows[..., 2 * M :]], axis=-1)


def ranks_before_heads(state: tuple[Array, ...], several: bool, xp: Namespace) -> Any:
    """The state with the rank before the heads."""
    angle, S, K, x = state
    if several:
        return angle, S, moved(K, 2, 1, xp), moved(x, 2, 1, xp)
    return angle, S, K[:, None, ...], x[:, None, ...]


def heads_before_ranks(state: Mamba3State, several: bool, xp: Namespace) -> Mamba3State:
    """The state as it is given out."""
    angle, S, K, x = state
    if several:
        return angle, S, moved(K, 1, 2, xp), moved(x, 1, 2, xp)
    return angle, S, K[:, 0, ...], x[:, 0, ...]
