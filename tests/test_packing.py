"""Sequences cut, packed, restarted and padded: laws of every recurrence whose gates depend on the input."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import array_api_compat.numpy
import array_api_strict
import numpy as np
import pytest
from gated import ALL, RECURRENCES, SSD, Gated, at, close, states_close
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from ssm_core.recurrences.segments import Segments, checked_segments

settings.register_profile("ssm_core", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("ssm_core")

kinds = st.sampled_from(ALL)
recurrences = st.sampled_from(RECURRENCES)
seeds = st.integers(0, 2**16)
sequences = st.lists(st.integers(0, 9), min_size=1, max_size=5)  # their lengths
libraries = st.sampled_from([array_api_compat.numpy, array_api_strict])


def in_library(xp: ModuleType, v: Any) -> Any:
    """Arrays, dicts and tuples of them, in the library."""
    if isinstance(v, dict):
        return {name: in_library(xp, x) for name, x in v.items()}
    if isinstance(v, tuple):
        return tuple(in_library(xp, x) for x in v)
    return xp.asarray(v) if isinstance(v, np.ndarray) else v


def drawn(kind: Gated, lengths: list[int], seed: int) -> tuple[list[dict[str, Any]], dict[str, Any], np.ndarray]:
    """Sequences, the same packed, and cu_seqlens; what has no time is shared."""
    whole = kind.inputs(seed, batch=1, length=sum(lengths))
    ends = np.asarray([0, *np.cumsum(lengths)])
    return [kind.part(whole, int(a), int(b)) for a, b in pairwise(ends)], whole, ends


@given(recurrences, sequences, seeds, st.booleans(), libraries)
def test_packed_is_one_by_one(kind: Gated, lengths: list[int], seed: int, with_state: bool, xp: ModuleType):
    """Outputs and states, for states given or none, and for empty sequences."""
    parts, packed, ends = drawn(kind, lengths, seed)
    states = kind.state(seed, batch=len(lengths)) if with_state else None
    found, last = kind.run(
        in_library(xp, packed), None if states is None else in_library(xp, states), cu_seqlens=xp.asarray(ends)
    )
    for i, part in enumerate(parts):
        first = None if states is None else tuple(s[i : i + 1] for s in states)
        y, state = kind.run(part, first)
        close(np.asarray(found)[at(found, kind.axis, slice(ends[i], ends[i + 1]))], y)
        states_close(tuple(np.asarray(s)[i : i + 1] for s in last), state)
    if not with_state:
        close(kind.output(in_library(xp, packed), cu_seqlens=xp.asarray(ends)), found)


@given(recurrences, sequences, seeds, libraries)
def test_packed_is_a_reset_at_every_start(kind: Gated, lengths: list[int], seed: int, xp: ModuleType):
    _, packed, ends = drawn(kind, lengths, seed)
    reset = np.isin(np.arange(sum(lengths)), ends[:-1])[None, :]
    packed = in_library(xp, packed)
    close(kind.output(packed, cu_seqlens=xp.asarray(ends)), kind.output(packed, reset=xp.asarray(reset)))


@given(kinds, st.lists(st.integers(0, 17), max_size=4), seeds, libraries)
def test_any_cut_with_the_state_carried_is_the_whole(kind: Gated, cuts: list[int], seed: int, xp: ModuleType):
    v = kind.inputs(seed)
    state = kind.state(seed)
    whole, last = kind.run(v, state)
    state, pieces = in_library(xp, state), []
    for start, stop in pairwise(sorted([0, *cuts, 17])):
        y, state = kind.run(in_library(xp, kind.part(v, start, stop)), state)
        pieces.append(np.asarray(y))
    close(np.concatenate(pieces, axis=kind.axis), whole)
    states_close(state, last)


@given(kinds, st.integers(0, 17), st.integers(0, 17), seeds, libraries)
def test_the_state_is_that_at_the_length(kind: Gated, first: int, second: int, seed: int, xp: ModuleType):
    """Whatever stands beyond: NaN, resets. Values of host arrays are checked, so NaN comes in another library."""
    v, lengths = kind.inputs(seed), np.asarray([first, second])
    beyond = np.arange(17) >= lengths[:, None]
    y, last = kind.run(in_library(xp, v), in_library(xp, kind.state(seed)), lengths=xp.asarray(lengths))
    dirty = {n: np.where(_along(beyond, x, kind.time[n]), np.nan, x) if n in kind.time else x for n, x in v.items()}
    given = in_library(array_api_strict, dirty | {"reset": beyond, "lengths": lengths})
    y_dirty, last_dirty = kind.run(given, in_library(array_api_strict, kind.state(seed)))
    for i, length in enumerate(lengths):
        one = {n: x[i : i + 1] if n in kind.time else x for n, x in v.items()}
        wanted, state = kind.run(kind.part(one, 0, int(length)), tuple(s[i : i + 1] for s in kind.state(seed)))
        for found, states in ((y, last), (y_dirty, last_dirty)):
            close(np.asarray(found)[i : i + 1][at(wanted, kind.axis, slice(0, length))], wanted)
            states_close(tuple(np.asarray(s)[i : i + 1] for s in states), state)


def _along(mask: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    """(batch, L) so that it broadcasts with x, whose time is on the axis."""
    return mask.reshape(mask.shape[0], *(1,) * (axis - 1), mask.shape[1], *(1,) * (x.ndim - axis - 1))


@given(kinds, st.lists(st.booleans(), min_size=17, max_size=17), seeds, libraries)
def test_a_reset_starts_again_from_zero(kind: Gated, flags: list[bool], seed: int, xp: ModuleType):
    v, reset = kind.inputs(seed, batch=1), np.asarray(flags)
    found, last = kind.run(in_library(xp, v), in_library(xp, kind.state(seed, 1)), reset=xp.asarray(reset[None, :]))
    starts = sorted({0, *np.nonzero(reset)[0].tolist()})
    for start, stop in pairwise([*starts, 17]):
        first = kind.state(seed, 1) if start == 0 and not reset[0] else None
        y, state = kind.run(kind.part(v, start, stop), first)
        close(np.asarray(found)[at(found, kind.axis, slice(start, stop))], y)
    states_close(last, state)


@given(kinds, seeds, libraries)
def test_sequences_of_a_batch_are_independent(kind: Gated, seed: int, xp: ModuleType):
    v, order = kind.inputs(seed, batch=3), [2, 0, 1]
    y, last = kind.run(v, kind.state(seed, 3))
    other = in_library(xp, {n: x[order] if n in kind.time else x for n, x in v.items()})
    found, states = kind.run(other, in_library(xp, tuple(s[order] for s in kind.state(seed, 3))))
    close(found, y[order])
    states_close(states, tuple(s[order] for s in last))


# What is unusual -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (0, 0)])
def test_nothing_gives_nothing(kind: Gated, batch: int, length: int, xp: Any):
    state = kind.state(batch=batch)
    y, last = kind.run(in_library(xp, kind.inputs(batch=batch, length=length)), in_library(xp, state))
    wanted = kind.run(kind.inputs(batch=2, length=3))[0].shape
    assert tuple(y.shape) == (batch, *(length if i == kind.axis else n for i, n in enumerate(wanted) if i))
    states_close(last, state)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_the_state_of_no_steps_is_a_copy(kind: Gated):
    """What is written to the state that was given does not change it."""
    given = kind.state()
    _, last = kind.run(kind.part(kind.inputs(), 0, 0), given)
    assert not any(np.shares_memory(x, y) for x in last for y in given)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_inputs_may_be_read_only_and_strided(kind: Gated):
    """And are not written to."""

    def relaid(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(relaid(part) for part in x)
        x = np.repeat(x, 2, axis=-1)[..., ::2]
        x.flags.writeable = False
        return x

    v = kind.inputs()
    y, last = kind.run({n: relaid(x) for n, x in v.items()}, relaid(kind.state()))
    close(y, kind.run(v, kind.state())[0], 1e-14)
    states_close(last, kind.run(v, kind.state())[1], 1e-14)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_half_precision_is_computed_in_single(kind: Gated, half: str):
    """The result is that of the same numbers in float32, rounded; and near float64's."""
    torch = pytest.importorskip("torch")

    def to(x: Any, dtype: Any) -> Any:
        return tuple(to(part, dtype) for part in x) if isinstance(x, tuple) else torch.as_tensor(x).to(dtype)

    v = {n: to(x, getattr(torch, half)) for n, x in kind.inputs().items()}
    y, state = kind.run(v)
    single, last = kind.run({n: to(x, torch.float32) for n, x in v.items()})
    double = kind.output({n: to(x, torch.float64) for n, x in v.items()})
    assert y.dtype == getattr(torch, half)
    assert torch.equal(y, single.to(y.dtype))
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(state, last, strict=True))
    close(y.double(), double, {"float16": 2e-3, "bfloat16": 1e-2}[half])


