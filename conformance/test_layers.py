"""The layers over time: every option against the plain loop, every mode and any cut of a sequence one function.

Every test runs on the records of `cases/layers/`: a layer with a state that brings one is in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from .backends import HALF, Backend, other_device
from .cases import layers, models
from .cases.functions import Case
from .cases.instance import BATCH, H, Instance
from .examples import Draw, as_arrays, rounded
from .pieces import layer_in_pieces
from .plans import Plan, explore
from .tolerances import assert_close, tolerance
from .truth import layers as truth

pytestmark = pytest.mark.dtypes("float32", "float64")

ONE_OF_EACH = layers.ONE_OF_EACH
COMPILED = tuple(one for cases in layers.STREAMING for one in cases.compiled)
STANDING = tuple(i for i in ONE_OF_EACH if i.cases.thorough)
TIMED = tuple(cases.one_each[0] for cases in layers.STREAMING if cases.timed)
one_of_each = pytest.mark.cases(ONE_OF_EACH)
Masks = Callable[[Plan, Draw], dict[str, Any]]


def without(plan: Plan, d: Draw) -> dict[str, Any]:
    return {}


def resets(plan: Plan, d: Draw) -> dict[str, Any]:
    return {"reset": d.resets(BATCH, plan.length)}


def cut_anywhere(
    instance: Instance,
    backend: Backend,
    dtype: str,
    *,
    examples: int,
    stepped: bool,
    rate: float = 1.0,
    masks: Masks = without,
) -> None:
    """In steps too, or with masks and steps of their own lengths, which steps do not take, nor does a convolution."""

    def body(plan: Plan) -> None:
        v = instance.arrays(backend, dtype, plan.length, plan.seed, **masks(plan, Draw(plan.seed + 1)))
        found = backend.run(lambda v: layer_in_pieces(instance, v, plan, rate), v)
        instance.check(found, instance.truth(rounded(backend, v), rate=rate), plan.length, backend, dtype)

    modes = (*instance.modes, "step") if stepped else tuple(m for m in instance.modes if m != "conv")
    explore(backend, examples, body, modes)


@pytest.mark.cases(layers.INSTANCES)
@pytest.mark.backends("numpy", "strictest", "torch", "cupy", "other")
def test_any_cut_in_any_modes(case: Instance, backend: Backend, dtype: str):
    cut_anywhere(case, backend, dtype, examples=4 if case.cases.thorough else 3, stepped=True, rate=case.rate)


@pytest.mark.cases(COMPILED)
@pytest.mark.backends("jax")
def test_any_cut_in_any_modes_compiled(case: Instance, backend: Backend, dtype: str):
    cut_anywhere(case, backend, dtype, examples=1, stepped=True, rate=case.rate)


@one_of_each
@pytest.mark.dtypes("float32")
def test_any_cut_with_resets(case: Instance, backend: Backend, dtype: str):
    cut_anywhere(case, backend, dtype, examples=4 if case.cases.thorough else 2, stepped=False, masks=resets)


@pytest.mark.cases(STANDING)
@pytest.mark.dtypes("float64")
def test_any_cut_with_resets_in_double_precision(case: Instance, backend: Backend, dtype: str):
    cut_anywhere(case, backend, dtype, examples=4, stepped=False, masks=resets)


@pytest.mark.cases(tuple(one for cases in layers.STREAMING for one in cases.with_step_scale))
def test_any_cut_with_steps_of_their_own_lengths(case: Instance, backend: Backend, dtype: str):
    """With resets too where the steps depend on the input."""

    def masks(plan: Plan, d: Draw) -> dict[str, Any]:
        both = case.cases in layers.GATED or case.options.get("liquid", False)
        return (resets(plan, d) if both else {}) | {"scale": d.uniform(0.2, 3, BATCH, plan.length)}

    examples = 4 if case.cases.thorough else 2
    cut_anywhere(case, backend, dtype, examples=examples, stepped=False, rate=1.5, masks=masks)


# Where sequences begin and end ---------------------------------------------------------------------------------------


@one_of_each
def test_right_padding_in_every_mode(case: Instance, backend: Backend, dtype: str):
    """The state is that at the length, and what stands beyond may be NaN."""
    right_padding(case, backend, dtype, case.modes)


@one_of_each
@pytest.mark.dtypes("float32")
def test_right_padding_with_resets(case: Instance, backend: Backend, dtype: str):
    """Resets beyond the length notwithstanding."""
    modes = tuple(m for m in case.modes if m != "conv")
    right_padding(case, backend, dtype, modes, reset=Draw(1).resets(BATCH, 40))


def right_padding(case: Instance, backend: Backend, dtype: str, modes: tuple[str, ...], **masks: Any) -> None:
    L, lengths = 40, np.asarray([40, 13])
    given = case.inputs(L, lengths=lengths, **masks)
    given["u"] = np.where((np.arange(L) >= lengths[:, None])[..., None], np.nan, given["u"])
    v = as_arrays(backend, dtype, given)

    if backend.compiles:  # a second for each: without `auto`, which is one of the others
        modes = tuple(m for m in modes if m != "auto") or modes

    def run(v: SimpleNamespace) -> Any:
        options = {"state": case.state_in(v), "return_state": True, "lengths": v.lengths, "reset": v.reset}
        found = [case.layer.apply(case.params_of(v), v.u, mode=mode, **options) for mode in modes]
        return [(y[:, :13, :], state) for y, state in found]

    y, state = case.truth(rounded(backend, v))
    for found in backend.run(run, v):
        case.check(found, (y[:, :13], state), L, backend, dtype)


@one_of_each
@pytest.mark.dtypes("float32")
def test_left_padding(case: Instance, backend: Backend, dtype: str):
    """A reset at the first valid step: the same as the sequence without what stands before."""
    L, first = 20, 13
    v = case.arrays(backend, dtype, L, reset=np.arange(L) == np.asarray([[0], [first]]))

    def run(v: SimpleNamespace) -> Any:
        options = {"return_state": True, "reset": v.reset, "state": case.state_in(v)}
        y, state = case.layer.apply(case.params_of(v), v.u, **options)
        return y[1:, first:, :], case.cases.joined(tuple(s[1:, ...] for s in case.cases.parts(state)))

    values = rounded(backend, v)
    values.u, values.reset = values.u[1:, first:], None
    case.check(backend.run(run, v), case.truth(values, state=None), L, backend, dtype)


@pytest.mark.cases(tuple(one for cases in layers.TIME_INVARIANT for one in cases.in_both_directions))
def test_both_directions_are_a_direct_sum(case: Instance, backend: Backend, dtype: str):
    """With and without lengths."""
    layer, lengths = case.layer, np.asarray([23, 9])
    given = case.parameters() | {"u": Draw(2).real(BATCH, 23, H), "lengths": lengths}
    v = as_arrays(backend, dtype, given)
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        params = case.params_of(v)
        return layer.apply(params, v.u), layer.apply(params, v.u, lengths=v.lengths)[:, :9, :]

    params, options = case.params_of(values), layer.options()
    system, joint = case.cases.truth(options, params), case.cases.joint
    arguments = (system, options, params, values.u)
    whole, cut = (truth.both_directions(*arguments, n, joint=joint) for n in (None, lengths))
    for found, wanted in zip(backend.run(run, v), (whole, cut[:, :9]), strict=True):
        assert_close(found, wanted, backend, dtype, function=case.function, terms=case.cases.terms * 23)


@pytest.mark.cases(layers.INSTANCES)
@pytest.mark.dtypes("float32")
@pytest.mark.backends("numpy", "strictest", "torch", "cupy", "other")
def test_nothing_at_all(case: Instance, backend: Backend, dtype: str):
    """A batch of none, and sequences of no steps: no outputs, and the state stays."""
    nothing_at_all(case, backend, dtype)


@pytest.mark.cases(STANDING[:1])
@pytest.mark.backends("jax")
@pytest.mark.dtypes("float64")
def test_nothing_at_all_compiled(case: Instance, backend: Backend, dtype: str):
    nothing_at_all(case, backend, dtype)


def nothing_at_all(case: Instance, backend: Backend, dtype: str) -> None:
    v, layer, cases = case.arrays(backend, dtype, 0), case.layer, case.cases
    params, state, width = case.params_of(v), case.state_in(v), cases.steps(layer.options(), case.parameters()).width
    for mode in case.modes:
        y, last = layer.apply(params, v.u, state=state, return_state=True, mode=mode)
        kept = cases.joined(tuple(backend.to_numpy(s) for s in cases.parts(state)))
        case.check((y, last), (np.zeros((BATCH, 0, width)), kept), 1, backend, dtype)
        none = layer.initial_state(params, 0)
        empty = cases.joined(tuple(backend.to_numpy(s) for s in cases.parts(none)))
        u = v.xp.ones((0, 20, H), dtype=v.u.dtype, device=v.device)
        found = layer.apply(params, u, state=none, return_state=True, mode=mode)
        case.check(found, (np.zeros((0, 20, width)), empty), 1, backend, dtype)


# Steps in time -------------------------------------------------------------------------------------------------------


@pytest.mark.cases(TIMED)
def test_rate_is_a_longer_step(case: Instance, backend: Backend, dtype: str):
    """As an array, for outputs and steps; one for every channel where each has a system of its own."""
    rates = np.asarray([0.5, 1.0, 2.0, 3.0]) if case.rate_is_of_channels else np.asarray(1.7)
    v = case.arrays(backend, dtype, 20, rates=rates)

    def run(v: SimpleNamespace) -> Any:
        params, state = case.params_of(v), case.state_in(v)
        first = case.layer.step(params, v.u[:, 0, :], state, rate=v.rates)
        return first, case.layer.apply(params, v.u, state=state, return_state=True, rate=v.rates)

    (y_t, after), whole = backend.run(run, v)
    values = rounded(backend, v)
    case.check(whole, case.truth(values, rate=values.rates), 20, backend, dtype)
    values.u = values.u[:, :1]
    wanted, last = case.truth(values, rate=values.rates)
    case.check((y_t, after), (wanted[:, 0], last), 20, backend, dtype)


@pytest.mark.cases(tuple(i for i in TIMED if i.cases in layers.TIME_INVARIANT))
def test_kernels_at_a_rate(case: Instance, backend: Backend, dtype: str):
    """The answers to impulses, of a system a channel or of one of several inputs."""
    layer = case.layer
    rates = np.asarray([0.5, 1.0, 2.0, 3.0]) if layer.per_channel else np.asarray(2.0)
    v = case.arrays(backend, dtype, 9, rates=rates)
    K = backend.run(lambda v: layer.kernel(case.params_of(v), 9, rate=v.rates), v)
    values = rounded(backend, v)
    options, params = layer.options(), case.params_of(values)
    system = case.cases.truth(options, params)
    if layer.per_channel:
        wanted = truth.kernel(system, H, 9, values.rates)
    else:
        impulses = np.zeros((H, 9, H))  # one in every input, through a layer that only runs its system
        impulses[:, 0] = np.eye(H)
        bare = options | {"skip": False, "activation": None, "output": None}
        answers, _ = truth.run(truth.steps_of(system, bare, params), impulses, rate=float(values.rates))
        wanted = np.transpose(answers, (2, 0, 1))
    assert_close(K, wanted, backend, dtype, function=case.function, terms=case.cases.terms * 20)


# Precisions and devices ----------------------------------------------------------------------------------------------


@one_of_each
@pytest.mark.dtypes(*HALF)
def test_half_precision_inputs(case: Instance, backend: Backend, dtype: str):
    """The outputs come back in half precision, the states stay in float32; steps as well."""
    half_precision(case, backend, dtype)


@pytest.mark.cases(STANDING)
@pytest.mark.dtypes("float32", *HALF)
def test_half_precision_parameters(case: Instance, backend: Backend, dtype: str):
    half_precision(case, backend, dtype, *(p.name for p in case.layer.parameters()))


def half_precision(case: Instance, backend: Backend, dtype: str, *names: str) -> None:
    L, given = 30, case.inputs(30)
    v = as_arrays(backend, "float32", given)
    for name in ("u", *names):
        setattr(v, name, backend.asarray(given[name], dtype))

    def run(v: SimpleNamespace) -> Any:
        params, state = case.params_of(v), case.state_in(v)
        whole = case.layer.apply(params, v.u, state=state, return_state=True)
        return whole, case.layer.step(params, v.u[:, 0, :], state)

    whole, first = backend.run(run, v)
    values = rounded(backend, v)
    terms = case.cases.terms * L
    wanted = case.truth(values)
    values.u = values.u[:, :1]
    y, last = case.truth(values)
    for (found_y, found_state), (wanted_y, wanted_state) in ((whole, wanted), (first, (y[:, 0], last))):
        assert_close(found_y, wanted_y, backend, dtype, function=case.function, terms=terms, half=True)
        case.check_state(found_state, wanted_state, backend, dtype, allowed=tolerance("float32", terms=terms))


@pytest.mark.cases((*layers.SMALL, *models.ALL))
@pytest.mark.backends("strictest")
@pytest.mark.dtypes("float64")
def test_stays_on_a_device_that_is_not_the_default(case: Case, backend: Backend, dtype: str):
    elsewhere = other_device(backend)
    arrays, values = case.inputs(elsewhere, dtype)
    for actual, wanted in zip(case.results(elsewhere, arrays), case.expected(values), strict=True):
        assert_close(actual, wanted, elsewhere, dtype, function=case.function, terms=case.terms)
