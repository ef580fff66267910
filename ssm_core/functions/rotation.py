"""Positions in sequences, and features that turn with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays.library import Array, Namespace, device
from ..recurrences.linear import linear_scan
from ..recurrences.segments import Segments
from ..recurrences.shards import Shards
from ..recurrences.summaries import Elementwise, through_segments

TURNS = 256  # positions are split by it, so that angles of long sequences keep their digits


def positions(first: Array, u: Array, segments: Segments, xp: Namespace) -> tuple[Array, Array]:
    """The position (batch, L) of every step of u (batch, L, ...), from 0 where its sequence begins, and the next one.

    `first` (batch,) is the position of the first step.
    """
    if segments.shards is not None:
        first, last = first_position(first, u, segments, segments.shards, xp)
        return positions(first, u, segments.alone(), xp)[0], last
    batch, L = u.shape[:2]
    if segments.reset is None:
        k = xp.astype(xp.arange(L, device=device(u)), u.dtype)
        return first[:, None] + k, first + (L if segments.lengths is None else xp.astype(segments.lengths, u.dtype))
    counts = xp.ones((batch, L), dtype=u.dtype, device=device(u))
    kept = xp.astype(~segments.reset, u.dtype)
    counts = linear_scan(kept, segments.masked(counts, 1, xp), axis=1, initial=first)
    before = xp.maximum(counts, xp.ones_like(counts)) - 1  # in a sequence of no steps all lie beyond its length
    return before, counts[:, -1] if L else first


def first_position(first: Array, u: Array, segments: Segments, shards: Shards, xp: Namespace) -> tuple[Array, Array]:
    """The position of the first step of this process, and the one behind those of all."""
    alone = segments.alone()
    _, own = positions(xp.zeros_like(first), u, alone, xp)
    found: tuple[Array, Array] = shards.enter(
        Elementwise(through_segments(xp.ones_like(first), alone, 0, xp), own), first
    )
    return found


def turning(speeds: np.ndarray, x: Array, xp: Namespace) -> tuple[Array, Array]:
    """The angles (pairs,) of one position and of TURNS of them, beside an array x."""
    like: dict[str, Any] = {"dtype": x.dtype, "device": device(x)}
    return xp.asarray(speeds, **like), xp.asarray(np.mod(TURNS * speeds, 2 * math.pi), **like)


def rotation(position: Array, speeds: np.ndarray | tuple[Array, Array], xp: Namespace) -> tuple[Array, Array]:
    """cos and sin (..., 1, pairs) of position (...) times speeds (pairs,), or their `turning`, for all heads."""
    w, many = speeds if isinstance(speeds, tuple) else turning(speeds, position, xp)
    turns = xp.floor(position / TURNS)
    angles = turns[..., None] * many + (position - TURNS * turns)[..., None] * w
    return xp.cos(angles)[..., None, :], xp.sin(angles)[..., None, :]


def turned_halves(x: Array, cos: Array, sin: Array, xp: Namespace) -> Array:
    """Features j and j + pairs of x (..., heads, 2 pairs) turned together."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return xp.concat([a * cos - b * sin, a * sin + b * cos], axis=-1)