# The record ----------------------------------------------------------------------------------------------------------


class Runs:
    """What `Segments.run` gives to a run, one row each; outputs are the signal, states the lengths."""

    def __init__(self) -> None:
        self.given: list[tuple[np.ndarray, Any, Segments]] = []

    def __call__(self, signals: dict[str, Any], initial: Any, segments: Segments) -> tuple[Any, Any]:
        assert signals["nothing"] is None
        self.given.append((np.asarray(signals["x"]), initial, segments))
        return signals["x"], segments.lengths


def packed_run(xp: Any, lengths: list[int], initial: Any = None, *, apart: bool | None) -> tuple[Runs, Any, Any]:
    """With the numbers 0, 1, ... as the signal (1, L, 1)."""
    ends, runs = np.asarray([0, *np.cumsum(lengths)]), Runs()
    x = xp.asarray(np.arange(float(ends[-1]))[None, :, None])
    segments = Segments(int(ends[-1]), cu_seqlens=xp.asarray(ends))
    return runs, *segments.run("f", runs, {"x": x, "nothing": None}, initial, axis=1, apart=apart)


def test_without_states_one_run_with_resets(xp: Any):
    """Two starts at one step are one reset; a sequence that begins at the end has none."""
    runs, _, _ = packed_run(xp, [2, 0, 3, 0], apart=False)
    [(_, _, segments)] = runs.given
    np.testing.assert_array_equal(np.asarray(segments.reset), [[True, False, True, False, False]])
    assert segments.lengths is None


