"""What is not finite spoils its own sequence from there on, and no other: neither by values nor by gradients.

A product of matrices adds up zero times every other step, and zero times NaN is NaN. So where sequences begin inside of
a chunk, what is not finite is taken out first, and what it would have reached is marked behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._arrays.library import Array, Namespace
from ..recurrences.linear import linear_scan

Mark = Callable[[Array], Array]


def taken_out(
    entering: dict[str, Array],
    own: dict[str, Array],
    state: tuple[Array, ...],
    reset: Array,
    heads: int,
    xp: Namespace,
) -> tuple[dict[str, Array], tuple[Array, ...], Mark, Mark]:
    """The signals and the state without what is not finite, and marks of outputs and of last states.

    Signals (batch, L, G, ...), G dividing the heads, those of `entering` going on to the state, those of `own` to their
    own step alone; parts of a state (batch, heads, ...); reset (batch, L).
    """
    bad = _any([_of_heads(x, 2, heads, xp) for x in entering.values()])  # (batch, L, heads)
    alone = _any([_of_heads(x, 2, heads, xp) for x in own.values()])
    from_state = _any([_of_heads(x, 1, heads, xp) for x in state])[:, None, :] & ~reset[:, :1, None]
    first = bad[:, :1, :] | from_state
    bad = xp.concat([first, bad[:, 1:, :]], axis=1)
    like = state[0].dtype
    spoilt = linear_scan(xp.astype(~reset, like)[..., None], xp.astype(bad, like), axis=1) > 0

    def marked(mask: Array) -> Mark:
        def mark(x: Array) -> Array:
            shape = (*mask.shape, *(1,) * (x.ndim - mask.ndim))
            return xp.where(xp.reshape(mask, shape), xp.full_like(x, math.nan), x)

        return mark

    clean = {name: _clean(x, xp) for name, x in (entering | own).items()}
    return clean, tuple(_clean(x, xp) for x in state), marked(spoilt | alone), marked(spoilt[:, -1, :])


def _clean(x: Array, xp: Namespace) -> Array:
    return xp.where(xp.isfinite(x), x, xp.zeros_like(x))


def _any(masks: list[Array]) -> Array:
    found: Any = masks[0]
    for mask in masks[1:]:
        found = found | mask
    return found


def _of_heads(x: Array, lead: int, heads: int, xp: Namespace) -> Array:
    """Whether a head of x has anything that is not finite: bool (..., heads)."""
    bad = ~xp.isfinite(x)
    bad = xp.any(bad, axis=tuple(range(lead + 1, x.ndim))) if x.ndim > lead + 1 else bad
    return bad if bad.shape[-1] == heads else xp.repeat(bad, heads // bad.shape[-1], axis=-1)
