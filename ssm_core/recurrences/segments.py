"""Where the sequences of a batch begin and end: resets, lengths and packing in one record.

A public function or a layer takes `reset`, `lengths` and `cu_seqlens` by these names and makes the record of them,
which is checked once. From there on the record masks signals, cuts itself into pieces, and runs packed sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from .._arrays.dispatch import is_open, is_traced
from .._arrays.errors import DomainError, DTypeError, OptionError, ShapeError, describe
from .._arrays.idioms import clip, moved, taken_along
from .._arrays.library import Array, Namespace, device, dtype_name, namespace, owned, require_arrays, to_numpy
from .._arrays.shapes import broadcast
from .shards import Shards, depending

Signals = dict[str, Any]
PADDING = 64  # steps that a batch of packed sequences may be padded by, besides a quarter of its own


@dataclass(frozen=True, eq=False)
class Segments:
    """The sequences in a batch of `length` steps.

    reset       bool (..., L): a sequence begins at that step, from a state of zero; never beyond the lengths
    lengths     integer (...) in [0, L]: the steps that count; what lies beyond is as if it were not there
    cu_seqlens  integer (n + 1,): one row holds n sequences one after another, 0, the end of the first, of the second
    shards      the processes that hold other steps of the same sequences; None where there are none

    Of a shard, lengths and cu_seqlens are those of its own steps, and reset has the starts of packed sequences too.
    """

    length: int
    reset: Array | None = None
    lengths: Array | None = None
    cu_seqlens: Array | None = None
    shards: Shards | None = None

    @property
    def cut(self) -> bool:
        """Whether a row holds several sequences, which do not touch each other."""
        return self.reset is not None or self.cu_seqlens is not None

    def count(self, batch: int) -> int:
        """How many sequences, each with a state, there are in a batch of so many rows."""
        return batch if self.cu_seqlens is None else int(self.cu_seqlens.shape[0]) - 1

    def valid(self, xp: Namespace) -> Array | None:
        """Whether a step counts: bool (..., L), None where all do."""
        return None if self.lengths is None else steps_within(self.lengths, self.length, xp)

    def masked(self, x: Array, axis: int, xp: Namespace, fill: float = 0.0) -> Array:
        """x, with the batch axes of the lengths first and time on `axis`, with zeros (or `fill`) beyond the lengths."""
        valid = self.valid(xp)
        if valid is None or self.lengths is None:
            return x
        shape = [*self.lengths.shape, *(1,) * (x.ndim - self.lengths.ndim)]
        shape[axis] = self.length
        return xp.where(xp.reshape(valid, tuple(shape)), x, xp.full_like(x, fill) if fill else xp.zeros_like(x))

    def all_masked(self, signals: Signals, axis: int, xp: Namespace) -> Signals:
        """Signals by name, each `masked`."""
        return {name: x if x is None else self.masked(x, axis, xp) for name, x in signals.items()}

    def part(self, start: int, stop: int, xp: Namespace) -> Segments:
        """Of the steps from start to stop."""
        reset = None if self.reset is None else self.reset[..., start:stop]
        left = None if self.lengths is None else clip(self.lengths - start, 0, stop - start)
        return Segments(stop - start, reset, left)

    def for_rows(self, axes: int = 1) -> Segments:
        """The same for several rows a sequence, of channels or states: axes of size 1 after those of the batch."""
        rows = (None,) * axes
        reset = None if self.reset is None else self.reset[(..., *rows, slice(None))]
        lengths = None if self.lengths is None else self.lengths[(..., *rows)]
        return Segments(self.length, reset, lengths, shards=self.shards)

    def reversed(self) -> Segments:
        """Of signals that are `flipped`, without resets."""
        return Segments(self.length, None, self.lengths, shards=None if self.shards is None else self.shards.reversed())

    def flipped(self, x: Array, xp: Namespace) -> Array:
        """The steps of x (batch..., rows..., L) that count, the last of them first."""
        if self.lengths is None:
            return xp.flip(x, axis=-1)
        k = xp.arange(self.length, device=device(x))
        lengths = xp.astype(self.lengths, k.dtype)
        lengths = xp.reshape(lengths, (*lengths.shape, *(1,) * (x.ndim - lengths.ndim)))
        return taken_along(x, xp.broadcast_to(xp.where(k < lengths, lengths - 1 - k, k), x.shape), -1)

    def alone(self) -> Segments:
        """The same steps without those of other processes."""
        return replace(self, shards=None)

    def run(
        self,
        operation: str,
        run: Callable[[Signals, Any, Segments], tuple[Array, Any]],
        signals: Signals,
        initial: Any,
        *,
        axis: int,
        apart: bool | None,
        summary: Callable[[Signals, Segments], Any] | None = None,
    ) -> tuple[Array, Any]:
        """run(signals, initial, segments) -> (y, states), where the sequences may be packed into one row.

        Time is on `axis` of all signals and of y, the batch on axis 0. Packed sequences without states are one run that
        starts anew at each of them. With states, or `apart` (None: where cu_seqlens can be read), those of like
        lengths make batches. States that are wanted, as `apart` says too, hold their own numbers alone.

        A recurrence gives summary(signals, segments), which says what its steps do to a state: over several processes
        it then begins with the state that the steps of those before it leave, and ends with the state after all.
        """
        if self.shards is not None and summary is not None:
            alone = self.alone()
            own, of = summary(signals, alone), tuple(signals.values())
            return self.shards.across(own, initial, of, lambda state: run(signals, state, alone)[0])
        if self.cu_seqlens is None:
            y, states = run(signals, initial, self)
            return y, owned(states, always=self.length == 0) if apart else states
        xp = namespace(operation, **{name: x for name, x in signals.items() if x is not None})
        if self.shards is not None:
            if initial is None and not apart:
                return run(signals, None, replace(self, cu_seqlens=None))
            return _side_by_side(run, signals, initial, self, axis, xp)
        apart = not is_traced(self.cu_seqlens) if apart is None else apart
        if initial is None and not apart:
            return run(signals, None, Segments(self.length, starts_of(self.cu_seqlens, self.length, xp)))
        if is_traced(self.cu_seqlens):
            raise OptionError(
                f"{operation}: packed sequences with states need cu_seqlens as known numbers, not under a trace. Make "
                "it outside of the traced function, or leave states out."
            )
        return _by_batches(run, signals, initial, to_numpy(self.cu_seqlens).astype(np.int64), axis, xp)


def checked_segments(
    operation: str,
    given: object,
    lead: tuple[int, ...] | None,
    length: int,
    *,
    of: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    shards: Shards | None = None,
) -> Segments:
    """The record, of arrays that fit batch axes `lead` (None: any that broadcast); raises where they do not.

    With `shards` the steps are those of one of them, while lengths and cu_seqlens count the steps of all.
    Behind a signal `of` a length that a trace does not know zeros may follow, so the lengths say where it ends.
    Raises DTypeError for masks of another dtype, ShapeError, OptionError for cu_seqlens beside the others, and
    DomainError for lengths or cu_seqlens that can be read and lie outside of the sequence; others are clipped.
    """
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    if shards is not None:
        return _of_shard(operation, given, lead, length, masks, shards)
    segments = _checked(operation, given, lead, length, **masks)
    if of is None or lead is None or lengths is not None or cu_seqlens is not None or not is_open(of, length):
        return segments
    xp = namespace(operation, of=of)
    return replace(segments, lengths=xp.full(lead, length, dtype=xp.int32, device=device(of)))


def _of_shard(
    operation: str,
    given: object,
    lead: tuple[int, ...] | None,
    length: int,
    masks: dict[str, Array | None],
    shards: Shards,
) -> Segments:
    """The record of the steps of one process."""
    reset, lengths, cu_seqlens = (masks[name] for name in ("reset", "lengths", "cu_seqlens"))
    own = _checked(operation, given, lead, length, reset=reset, lengths=None, cu_seqlens=None)
    if lengths is None and cu_seqlens is None:
        return replace(own, shards=shards)
    if reset is not None and cu_seqlens is not None:
        raise OptionError(f"{operation}: cu_seqlens already says where sequences begin and end: leave out reset.")
    ends = [0, *accumulate(shards.lengths(length))]
    whole = _checked(operation, given, lead, ends[-1], reset=None, lengths=lengths, cu_seqlens=cu_seqlens)
    counts = whole.lengths if cu_seqlens is None else cu_seqlens
    xp = namespace(operation, counts=counts)
    k = xp.arange(length, device=device(counts))
    counts = xp.astype(counts, k.dtype)
    rank = shards.rank
    start = ends[rank] if isinstance(rank, int) else xp.asarray(ends, dtype=k.dtype)[rank]
    here = clip(counts - start, 0, length)
    if cu_seqlens is None:
        reset = None if reset is None else reset & steps_within(here, length, xp)
        return Segments(length, reset, here, shards=shards)
    starts = xp.any(k[None, :] == (counts[:-1] - start)[:, None], axis=0)[None, :]
    return Segments(length, starts, cu_seqlens=here, shards=shards)


def _checked(
    operation: str,
    given: object,
    lead: tuple[int, ...] | None,
    length: int,
    *,
    reset: Array | None,
    lengths: Array | None,
    cu_seqlens: Array | None,
) -> Segments:
    """The record of the masks alone."""
    if reset is None and lengths is None and cu_seqlens is None:
        return Segments(length)
    present: dict[str, Any] = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    present = {name: x for name, x in present.items() if x is not None}
    require_arrays(operation, **present)
    if cu_seqlens is not None:
        _check_packing(operation, cu_seqlens, lead, length, present)
        return Segments(length, cu_seqlens=cu_seqlens)
    if reset is not None and dtype_name(reset) != "bool":
        raise DTypeError(f"{operation}: reset has dtype {reset.dtype}, but must be bool: reset > 0 ({given}).")
    if lengths is not None and "int" not in dtype_name(lengths):
        raise DTypeError(f"{operation}: lengths has dtype {lengths.dtype}, but must be integer ({given}).")
    if lead is None and reset is not None and (reset.ndim < 1 or reset.shape[-1] != length):
        raise ShapeError(f"{operation}: reset must have one entry a step, (..., {length}) ({given}).")
    wanted = {} if lead is None else {"reset": (*lead, length), "lengths": lead}
    for name, shape in wanted.items():
        if name in present and tuple(present[name].shape) != shape:
            raise ShapeError(f"{operation}: {name} must be {shape} ({given}).")
    if lengths is None:
        return Segments(length, reset)
    if isinstance(lengths, np.ndarray) and lengths.size and not 0 <= lengths.min() <= lengths.max() <= length:
        raise DomainError(
            f"{operation}: lengths must lie in [0, {length}], the steps given (smallest: {lengths.min()}, "
            f"largest: {lengths.max()})."
        )
    xp = namespace(operation, **present)
    if not isinstance(lengths, np.ndarray):
        lengths = clipped_lengths(lengths, length, xp)
    if reset is not None:
        broadcast(operation, reset=reset.shape[:-1], lengths=lengths.shape)
        reset = reset & steps_within(lengths, length, xp)
    return Segments(length, reset, lengths)


def clipped_lengths(lengths: Array, length: int, xp: Namespace) -> Array:
    """Lengths within [0, L], as integers that hold it; large unsigned ones turn negative in them."""
    steps = xp.astype(lengths, xp.arange(1).dtype)
    if dtype_name(lengths).startswith("uint"):
        steps = xp.where(steps < 0, length, steps)
    return clip(steps, 0, length)


def steps_within(lengths: Array, length: int, xp: Namespace) -> Array:
    """Whether step k lies within the length of its sequence: bool (..., L)."""
    k = xp.arange(length, device=device(lengths))
    return k < xp.astype(lengths, k.dtype)[..., None]


def _check_packing(
    operation: str, cu_seqlens: Array, lead: tuple[int, ...] | None, length: int, present: dict[str, Array]
) -> None:
    """Raise unless cu_seqlens fits a batch of one row, and nothing else cuts it."""
    for name in present:
        if name != "cu_seqlens":
            raise OptionError(f"{operation}: cu_seqlens already says where sequences begin and end: leave out {name}.")
    if "int" not in dtype_name(cu_seqlens):
        raise DTypeError(f"{operation}: cu_seqlens has dtype {dtype_name(cu_seqlens)}, but must be integer.")
    batch = lead[0] if lead else 0
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


def starts_of(cu_seqlens: Array, length: int, xp: Namespace) -> Array:
    """Whether a sequence begins at a step: bool (1, L)."""
    k = xp.arange(length, device=device(cu_seqlens))
    starts = xp.astype(cu_seqlens[:-1], k.dtype)
    return xp.any(k[None, :] == starts[:, None], axis=0)[None, :]


def _by_batches(
    run: Callable[[Signals, Any, Segments], tuple[Array, Any]],
    signals: Signals,
    initial: Any,
    ends: np.ndarray,
    axis: int,
    xp: Namespace,
) -> tuple[Array, Any]:
    """Sequences of like lengths side by side, batch after batch; y packed again, and the states in their order."""
    place = device(next(x for x in signals.values() if x is not None))

    def index(k: np.ndarray) -> Array:
        return xp.asarray(np.ascontiguousarray(k), device=place)

    lengths = np.diff(ends)
    batches = _of_like_lengths(lengths)
    outputs, states, taken = [], [], []
    for members in batches:
        steps, longest = lengths[members], max(1, int(lengths[members[0]]))
        within = np.arange(longest) < steps[:, None]
        source = np.where(within, ends[members][:, None] + np.arange(longest), 0)
        flat = index(source.reshape(-1))
        rows = {name: _laid(x, flat, len(members), longest, axis, xp) for name, x in signals.items()}
        y, last = run(rows, _chosen(initial, index(members), xp), Segments(longest, lengths=index(steps)))
        outputs.append(_joined(y, index(np.nonzero(within.reshape(-1))[0]), axis, xp))
        states.append(last)
        taken.append(source[within])
    y = outputs[0] if len(outputs) == 1 else xp.concat(outputs, axis=axis % outputs[0].ndim)
    order = np.argsort(np.concatenate(taken), kind="stable")
    y = y if (order[1:] > order[:-1]).all() else xp.take(y, index(order), axis=axis % y.ndim)
    place_of = np.argsort(np.concatenate(batches), kind="stable")
    return y, _chosen(_concatenated(states, xp), index(place_of), xp)


def _side_by_side(
    run: Callable[[Signals, Any, Segments], tuple[Array, Any]],
    signals: Signals,
    initial: Any,
    segments: Segments,
    axis: int,
    xp: Namespace,
) -> tuple[Array, Any]:
    """The steps that a process has of packed sequences, a row each: all processes have a row for every sequence."""
    L, ends = segments.length, segments.cu_seqlens
    k = xp.arange(L, device=device(ends))
    ends = xp.astype(ends, k.dtype)
    steps = ends[1:] - ends[:-1]
    longest = max(1, L if is_traced(steps) else int(to_numpy(steps).max()))
    source = clip(ends[:-1, None] + xp.arange(longest, device=device(ends)), 0, max(L - 1, 0))
    flat, n = xp.reshape(source, (-1,)), steps.shape[0]
    rows = {name: _laid(x, flat, n, longest, axis, xp) for name, x in signals.items()}
    y, states = run(rows, initial, Segments(longest, lengths=steps, shards=segments.shards))
    sequence = xp.sum(xp.astype(ends[1:, None] <= k, k.dtype), axis=0)
    return _joined(y, sequence * longest + k - xp.take(ends, sequence, axis=0), axis, xp), states


def _of_like_lengths(lengths: np.ndarray) -> list[np.ndarray]:
    """The sequences in batches, longest first, each padded by at most a quarter of its steps and PADDING more."""
    batches: list[list[int]] = []
    padded = tokens = 0
    for i in np.argsort(-lengths, kind="stable"):
        longest = lengths[batches[-1][0]] if batches else 0
        if not batches or 4 * (padded + longest - lengths[i]) > tokens + lengths[i] + 4 * PADDING:
            batches.append([])
            padded, tokens, longest = 0, 0, lengths[i]
        batches[-1].append(int(i))
        padded, tokens = padded + longest - lengths[i], tokens + lengths[i]
    return [np.asarray(members) for members in batches]


def _laid(x: Array | None, flat: Array, n: int, longest: int, axis: int, xp: Namespace) -> Array | None:
    """Steps `flat` of a row x (1, ...) as a batch of n sequences."""
    if x is None:
        return None
    time = axis % x.ndim
    if x.shape[time] == 0:
        shape = n, *x.shape[1:time], longest, *x.shape[time + 1 :]
        return depending(xp.zeros(shape, dtype=x.dtype, device=device(x)), [x], xp)
    rows = xp.take(x, flat, axis=time)[0, ...]
    rows = xp.reshape(rows, (*rows.shape[: time - 1], n, longest, *rows.shape[time:]))
    return moved(rows, time - 1, 0, xp)


def _joined(y: Array, steps: Array, axis: int, xp: Namespace) -> Array:
    """The steps that count of a batch of sequences, one after another in a row (1, ...)."""
    time = axis % y.ndim
    rows = moved(y, 0, time - 1, xp)
    rows = xp.reshape(rows, (*rows.shape[: time - 1], y.shape[0] * y.shape[time], *rows.shape[time + 1 :]))
    return xp.take(rows, steps, axis=time - 1)[None, ...]


def _chosen(state: Any, index: Array, xp: Namespace) -> Any:
    """The states of some sequences, in nested tuples as they are."""
    if state is None or isinstance(state, tuple | list):
        return None if state is None else tuple(_chosen(x, index, xp) for x in state)
    return xp.take(state, index, axis=0)


def _concatenated(states: list[Any], xp: Namespace) -> Any:
    first = states[0]
    if first is None or len(states) == 1:
        return first
    if isinstance(first, tuple):
        return tuple(_concatenated(list(parts), xp) for parts in zip(*states, strict=True))
    return xp.concat(states, axis=0)
