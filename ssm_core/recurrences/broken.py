"""What is not finite, kept where it belongs.

0 times NaN is NaN: the zero of a mask, of the gate at a reset or of a gradient lets it through, to steps that it has
nothing to do with. So what runs is finite, with zero in place of the rest, and what that breaks is NaN afterwards: the
steps from it on to the end of its sequence, and the state there.

    b_k = (not reset_k and b_{k-1}) or step k is not finite,   y_k = NaN where b_k
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays.dispatch import dispatched, is_traced
from .._arrays.idioms import moved
from .._arrays.library import Array, Namespace, device, is_complex, is_floating, to_numpy
from .linear import linear_scan
from .segments import Segments, Signals, starts_of

Axes = tuple[int, ...]


class Broken(NamedTuple):
    """What is NaN after a run: bool of steps (kept axes..., L) and last states (kept axes...), None where nothing."""

    steps: Array | None = None
    last: Array | None = None
    kept: Axes = (0,)

    def marked(self, y: Array, axis: int, xp: Namespace) -> Array:
        """y with NaN in the broken steps, time on `axis`. It is added, so that a gradient of zero stays one."""
        if self.steps is None:
            return y
        axis %= y.ndim
        axes = (*self.kept, axis)
        steps = xp.permute_dims(self.steps, tuple(sorted(range(len(axes)), key=axes.__getitem__)))
        shape = [1] * y.ndim
        for i, n in zip(sorted(axes), steps.shape, strict=True):
            shape[i] = n
        return y + nan_where(xp.reshape(steps, tuple(shape)), y, xp)

    def marked_state(self, state: Any, xp: Namespace) -> Any:
        """The state, in nested tuples as it is, with NaN in broken rows."""
        if self.last is None or state is None:
            return state
        if isinstance(state, tuple | list):
            return tuple(self.marked_state(x, xp) for x in state)
        if not is_floating(state):
            return state
        rows = xp.reshape(self.last, (*self.last.shape, *(1,) * (state.ndim - self.last.ndim)))
        return state + nan_where(rows, state, xp)


def kept_apart(
    segments: Segments,
    signals: Signals,
    initial: Any,
    xp: Namespace,
    *,
    axis: int,
    kept: Axes = (0,),
    shared: tuple[str, ...] = (),
    passing: tuple[str, ...] = (),
    scales: tuple[str, ...] = (),
    both_ways: bool = False,
) -> tuple[Signals, Any, Broken]:
    """Signals and first state with zero for what is not finite, and what that breaks.

    Time is on `axis` of all signals; along the `kept` axes, the first ones of states, systems do not touch each other.
    Signals that are `shared` have none but the first of these. Those `passing` break their own step alone; `scales`
    get ones instead of zeros. `both_ways` is for runs that see the future. Without resets and packing only what can be
    read at no cost is looked at: there a system touches its past in an FFT and within chunks alone. Over several
    processes nothing is: what is not finite spreads as its arithmetic spreads it.
    """
    if segments.shards is not None:
        return signals, initial, Broken()
    arrays = {name: x for name, x in signals.items() if x is not None and is_floating(x)}
    leaves = [x for x in arrays_in(initial) if is_floating(x)]
    if leaves and segments.cu_seqlens is not None and is_traced(segments.cu_seqlens):  # refused where it runs
        return signals, initial, Broken()
    known = [_all_finite(x) for x in (*arrays.values(), *leaves)]
    if all(known) or not (segments.cut or False in known):
        return signals, initial, Broken()
    flags: dict[bool, list[Array]] = {True: [], False: []}
    for name, x in arrays.items():
        flags[name in passing].append(_broken_steps(x, axis, kept[:1] if name in shared else kept, len(kept), xp))
    rows = [~xp.all(xp.isfinite(x), axis=tuple(range(len(kept), x.ndim))) for x in leaves]
    lasting, own, before = _any(flags[False]), _any(flags[True]), _any(rows)
    broken = _spread(segments, lasting, before, xp, both_ways)._replace(kept=kept)
    if own is not None:
        broken = broken._replace(steps=own if broken.steps is None else broken.steps | own)
    clean = dict(signals) | {name: finite_part(x, xp, 1.0 if name in scales else 0.0) for name, x in arrays.items()}
    return clean, finite_part(initial, xp), broken


def known_finite(*arrays: Array | None) -> bool:
    """Whether all arrays are known to be finite."""
    return all(_all_finite(x) for x in arrays if x is not None)


@dispatched
def _all_finite(x: Array) -> bool | None:
    """Whether all of x is finite, None where to look would stall a device or end a trace. Too large a sum is not."""
    return None


def _spread(segments: Segments, found: Array | None, before: Array | None, xp: Namespace, both_ways: bool) -> Broken:
    """From steps (..., L) and first states (...) that are not finite to all that they break, sequence by sequence."""
    L, packed = segments.length, segments.cu_seqlens
    if found is None and before is None:
        return Broken()
    if L == 0:
        return Broken(None, before)
    if packed is not None and before is not None:  # every step of such a sequence
        sequence = np.searchsorted(to_numpy(packed)[1:], np.arange(L), side="right")
        entered = xp.take(before, xp.asarray(sequence, device=device(before)), axis=0)
        found = _any([m for m in (found, moved(entered, 0, -1, xp)[None, ...]) if m is not None])
    if found is None:
        found = xp.zeros_like(xp.broadcast_to(before[..., None], (*before.shape, L)))  # type: ignore[index, union-attr]
    reset = segments.reset if packed is None else starts_of(packed, L, xp)
    if reset is not None:
        reset = xp.reshape(reset, (*reset.shape[:-1], *(1,) * (found.ndim - reset.ndim), L))
    after = _run(found, reset, None if packed is not None else before, xp)
    last = after[..., -1]
    if both_ways:
        later = None if reset is None else xp.concat([reset[..., 1:], xp.zeros_like(reset[..., :1])], axis=-1)
        after = _run(after, later, None, xp, reverse=True)
    if packed is not None:
        last = None if is_traced(packed) else _at_ends(after, packed, before, xp)
    return Broken(after, last)


def _run(found: Array, reset: Array | None, before: Array | None, xp: Namespace, reverse: bool = False) -> Array:
    """Whether the steps so far (..., L), since a reset, hold one that was found."""
    gate = xp.ones_like(found) if reset is None else ~reset
    if before is not None:
        before = xp.broadcast_to(before, xp.broadcast_arrays(found[..., 0], gate[..., 0], before)[0].shape)
        found = xp.broadcast_to(found, (*before.shape, found.shape[-1]))
        before = xp.astype(before, xp.float32)
    gate, found = (xp.astype(m, xp.float32) for m in (gate, found))
    return linear_scan(gate, found, axis=-1, initial=before, reverse=reverse) > 0


def _at_ends(steps: Array, packed: Array, before: Array | None, xp: Namespace) -> Array:
    """Of steps (1, ..., L) those at the ends of sequences (n, ...); of one of no steps what was before."""
    ends = to_numpy(packed).astype(np.int64)
    index = xp.asarray(np.maximum(ends[1:] - 1, 0), device=device(steps))
    last = moved(xp.take(steps, index, axis=-1)[0, ...], -1, 0, xp)
    some = xp.asarray(np.diff(ends) > 0, device=device(steps))
    some = xp.reshape(some, (some.shape[0], *(1,) * (last.ndim - 1)))
    return last & some if before is None else xp.where(some, last, before)


def _broken_steps(x: Array, axis: int, kept: Axes, n: int, xp: Namespace) -> Array:
    """Whether x is not finite in a step: bool (kept axes..., L) of n kept axes, size 1 where x has fewer."""
    axis %= x.ndim
    finite = xp.isfinite(x)
    others = tuple(i for i in range(x.ndim) if i != axis and i not in kept)
    finite = xp.all(finite, axis=others, keepdims=True) if others else finite
    finite = xp.permute_dims(finite, (*kept, *others, axis))
    return ~xp.reshape(finite, (*finite.shape[: len(kept)], *(1,) * (n - len(kept)), finite.shape[-1]))


def _any(flags: list[Array]) -> Array | None:
    found = None
    for m in flags:
        found = m if found is None else found | m
    return found


def arrays_in(state: Any) -> list[Array]:
    """The arrays of nested tuples."""
    if isinstance(state, tuple | list):
        return [x for part in state for x in arrays_in(part)]
    return [] if state is None else [state]


def finite_part(x: Any, xp: Namespace, fill: float = 0.0) -> Any:
    """x with a number for what is not finite, in nested tuples as they are."""
    if isinstance(x, tuple | list):
        return tuple(finite_part(part, xp) for part in x)
    return x if x is None or not is_floating(x) else xp.where(xp.isfinite(x), x, xp.full_like(x, fill))


def nan_where(flags: Array, like: Array, xp: Namespace) -> Array:
    """NaN where a flag is set and else 0, in the dtype of an array; complex NaN in both parts."""
    zeros = xp.zeros(flags.shape, dtype=like.dtype, device=device(like))
    nan = xp.full_like(zeros, np.nan)
    return xp.where(flags, nan * (1 + 1j) if is_complex(like) else nan, zeros)
