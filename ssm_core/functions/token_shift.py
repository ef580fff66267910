"""The input of the step before, with the last input as its state: the token shift of RWKV."""

from __future__ import annotations

from .._arrays.idioms import taken_along
from .._arrays.library import Array, Namespace
from ..recurrences.segments import Segments
from ..recurrences.summaries import Elementwise, without_steps


def token_shift(u: Array, before: Array, segments: Segments, xp: Namespace) -> tuple[Array, Array]:
    """u_{k-1} (batch, L, H) of u (batch, L, H), zero where a sequence begins, and the last input (batch, H).

    `before` (batch, H) is the input before the first.
    """
    if segments.shards is not None:
        alone = segments.alone()
        _, own = token_shift(u, xp.zeros_like(before), alone, xp)
        summary = Elementwise(without_steps(alone, own, xp), own)
        return segments.shards.across(summary, before, u, lambda before: token_shift(u, before, alone, xp)[0])
    if u.shape[1] == 0:
        return u, before
    whole = xp.concat([before[:, None, :], u], axis=1)
    previous = whole[:, :-1, :]
    if segments.reset is not None:
        previous = xp.where(segments.reset[..., None], xp.zeros_like(previous), previous)
    if segments.lengths is None:
        return previous, xp.concat([u[:, -1, :]], axis=0)  # a copy: it holds no other inputs
    last = xp.astype(segments.lengths, xp.arange(1).dtype)[:, None, None]
    return previous, taken_along(whole, xp.broadcast_to(last, (u.shape[0], 1, u.shape[2])), 1)[:, 0, :]
