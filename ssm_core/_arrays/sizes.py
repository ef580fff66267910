"""Sizes that a program is compiled or exported for without knowing them: lengths that change from call to call.

Loops over such a length, and comparisons with it, would fix it. What runs over one is cut into chunks of a fixed number
of steps instead, of which there is an unknown number.
"""

from __future__ import annotations

from typing import Any

from .library import Array, Namespace, device

STEPS = 64  # of a chunk of an unknown length
BITS = 31  # of an unknown length


def chunks_of(length: Any, T: int = STEPS) -> Any:
    """Chunks of T steps that hold an unknown length, and two more: a tracer takes sizes of 1 apart, here and of those
    between chunks."""
    return (length - 1) // T + 3


# By indices, whose bounds a tracer does not compare: slices and new shapes would ask how the length divides.


def chunked(x: Array, axis: int, xp: Namespace, T: int = STEPS, *, at_end: bool = False) -> Array:
    """An axis of unknown length as two, (A, T), with zeros after its end; or before its beginning, with `at_end`."""
    axis, length = axis % x.ndim, x.shape[axis]
    A, place = chunks_of(length, T), device(x)
    k = T * xp.arange(A, device=place)[:, None] + xp.arange(T, device=place)
    k = k - (A * T - length) if at_end else k
    within = (k >= 0) & (k < length)
    x = x[(*(slice(None),) * axis, xp.where(within, k, xp.zeros_like(k)))]
    within = within[(..., *(None,) * (x.ndim - axis - 2))]
    return within & x if x.dtype == xp.bool else xp.where(within, x, xp.zeros_like(x))  # runtimes choose numbers alone


def unchunked(x: Array, length: Any, axis: int, xp: Namespace) -> Array:
    """The way back from two axes, of which `axis` is the first: as many steps as there were."""
    axis, k = axis % x.ndim, xp.arange(length, device=device(x))
    T = x.shape[axis + 1]
    return x[(*(slice(None),) * axis, k // T, k % T)]