def test_with_states_a_batch_padded_to_the_longest(xp: Any):
    runs, y, lengths = packed_run(xp, [2, 0, 3], apart=True)
    [(x, _, segments)] = runs.given
    np.testing.assert_array_equal(np.asarray(segments.lengths), [3, 2, 0])
    np.testing.assert_array_equal(x[0, :, 0], [2, 3, 4])
    np.testing.assert_array_equal(x[1, :2, 0], [0, 1])
    np.testing.assert_array_equal(np.asarray(y)[0, :, 0], np.arange(5))
    np.testing.assert_array_equal(np.asarray(lengths), [2, 0, 3])


@given(st.lists(st.one_of(st.integers(0, 20), st.integers(0, 4000)), min_size=1, max_size=80))
def test_packing_with_states_costs_what_the_tokens_cost(lengths: list[int]):
    """A quarter more at most, and 64 steps a batch, of which there are few; everything comes back in its order."""
    initial = (np.arange(float(len(lengths)))[:, None],)
    runs, y, last = packed_run(array_api_compat.numpy, lengths, initial, apart=True)
    steps = [x.shape[0] * x.shape[1] for x, _, _ in runs.given]
    assert sum(steps) <= 1.25 * sum(lengths) + 65 * len(steps) + len(lengths)
    assert len(steps) <= 16
    np.testing.assert_array_equal(np.asarray(y)[0, :, 0], np.arange(sum(lengths)))
    np.testing.assert_array_equal(np.asarray(last), lengths)
    for x, first, segments in runs.given:
        for row, state, n in zip(x, first[0], segments.lengths, strict=True):
            starts = np.cumsum([0, *lengths])[int(state[0])]
            np.testing.assert_array_equal(row[:n, 0], np.arange(starts, starts + n))


def test_resets_count_within_the_lengths_only(xp: Any):
    reset, lengths = xp.asarray(np.ones((2, 4), bool)), xp.asarray([1, 4])
    found = checked_segments("f", "", (2,), 4, reset=reset, lengths=lengths)
    np.testing.assert_array_equal(np.asarray(found.reset), [[True, False, False, False], [True] * 4])


def test_lengths_are_refused_or_clipped():
    with pytest.raises(ssm_core.DomainError, match=r"lengths must lie in \[0, 4\].*smallest: -1, largest: 5"):
        checked_segments("f", "", (2,), 4, lengths=np.asarray([-1, 5]))
    clipped = checked_segments("f", "", (2,), 4, lengths=array_api_strict.asarray([-1, 5]))
    np.testing.assert_array_equal(np.asarray(clipped.lengths), [0, 4])


