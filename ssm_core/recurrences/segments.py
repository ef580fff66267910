"""Sequences packed one after another into one, as `cu_seqlens` tells: 0, the end of the first, of the second, ...

Without states a packed run is one run with a reset at every start. With states, in or out, the sequences are laid side
by side in a padded batch, for which cu_seqlens must be known numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    device,
    dtype_name,
    moved,
    namespace,
    real_floating,
    require_arrays,
    to_numpy,
)


def check_cu_seqlens(operation: str, cu_seqlens: Array, batch: int, length: int, **others: Any) -> None:
    """Raise unless cu_seqlens fits a batch of one sequence, and nothing else cuts it."""
    require_arrays(operation, cu_seqlens=cu_seqlens)
    for name, x in others.items():
        if x is not None:
            raise OptionError(f"{operation}: cu_seqlens already says where sequences begin and end: leave out {name}.")
    if "int" not in dtype_name(cu_seqlens):
        raise DTypeError(f"{operation}: cu_seqlens has dtype {dtype_name(cu_seqlens)}, but must be integer.")
    if cu_seqlens.ndim != 1 or cu_seqlens.shape[0] < 2 or batch != 1:
        raise ShapeError(
            f"{operation}: cu_seqlens must be (n + 1,) for n sequences packed into a batch of 1 "
            f"({describe(cu_seqlens=cu_seqlens)}, batch: {batch})."
        )
    if is_traced(cu_seqlens):
        return
    ends = to_numpy(cu_seqlens).astype(np.int64)  # differences of unsigned ones are not negative
    if ends[0] != 0 or ends[-1] != length or (np.diff(ends) < 0).any():
        raise DomainError(
            f"{operation}: cu_seqlens must begin with 0, never decrease, and end with the {length} steps given "
            f"(cu_seqlens: {ends.tolist() if ends.size <= 12 else [*ends[:4].tolist(), '...', *ends[-4:].tolist()]})."
        )


def resets_of(cu_seqlens: Array, length: int, xp: Namespace) -> Array:
    """Whether a sequence begins at a step: bool (1, L)."""
    k = xp.arange(length, device=device(cu_seqlens))
    starts = xp.astype(cu_seqlens[:-1], k.dtype)
    return xp.any(k[None, :] == starts[:, None], axis=0)[None, :]


def side_by_side(
    operation: str, run: Callable[..., tuple[Any, Any]], signals: tuple[Array | None, ...], cu_seqlens: Array, axis: int
) -> tuple[Array, Any]:
    """Run a function of (signals, lengths) -> (y, states) on the packed sequences as a batch of n; pack y again.

    axis is that of time in the signals and in y; axis 0 is the batch.
    """
    if is_traced(cu_seqlens):
        raise OptionError(
            f"{operation}: packed sequences with states need cu_seqlens as known numbers, not under a trace. Make it "
            "outside of the traced function, or leave states out."
        )
    ends = to_numpy(cu_seqlens).astype(np.int64)
    lengths = np.diff(ends)
    n, longest = len(lengths), max(1, int(lengths.max()))
    first = next(x for x in signals if x is not None)
    xp = namespace(operation, signal=first)
    inside = np.arange(longest) < lengths[:, None]
    gather = np.where(inside, ends[:-1, None] + np.arange(longest), 0)
    place = device(first)
    flat = xp.asarray(gather.reshape(-1), device=place)

    def laid(x: Array | None) -> Array | None:
        if x is None:
            return None
        time = axis % x.ndim
        if x.shape[time] == 0:
            return xp.zeros((n, *x.shape[1:time], longest, *x.shape[time + 1 :]), dtype=x.dtype, device=place)
        rows = xp.take(x, flat, axis=time)[0, ...]
        rows = xp.reshape(rows, (*rows.shape[: time - 1], n, longest, *rows.shape[time:]))
        return moved(rows, time - 1, 0, xp)

    y, states = run(tuple(laid(x) for x in signals), xp.asarray(lengths, device=place))
    time = axis % y.ndim
    rows = moved(y, 0, time - 1, xp)
    rows = xp.reshape(rows, (*rows.shape[: time - 1], n * longest, *rows.shape[time + 1 :]))
    back = xp.asarray(np.nonzero(inside.reshape(-1))[0], device=place)
    return xp.take(rows, back, axis=time - 1)[None, ...], states


def steps_within(lengths: Array, L: int, xp: Namespace) -> Array:
    """Whether step k lies within the length of its sequence: bool (..., L)."""
    k = xp.arange(L, device=device(lengths))
    return k < xp.astype(lengths, k.dtype)[..., None]


def check_masks(operation: str, given: object, reset: Any, lengths: Any, step_scale: Any) -> None:
    """Raise unless reset is bool, lengths integer and step_scale real."""
    if reset is not None and dtype_name(reset) != "bool":
        raise DTypeError(f"{operation}: reset has dtype {reset.dtype}, but must be bool: reset > 0 ({given}).")
    if lengths is not None and "int" not in dtype_name(lengths):
        raise DTypeError(f"{operation}: lengths has dtype {lengths.dtype}, but must be integer ({given}).")
    if step_scale is not None:
        real_floating(operation, step_scale=step_scale)


def check_lengths(operation: str, lengths: Any, length: int) -> None:
    """Raise for lengths that may be read and lie outside the sequence."""
    if isinstance(lengths, np.ndarray) and lengths.size and not 0 <= lengths.min() <= lengths.max() <= length:
        raise DomainError(
            f"{operation}: lengths must lie in [0, {length}], the steps given (smallest: {lengths.min()}, "
            f"largest: {lengths.max()})."
        )
