"""Convolution, chunks, scan and steps of a system are one function: state in, state out, at any cut of the sequence."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core

from . import examples, truth
from .backends import Backend
from .examples import BATCHED, DENSE, DENSE_MIMO, EXAMPLES, MIMO, PAIRS, REAL, Draw, Example, alpha_of
from .pieces import run_pieces
from .plans import RESTARTING, Plan, explore
from .tolerances import assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.label)
DT = 0.1


def in_pieces(
    example: Example, v: SimpleNamespace, plan: Plan, *, dt: Any = DT, method: str = "zoh", scales: bool = False
) -> tuple[Any, Any]:
    """The outputs of all pieces and the last state; v has u, maybe initial, reset and scale."""
    system, options = example.system(v), {"method": method, **alpha_of(method)}
    discrete = system if scales else ssm_core.discretize(system, dt, **options)

    def piece(start: int, stop: int, mode: str, state: Any) -> tuple[Any, Any]:
        part = (..., slice(start, stop))
        more = {"reset": v.reset[part]} if v.reset is not None else {}
        more |= {"step_scale": v.scale[part]} if scales else {}
        return ssm_core.scan(system, v.u[part], dt=dt, initial=state, mode=mode, **options, **more)

    def step(k: int, state: Any) -> tuple[Any, Any]:
        now = {"dt": dt * v.scale[k], **options} if scales else {}
        y, state = ssm_core.step(discrete, v.u[..., k], v.zero_state if state is None else state, **now)
        return y[..., None], state

    outputs, state = run_pieces(plan, v.initial, piece, step)
    return v.xp.concat(outputs, axis=-1), state


def inputs(example: Example, plan: Plan, dtype: str, **more: Any) -> dict[str, Any]:
    d = Draw(plan.seed, dtype)
    found = example.fields(d) | {"u": example.signal(d, plan.length), "reset": None, "scale": None}
    state = example.state(d)
    return found | {"initial": state if plan.initial else None, "zero_state": 0 * state} | more


def check(
    found: tuple[Any, Any], example: Example, values: SimpleNamespace, backend: Backend, dtype: str, systems: Any
) -> None:
    initial = example.full_state(values.initial)
    y, state = truth.recurrence(
        systems, values.u, initial, reset=values.reset, lengths=getattr(values, "lengths", None)
    )
    for actual, wanted in zip(found, (y, example.stored_state(state)), strict=True):
        assert_close(actual, wanted, backend, dtype, function="scan", terms=32 * values.u.shape[-1])


@each_example
def test_any_cut_in_any_modes(example: Example, backend: Backend, dtype: str):
    def body(plan: Plan) -> None:
        v = examples.as_arrays(backend, dtype, inputs(example, plan, dtype))
        values = examples.rounded(backend, v)
        found = backend.run(lambda v: in_pieces(example, v, plan), v)
        check(found, example, values, backend, dtype, truth.discrete(example.plain(values), DT))

    explore(backend, 8, body)


@pytest.mark.parametrize("example", [PAIRS, BATCHED, MIMO, DENSE, DENSE_MIMO], ids=lambda e: e.label)
def test_any_cut_with_resets(example: Example, backend: Backend, dtype: str):
    """The state is zeroed before a step that is a reset, and not after it."""

    def body(plan: Plan) -> None:
        reset = Draw(plan.seed + 1).resets(*example.batch, plan.length)
        v = examples.as_arrays(backend, dtype, inputs(example, plan, dtype, reset=reset))
        values = examples.rounded(backend, v)
        found = backend.run(lambda v: in_pieces(example, v, plan), v)
        check(found, example, values, backend, dtype, truth.discrete(example.plain(values), DT))

    explore(backend, 6, body, RESTARTING)


@pytest.mark.parametrize("method", examples.METHODS)
@pytest.mark.dtypes("float64")
def test_any_cut_by_every_discretization(method: str, backend: Backend, dtype: str):
    def body(plan: Plan) -> None:
        v = examples.as_arrays(backend, dtype, inputs(PAIRS, plan, dtype))
        values = examples.rounded(backend, v)
        found = backend.run(lambda v: in_pieces(PAIRS, v, plan, method=method), v)
        check(found, PAIRS, values, backend, dtype, truth.discrete(PAIRS.plain(values), DT, method, **alpha_of(method)))

    explore(backend, 4, body)


@pytest.mark.parametrize("method", ["zoh", "bilinear", "dirac"])
@pytest.mark.parametrize("example", [PAIRS, REAL], ids=lambda e: e.label)
def test_steps_of_their_own_lengths(example: Example, method: str, backend: Backend, dtype: str):
    """step_scale in scan, chunk and auto is a step with that dt."""

    def body(plan: Plan) -> None:
        scale = Draw(plan.seed + 1).uniform(0.2, 3, plan.length)
        v = examples.as_arrays(backend, dtype, inputs(example, plan, dtype, scale=scale))
        values = examples.rounded(backend, v)
        found = backend.run(lambda v: in_pieces(example, v, plan, method=method, scales=True), v)
        plain = example.plain(values)
        check(found, example, values, backend, dtype, [truth.discrete(plain, DT * s, method) for s in values.scale])

    explore(backend, 4, body, (*RESTARTING, "step"))


@pytest.mark.parametrize("mode", ["conv", "chunk", "scan"])
@pytest.mark.parametrize("example", [BATCHED, MIMO, DENSE], ids=lambda e: e.label)
def test_lengths(example: Example, mode: str, backend: Backend, dtype: str):
    """The state is that at the length of each sequence, and outputs within the lengths do not see what is beyond."""
    d = Draw(3)
    batch, L = (3, *example.batch), 70
    axes = (None,) * len(example.batch)
    lengths = np.asarray([70, 1, 33])[(slice(None), *axes)]
    arrays = {"u": example.signal(d, L, batch), "initial": example.state(d, batch), "lengths": lengths, "reset": None}
    v = examples.as_arrays(backend, dtype, example.fields(d) | arrays)
    values = examples.rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        options = {"dt": DT, "initial": v.initial, "lengths": v.lengths, "mode": mode}
        y, state = ssm_core.scan(example.system(v), v.u, **options)
        within = v.xp.arange(L, device=v.device) < v.lengths[..., None]
        outputs = y.ndim - within.ndim
        return v.xp.where(within[(..., *(None,) * outputs, slice(None))], y, v.xp.zeros_like(y)), state

    y, state = backend.run(run, v, steps=L)
    system = truth.discrete(example.plain(values), DT)
    wanted, last = truth.recurrence(system, values.u, example.full_state(values.initial), lengths=lengths)
    within = np.arange(L) < lengths[..., None]
    within = within[(..., *(None,) * (wanted.ndim - within.ndim), slice(None))]
    terms = 32 * L
    assert_close(y, np.where(within, wanted, 0), backend, dtype, function="scan", terms=terms)
    assert_close(state, example.stored_state(last), backend, dtype, function="scan", terms=terms)


@pytest.mark.parametrize("mode", ["chunk", "scan"])
def test_lengths_with_resets(mode: str, backend: Backend, dtype: str):
    """A reset beyond the length of a sequence does not touch its state."""
    d = Draw(4)
    lengths, L = np.asarray([50, 20, 3]), 50
    reset = np.zeros((3, L), dtype=bool)
    reset[:, [0, 17, 30, 49]] = True
    arrays = {"u": d.real(3, L), "initial": PAIRS.state(d), "lengths": lengths, "reset": reset}
    v = examples.as_arrays(backend, dtype, PAIRS.fields(d) | arrays)
    values = examples.rounded(backend, v)
    options = {"dt": DT, "mode": mode}
    _, state = backend.run(
        lambda v: ssm_core.scan(PAIRS.system(v), v.u, initial=v.initial, lengths=v.lengths, reset=v.reset, **options), v
    )
    system = truth.discrete(PAIRS.plain(values), DT)
    _, last = truth.recurrence(
        system, values.u, PAIRS.full_state(values.initial), reset=reset & (np.arange(L) < lengths[:, None]),
        lengths=lengths,
    )  # fmt: skip
    assert_close(state, PAIRS.stored_state(last), backend, dtype, function="scan", terms=32 * L)


# Splitting a sequence over processes ---------------------------------------------------------------------------------


@pytest.mark.dtypes("float32", "complex128")
def test_summaries_of_pieces_compose(backend: Backend, dtype: str):
    """Every process runs its piece from zero; the summaries before it give the state it should have started from."""
    d = Draw(6, dtype)
    cuts = (0, 1, 17, 18, 40)
    v = examples.as_arrays(backend, dtype, {"a": d.gates(40, 3), "b": d.signal(40, 3), "initial": d.signal(3)})
    values = examples.rounded(backend, v)

    def pieces(v: SimpleNamespace) -> Any:
        states, before = [], v.initial
        parts = [(v.a[i:j, :], v.b[i:j, :]) for i, j in pairwise(cuts)]
        summaries = [ssm_core.chunk_summary(a, b, axis=0) for a, b in parts]
        for (a, b), (P, s) in zip(parts, summaries, strict=True):
            states.append(ssm_core.linear_scan(a, b, axis=0, initial=before))
            before = P * before + s
        return v.xp.concat(states, axis=0), before, whole(summaries)

    states, last, (P, s) = backend.run(pieces, v)
    wanted = truth.linear_scan(values.a, values.b, 0, values.initial)
    for actual, expected in ((states, wanted), (last, wanted[-1]), (P * v.initial + s, wanted[-1])):
        assert_close(actual, expected, backend, dtype, function="chunk_summary", terms=40)


def whole(summaries: list[Any]) -> Any:
    """Composed as a tree, as processes would."""
    if len(summaries) == 1:
        return summaries[0]
    middle = len(summaries) // 2
    (P1, s1), (P2, s2) = whole(summaries[:middle]), whole(summaries[middle:])
    return P2 * P1, P2 * s1 + s2
