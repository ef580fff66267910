"""What passes between the levels of a pooled model, in runs and in steps.

down  s steps of H features, side by side, through a linear map: one step of the level below
up    a step of the level below through a linear map: s steps of H features, one pooled step late

So an output is made of pooled steps that had ended before it. A level below goes on once in s steps, and rests while
`buffer` (B, s, H) fills with inputs and `stored` (B, s, H), the outputs for these s steps, is handed out. `count` (B,)
says where in the longest pooled step every sequence is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._arrays.dispatch import is_traced
from .._arrays.idioms import clip, taken_along
from .._arrays.library import Array, Namespace, device, is_array, namespace, owned, to_numpy
from .parts import Parts
from .pointwise import Function

Due = tuple[bool | None, ...]  # of every pool, whether it fills in a step: for all sequences, for none, or unknown


def first_pools(sizes: Sequence[int], widths: Sequence[int], like: Array, batch: int) -> tuple[Any, ...]:
    """(buffer, stored) of every pool before the first step, and the count."""
    xp = namespace("pool", like=like)
    options = {"dtype": like.dtype, "device": device(like)}
    pools = [tuple(xp.zeros((batch, s, H), **options) for _ in range(2)) for s, H in zip(sizes, widths, strict=True)]
    return (*pools, xp.zeros((batch,), dtype=xp.arange(1).dtype, device=device(like)))


def due(sizes: Sequence[int], count: Array) -> Due:
    """Which pools the next step fills."""
    if is_traced(count):
        return (None,) * len(sizes)
    after = to_numpy(count) + 1
    full = [after % math.prod(sizes[: i + 1]) == 0 for i in range(len(sizes))]
    return tuple(True if rows.all() else None if rows.any() else False for rows in full)


def filled_up(x: Array, size: int) -> Array:
    """x (B, L, H) in whole pools, two at least, of which the last steps stand for themselves: L is not known.

    Of a length that is a product all levels have one, which a program for any length has to know.
    """
    xp, L = namespace("pool", x=x), x.shape[1]
    n = (L + 2 * size - 1) // size * size
    return xp.take(x, clip(xp.arange(n, device=device(x)), 0, L - 1), axis=1)


class Runs:
    """Blocks and pools over whole sequences."""

    def __init__(
        self, parts: Parts, sizes: Sequence[int], before: Any, keep: bool, *, lengths: Any = None, **options: Any
    ) -> None:
        n = len(parts.blocks)
        self.states: list[Any] = [None] * n if before is None else list(before[:n])
        pools = (None,) * (len(sizes) + 1) if before is None or not sizes else before[n]
        self.pools, self._counts, self._ends = list(pools[:-1]), [pools[-1]], [lengths]  # of the levels down to here
        self._parts, self._sizes, self._keep, self._options = parts, sizes, keep, options

    def block(self, i: int, x: Array, between: Function | None = None) -> Array:
        """x through block i."""
        lengths = self._ends[-1]
        given = self._options | ({} if lengths is None else {"lengths": lengths})
        given |= {} if between is None else {"between": between}
        x = self._parts.blocks[i](x, state=self.states[i], return_state=self._keep, **given)
        if self._keep:
            x, self.states[i] = x
        return x

    def across(self, i: int, x: Array, inner: Function) -> Array:
        """x (B, L, H) down through pool i, through what is below, and up again."""
        s, xp, (B, L, H) = self._sizes[i], namespace("pool", x=x), x.shape
        zeros = xp.zeros((B, s, H), dtype=x.dtype, device=device(x))
        buffer, stored = (zeros, zeros) if self.pools[i] is None else self.pools[i]
        lengths, count = self._ends[-1], self._counts[-1]
        n, phase, ends = L // s, None, L if lengths is None else lengths
        if count is not None:
            n, phase = (L + s - 1) // s, count % s
            x, ends = _behind(buffer, x, phase, xp), phase + ends
        self._counts.append(None if count is None else count // s)
        self._ends.append(ends // s if is_array(ends) else None)
        y = inner(self._parts.maps[f"down_{i}"](xp.reshape(x[:, : n * s, :], (B, n, s * H))))
        y = xp.reshape(self._parts.maps[f"up_{i}"](y), (B, n * s, H))
        y = xp.concat([xp.astype(stored, y.dtype, copy=False), y], axis=1)
        if self._keep:
            rest = _rows(xp.concat([x, zeros], axis=1), ends // s * s, s, xp)
            filled = xp.arange(s, device=device(x)) < ((ends % s)[:, None] if is_array(ends) else ends % s)
            rest = xp.where(filled[..., None], rest, xp.zeros_like(rest))
            self.pools[i] = owned((rest, _rows(y, ends // s * s, s, xp)))
        self._ends.pop()
        self._counts.pop()
        return y[:, :L, :] if phase is None else _rows(y, phase, L, xp)

    def after(self, batch: int, length: int, like: Array) -> tuple[Any, ...]:
        """The states behind the run."""
        if not self._keep:
            return ()
        if not self._sizes:
            return tuple(self.states)
        xp = namespace("pool", like=like)
        count = self._counts[0]
        if count is None:
            count = xp.zeros((batch,), dtype=xp.arange(1).dtype, device=device(like))
        steps = length if self._ends[0] is None else self._ends[0]
        return (*self.states, (*self.pools, (count + steps) % math.prod(self._sizes)))


class Steps:
    """Blocks and pools in one step: what is below a pool that does not fill is not computed."""

    def __init__(self, parts: Parts, sizes: Sequence[int], before: Any, moment: Any) -> None:
        n = len(parts.blocks)
        self.states, self._parts, self._sizes = list(before[:n]), parts, sizes
        if sizes:
            *self.pools, self._count = before[n]
            self._due = due(sizes, self._count) if moment is None else moment

    def block(self, i: int, x: Array, between: Function | None = None) -> Array:
        """x through block i."""
        given = {} if between is None else {"between": between}
        x, self.states[i] = self._parts.blocks[i](x, self.states[i], **given)
        return x

    def across(self, i: int, x: Array, inner: Function) -> Array:
        """x (B, H) down through pool i, through what is below, and up again."""
        s, xp, (B, H) = self._sizes[i], namespace("pool", x=x), x.shape
        buffer, stored = self.pools[i]
        phase = self._count // math.prod(self._sizes[:i]) % s
        here = xp.arange(s, device=device(x)) == phase[:, None]
        buffer = xp.where(here[..., None], x[:, None, :], buffer)
        out = _rows(stored, phase, 1, xp)[:, 0, :]
        if self._due[i] is False:
            self.pools[i] = (buffer, stored)
            return out
        rested = list(self.states), list(self.pools)
        y = self._parts.maps[f"up_{i}"](inner(self._parts.maps[f"down_{i}"](xp.reshape(buffer, (B, s * H)))))
        self.pools[i] = (xp.zeros_like(buffer), xp.reshape(y, (B, s, H)))
        if self._due[i] is None:  # some sequences go on below, others rest
            rested[1][i] = (buffer, stored)
            full = phase == s - 1
            self.states, self.pools = (
                [_chosen(full, new, old, xp) for new, old in zip(*both, strict=True)]
                for both in ((self.states, rested[0]), (self.pools, rested[1]))
            )
        return out

    def after(self) -> tuple[Any, ...]:
        """The states behind the step."""
        if not self._sizes:
            return tuple(self.states)
        return (*self.states, (*self.pools, (self._count + 1) % math.prod(self._sizes)))


def _behind(buffer: Array, x: Array, phase: Array, xp: Namespace) -> Array:
    """Of every sequence the first `phase` (B,) rows of its buffer, then x (B, L, H): (B, s + L, H)."""
    s, L = buffer.shape[1], x.shape[1]
    k = xp.arange(s + L, device=device(x))
    index = xp.where(k < phase[:, None], k, clip(k + s - phase[:, None], 0, s + L - 1))
    return _at(xp.concat([xp.astype(buffer, x.dtype, copy=False), x], axis=1), index, xp)


def _rows(x: Array, first: Any, n: int, xp: Namespace) -> Array:
    """x (B, L, H) from `first`, a number or (B,), on: (B, n, H)."""
    if not is_array(first):
        return x[:, first : first + n, :]
    return _at(x, first[:, None] + xp.arange(n, device=device(x)), xp)


def _at(x: Array, index: Array, xp: Namespace) -> Array:
    """x (B, L, H) at the steps index (B, n), clipped to those there are."""
    index = clip(index, 0, x.shape[1] - 1)[..., None]
    return taken_along(x, xp.broadcast_to(index, (*index.shape[:2], x.shape[2])), 1)


def _chosen(rows: Array, new: Any, old: Any, xp: Namespace) -> Any:
    """Of nested tuples the new ones in these rows (B,), else the old ones."""
    if new is old:
        return old
    if isinstance(new, tuple | list):
        return tuple(_chosen(rows, n, o, xp) for n, o in zip(new, old, strict=True))
    return xp.where(xp.reshape(rows, (-1, *(1,) * (new.ndim - 1))), new, old)