@pytest.mark.parametrize("axis", [1, -1, 2])
def test_masked_is_zero_beyond(axis: int, xp: Any):
    x = np.full((2, 3, 3), np.nan)
    masked = Segments(3, lengths=xp.asarray([3, 1])).masked(xp.asarray(x), axis, xp)
    wanted = np.where((np.arange(3) < np.asarray([3, 1])[:, None])[:, :, None], x, 0)
    np.testing.assert_array_equal(np.asarray(masked), wanted if axis == 1 else wanted.swapaxes(1, 2))


@pytest.mark.parametrize(
    ("ends", "error", "message"),
    [
        ([1, 5], ssm_core.DomainError, r"begin with 0, never decrease, and end with the 5 steps .*\[1, 5\]"),
        ([0, 4], ssm_core.DomainError, r"\[0, 4\]"),
        ([0, 6], ssm_core.DomainError, r"\[0, 6\]"),
        ([0, 3, 2, 5], ssm_core.DomainError, r"\[0, 3, 2, 5\]"),
        ([0, *range(1, 20)], ssm_core.DomainError, r"\[0, 1, 2, 3, '...', 16, 17, 18, 19\]"),
        ([0], ssm_core.ShapeError, r"\(n \+ 1,\) for n sequences .*cu_seqlens: \(1,\)"),
        ([[0, 5]], ssm_core.ShapeError, r"cu_seqlens: \(1, 2\)"),
        ([0.0, 5.0], ssm_core.DTypeError, "has dtype float64, but must be integer"),
    ],
)
def test_wrong_ends_are_refused(ends: Any, error: type, message: str, xp: Any):
    with pytest.raises(error, match=f"^f: .*{message}"):
        checked_segments("f", "", (1,), 5, cu_seqlens=xp.asarray(ends))


def test_ends_belong_to_one_sequence_and_stand_alone():
    ends = np.asarray([0, 5])
    with pytest.raises(ssm_core.ShapeError, match=r"packed into a batch of 1 .*batch: 2"):
        checked_segments("f", "", (2,), 5, cu_seqlens=ends)
    for name in ("reset", "lengths"):
        with pytest.raises(ssm_core.OptionError, match=f"leave out {name}"):
            checked_segments("f", "", (1,), 5, cu_seqlens=ends, **{name: ends})
    with pytest.raises(ssm_core.DTypeError, match="cu_seqlens is a list"):
        checked_segments("f", "", (1,), 5, cu_seqlens=[0, 5])


@pytest.mark.parametrize("kind", RECURRENCES, ids=lambda kind: kind.name)
def test_packed_runs_name_what_is_wrong(kind: Gated):
    name = kind.function.__name__
    v = kind.inputs(batch=1, length=5)
    with pytest.raises(ssm_core.DomainError, match=rf"^{name}: cu_seqlens must begin with 0"):
        kind.run(v, cu_seqlens=np.asarray([0, 4]))
    with pytest.raises(ssm_core.ShapeError, match=rf"^{name}: cu_seqlens must be \(n \+ 1,\)"):
        kind.run(kind.inputs(length=5), cu_seqlens=np.asarray([0, 5]))
    with pytest.raises(ssm_core.OptionError, match=rf"^{name}: .*leave out reset"):
        kind.run(v, cu_seqlens=np.asarray([0, 5]), reset=np.zeros((1, 5), bool))
    with pytest.raises(ssm_core.ShapeError, match=rf"(?s)^{name}: \w+ must be \(2, "):
        kind.run(v, kind.state(batch=1), cu_seqlens=np.asarray([0, 2, 5]))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_ends_of_another_integer_dtype(dtype: type):
    v = SSD.inputs(batch=1)
    found = SSD.run(v, cu_seqlens=np.asarray([0, 9, 17], dtype))
    close(found, SSD.run(v, cu_seqlens=np.asarray([0, 9, 17])), 0.0)
    with pytest.raises(ssm_core.DomainError, match="never decrease"):
        SSD.run(v, cu_seqlens=np.asarray([0, 9, 8, 17], dtype))
