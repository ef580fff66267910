"""Mamba, Mamba-2 and Mamba-3: every option against plain loops, every mode and any cut of a sequence one function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssm_core import layers
from ssm_core.models import Mamba2LM, Mamba3LM, MambaLM, SequenceModel

from . import autodiff, cases_of_layers, truth_mamba
from .backends import HALF, Backend, other_device
from .cases import Case
from .cases_of_layers import STEPS, language_parameters, parameters, params_of, state_in, states_of
from .examples import Draw, as_arrays, rounded
from .plans import Plan, explore
from .tolerances import assert_close, compare, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

H, BATCH = 4, 2
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("Mamba", {"d_state": 3}),
    "Mamba_zoh_norms_biases": (
        "Mamba", {"d_state": 4, "d_conv": 2, "expand": 1, "dt_rank": 3, "bias": True, "norm_epsilon": 1e-3,
                  "discretization": "zoh"}
    ),
    "Mamba_one_tap": ("Mamba", {"d_state": 2, "d_conv": 1, "expand": 3, "conv_bias": False}),
    "Mamba2": ("Mamba2", {"d_state": 3, "head_dim": 4}),
    "Mamba2_groups_biases_limits": (
        "Mamba2", {"d_state": 5, "head_dim": 2, "n_groups": 2, "d_conv": 3, "bias": True, "dt_limit": (0.1, 0.6),
                   "epsilon": 1e-2, "chunk": 7}
    ),
    "Mamba2_one_tap": ("Mamba2", {"d_state": 2, "head_dim": 1, "n_groups": 4, "d_conv": 1, "conv_bias": False,
                                  "expand": 1, "A_min": 0.1, "A_max": 0.5}),
    "Mamba3": ("Mamba3", {"d_state": 4, "head_dim": 4}),
    "Mamba3_groups_all_turn": (
        "Mamba3", {"d_state": 5, "head_dim": 2, "n_groups": 2, "rope_fraction": 1.0, "A_floor": 0.5, "chunk": 7}
    ),
    "Mamba3_none_turns": ("Mamba3", {"d_state": 3, "head_dim": 1, "rope_fraction": 0.0, "out_norm": True, "expand": 1}),
    "Mamba3_rank_norm": (
        "Mamba3", {"d_state": 6, "head_dim": 2, "n_groups": 2, "rank": 2, "out_norm": True, "epsilon": 1e-2}
    ),
    "Mamba3_rank": ("Mamba3", {"d_state": 4, "head_dim": 4, "rank": 3, "rope_fraction": 0.8, "chunk": 20}),
}  # fmt: skip
ONE_OF_EACH = ("Mamba", "Mamba2_groups_biases_limits", "Mamba3_rank_norm")
each_layer = pytest.mark.parametrize("name", LAYERS)
one_of_each = pytest.mark.parametrize("name", ONE_OF_EACH)


def layer_of(name: str) -> Any:
    kind, options = LAYERS[name]
    return layers.make(kind, {"d_model": H, **STEPS, **options})


def inputs(layer: Any, length: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    d = Draw(seed)
    given = {"u": d.real(BATCH, length, H), "reset": None, "scale": None, "lengths": None}
    return parameters(layer) | given | states_of(layer, BATCH, d) | more


def truth_of(layer: Any, v: SimpleNamespace, **more: Any) -> Any:
    options = {"reset": v.reset, "lengths": v.lengths, "step_scale": v.scale} | more
    state = options.pop("state", state_in(v, layer))
    return truth_mamba.run(layer.name, layer.options(), params_of(v, layer), v.u, state, **options)


def check(layer: Any, found: Any, wanted: Any, length: int, backend: Backend, dtype: str, **more: Any) -> None:
    """(y, state) of an array library and of the truth; angles differ by full turns."""
    options = {"function": f"layers.{layer.name}", "terms": 64 * length, **more}
    assert_close(found[0], wanted[0], backend, dtype, half=True, **options)
    states = zip(layer.state_shapes(1), found[1], wanted[1], strict=True)
    states_dtype = "float32" if dtype in HALF else dtype
    for name, actual, expected in states:
        for f, g in (("cos", np.cos), ("sin", np.sin)) if name == "angles" else ((None, None),):
            actual_, expected_ = (getattr(backend.xp, f)(actual), g(expected)) if f else (actual, expected)
            assert_close(actual_, expected_, backend, states_dtype, **options)


def run_pieces(layer: Any, v: SimpleNamespace, plan: Plan, rate: float) -> Any:
    params, state, outputs, start = params_of(v, layer), state_in(v, layer), [], 0
    step = layer.stepper(params, rate=rate)
    for length, mode in plan.pieces:
        part = (slice(None), slice(start, start + length))
        start += length
        if mode == "step":
            for k in range(start - length, start):
                y, state = step(v.u[:, k, :], state)
                outputs.append(y[:, None, :])
            continue
        options = {"reset": v.reset[part]} if v.reset is not None else {}
        options |= {"step_scale": v.scale[part]} if v.scale is not None else {}
        u = v.u[(*part, slice(None))]
        y, state = layer.apply(params, u, state=state, return_state=True, mode=mode, rate=rate, **options)
        outputs.append(y)
    return v.xp.concat(outputs, axis=1), state


def cut_anywhere(name: str, examples: int, stepped: bool, backend: Backend, dtype: str) -> None:
    """In steps too, or with resets and steps of their own lengths."""
    layer = layer_of(name)

    def body(plan: Plan) -> None:
        d = Draw(plan.seed + 1)
        resets, scale = d.resets(BATCH, plan.length), d.uniform(0.2, 2, BATCH, plan.length)
        more = {} if stepped else {"reset": resets, "scale": scale}
        v = as_arrays(backend, dtype, inputs(layer, plan.length, plan.seed, **more))
        found = backend.run(lambda v: run_pieces(layer, v, plan, 0.7), v)
        check(layer, found, truth_of(layer, rounded(backend, v), rate=0.7), plan.length, backend, dtype)

    explore(backend, examples, body, (*layer.modes, "step") if stepped else layer.modes)


@each_layer
@pytest.mark.backends("numpy", "array_api_strict", "torch", "cupy", "other")
def test_any_cut_in_any_modes(name: str, backend: Backend, dtype: str):
    cut_anywhere(name, 3, True, backend, dtype)


@one_of_each
@pytest.mark.backends("jax")
@pytest.mark.dtypes("float32")
def test_any_cut_in_any_modes_compiled(name: str, backend: Backend, dtype: str):
    cut_anywhere(name, 1, True, backend, dtype)


@one_of_each
@pytest.mark.dtypes("float32")
def test_any_cut_with_resets_and_steps_of_their_own_lengths(name: str, backend: Backend, dtype: str):
    cut_anywhere(name, 2, False, backend, dtype)


@one_of_each
@pytest.mark.dtypes("float32")
def test_right_padding_in_every_mode(name: str, backend: Backend, dtype: str):
    """The state is that at the length, resets beyond it notwithstanding, and what stands there may be NaN."""
    layer, L, lengths = layer_of(name), 20, np.asarray([20, 7])
    beyond = np.arange(L) >= lengths[:, None]
    given = inputs(layer, L, lengths=lengths, reset=Draw(1).resets(BATCH, L))
    given["u"] = np.where(beyond[..., None], np.nan, given["u"])
    v = as_arrays(backend, dtype, given)

    def run(v: SimpleNamespace) -> Any:
        options = {"state": state_in(v, layer), "return_state": True, "lengths": v.lengths, "reset": v.reset}
        found = [layer.apply(params_of(v, layer), v.u, mode=mode, **options) for mode in layer.modes[1:]]
        return [(y[:, :7, :], state) for y, state in found]

    y, state = truth_of(layer, rounded(backend, v))
    for found in backend.run(run, v):
        check(layer, found, (y[:, :7], state), L, backend, dtype)


@one_of_each
@pytest.mark.dtypes("float32")
def test_left_padding(name: str, backend: Backend, dtype: str):
    """A reset at the first valid step: the same as the sequence without what stands before."""
    layer, L, first = layer_of(name), 20, 13
    reset = np.arange(L) == np.asarray([[0], [first]])
    v = as_arrays(backend, dtype, inputs(layer, L, reset=reset))

    def run(v: SimpleNamespace) -> Any:
        options = {"return_state": True, "reset": v.reset, "state": state_in(v, layer)}
        y, state = layer.apply(params_of(v, layer), v.u, **options)
        return y[1:, first:, :], tuple(s[1:, ...] for s in state)

    values = rounded(backend, v)
    values.u, values.reset = values.u[1:, first:], None
    check(layer, backend.run(run, v), truth_of(layer, values, state=None), L, backend, dtype)


ENDS = np.asarray([0, 3, 3, 20, 31])  # the second sequence is empty


def packed_inputs(layer: Any, backend: Backend, dtype: str) -> SimpleNamespace:
    d, n = Draw(5), len(ENDS) - 1
    given = {"u": d.real(1, ENDS[-1], H), "scale": d.uniform(0.5, 2, 1, ENDS[-1])} | states_of(layer, n, d)
    return as_arrays(backend, dtype, parameters(layer) | given | {"ends": ENDS})


@one_of_each
@pytest.mark.dtypes("float32")
def test_packed_sequences_are_sequences(name: str, backend: Backend, dtype: str):
    """Without states, where the ends may be traced, and with states, where they are known."""
    layer = layer_of(name)
    v = packed_inputs(layer, backend, dtype)
    ends, values = v.ends, rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        params, options = params_of(v, layer), {"step_scale": v.scale, "rate": 0.5}
        with_states = {"state": state_in(v, layer), "return_state": True, "cu_seqlens": ends}
        return layer.apply(params, v.u, cu_seqlens=v.ends, **options), layer.apply(
            params, v.u, **with_states, **options
        )

    plain, (y, state) = backend.run(run, v)
    arguments = (layer.name, layer.options(), params_of(values, layer), values.u, ENDS)
    options = {"step_scale": values.scale, "rate": 0.5}
    wanted = truth_mamba.packed(*arguments, state_in(values, layer), **options)
    check(layer, (y, state), wanted, ENDS[-1], backend, dtype)
    fresh, _ = truth_mamba.packed(*arguments, **options)
    assert_close(plain, fresh, backend, dtype, function=f"layers.{layer.name}", terms=64 * ENDS[-1])


@one_of_each
@pytest.mark.backends("torch")
@pytest.mark.dtypes("float64")
def test_gradients_of_packed_sequences(name: str, backend: Backend, dtype: str):
    check_gradients_of_packed_sequences(name, backend, dtype)


@pytest.mark.backends("jax")
@pytest.mark.dtypes("float64")
def test_gradients_of_packed_sequences_compiled(backend: Backend, dtype: str):
    check_gradients_of_packed_sequences("Mamba", backend, dtype)


def check_gradients_of_packed_sequences(name: str, backend: Backend, dtype: str) -> None:
    """Of outputs and last states, with respect to parameters, inputs and first states, are those of padded sequences,
    whose padding is NaN."""
    layer, xp = layer_of(name), backend.xp
    v = packed_inputs(layer, backend, dtype)
    leaves = {n: x for n, x in vars(v).items() if n not in ("xp", "device", "ends", "scale")}
    ends, n, longest = v.ends, len(ENDS) - 1, max(np.diff(ENDS))
    lengths = backend.asarray(np.diff(ENDS))

    def loss(y: Any, state: Any) -> Any:
        return xp.sum(xp.sin(y)) + sum(xp.sum(xp.sin(s) ** 2) for s in state)

    def of_packed(given: dict[str, Any]) -> Any:
        w = SimpleNamespace(**given)
        options = {"state": state_in(w, layer), "return_state": True}
        return loss(*layer.apply(params_of(w, layer), w.u, cu_seqlens=ends, **options))

    def of_padded(given: dict[str, Any]) -> Any:
        w = SimpleNamespace(**given)
        rows = [w.u[0, ENDS[i] : ENDS[i + 1], :] for i in range(n)]
        beyond = [xp.zeros((longest - len(row), H), dtype=row.dtype) + float("nan") for row in rows]
        u = xp.stack([xp.concat([row, rest]) for row, rest in zip(rows, beyond, strict=True)])
        options = {"state": state_in(w, layer), "return_state": True, "lengths": lengths}
        y, state = layer.apply(params_of(w, layer), u, **options)
        y = [y[i, : ENDS[i + 1] - ENDS[i], :] for i in range(n)]
        return loss(xp.concat(y), state)

    found, wanted = (autodiff.gradient(backend, f, leaves) for f in (of_packed, of_padded))
    scale = max(np.abs(backend.to_numpy(g)).max(initial=0) for g in wanted.values())
    for leaf, gradient in found.items():
        actual, expected = backend.to_numpy(gradient), backend.to_numpy(wanted[leaf])
        compare(actual, expected, backend, dtype, function=f"layers.{layer.name}", terms=64 * 31, scale=scale)


@one_of_each
@pytest.mark.dtypes("float32")
def test_rate_may_be_an_array(name: str, backend: Backend, dtype: str):
    """For whole sequences and for steps."""
    layer = layer_of(name)
    v = as_arrays(backend, dtype, inputs(layer, 9, rate=np.asarray(1.7)))

    def run(v: SimpleNamespace) -> Any:
        params, state = params_of(v, layer), state_in(v, layer)
        first = layer.step(params, v.u[:, 0, :], state, rate=v.rate)
        return first, layer.apply(params, v.u, state=state, return_state=True, rate=v.rate)

    (y_t, after), (y, state) = backend.run(run, v)
    values = rounded(backend, v)
    check(layer, (y, state), truth_of(layer, values, rate=float(values.rate)), 9, backend, dtype)
    values.u = values.u[:, :1]
    wanted, last = truth_of(layer, values, rate=float(values.rate))
    check(layer, (y_t, after), (wanted[:, 0], last), 9, backend, dtype)


@one_of_each
@pytest.mark.dtypes(*HALF)
def test_half_precision_inputs(name: str, backend: Backend, dtype: str):
    """The outputs come back in half precision, the states stay in float32; steps as well."""
    layer = layer_of(name)
    given = inputs(layer, 12)
    v = as_arrays(backend, "float32", given)
    v.u = backend.asarray(given["u"], dtype)

    def run(v: SimpleNamespace) -> Any:
        params, state = params_of(v, layer), state_in(v, layer)
        return layer.apply(params, v.u, state=state, return_state=True), layer.step(params, v.u[:, 0, :], state)

    whole, first = backend.run(run, v)
    values = rounded(backend, v)
    check(layer, whole, truth_of(layer, values), 12, backend, dtype, allowed=tolerance(dtype, terms=64 * 12))
    values.u = values.u[:, :1]
    y, last = truth_of(layer, values)
    check(layer, first, (y[:, 0], last), 12, backend, dtype, allowed=tolerance(dtype, terms=64 * 12))


@each_layer
@pytest.mark.dtypes("float32")
@pytest.mark.backends("numpy", "array_api_strict", "strictest", "torch", "cupy", "other")
def test_nothing_at_all(name: str, backend: Backend, dtype: str):
    """A batch of none, and sequences of no steps: no outputs, and the state stays."""
    layer = layer_of(name)
    v = as_arrays(backend, dtype, inputs(layer, 0))
    params, state = params_of(v, layer), state_in(v, layer)
    for mode in layer.modes:
        y, last = layer.apply(params, v.u, state=state, return_state=True, mode=mode)
        wanted = np.zeros((BATCH, 0, H)), tuple(backend.to_numpy(s) for s in state)
        check(layer, (y, last), wanted, 1, backend, dtype)
        none = layer.initial_state(params, 0)
        y, last = layer.apply(params, v.xp.ones((0, 5, H), dtype=v.u.dtype), state=none, return_state=True, mode=mode)
        check(layer, (y, last), (np.zeros((0, 5, H)), tuple(np.zeros(s.shape) for s in none)), 1, backend, dtype)


@pytest.mark.cases((*cases_of_layers.GATED, *cases_of_layers.LANGUAGE))
@pytest.mark.backends("strictest")
@pytest.mark.dtypes("float64")
def test_stays_on_a_device_that_is_not_the_default(case: Case, backend: Backend, dtype: str):
    elsewhere = other_device(backend)
    arrays, values = case.inputs(elsewhere, dtype)
    for actual, wanted in zip(case.results(elsewhere, arrays), case.expected(values), strict=True):
        assert_close(actual, wanted, elsewhere, dtype, function=case.function, terms=case.terms)


@one_of_each
@pytest.mark.backends("strictest")
@pytest.mark.dtypes("float64")
def test_packed_sequences_stay_there_too(name: str, backend: Backend, dtype: str):
    layer = layer_of(name)
    v = packed_inputs(layer, other_device(backend), dtype)
    y, state = layer.apply(params_of(v, layer), v.u, cu_seqlens=v.ends, return_state=True)
    assert {x.device for x in (y, *state)} == {v.device}


# Models --------------------------------------------------------------------------------------------------------------

BLOCKS: dict[str, dict[str, Any]] = {
    "Mamba": {"d_state": 3, **STEPS}, "Mamba2": {"d_state": 3, "head_dim": 4, **STEPS},
    "Mamba3": {"d_state": 4, "head_dim": 4, **STEPS},
}  # fmt: skip


@pytest.mark.parametrize("cls", [MambaLM, Mamba2LM, Mamba3LM], ids=lambda cls: cls.__name__)
@pytest.mark.dtypes("float32")
def test_language_models(cls: Any, backend: Backend, dtype: str):
    """Logits and the states of all blocks, of prompts at once and one token on."""
    model = cls(7, H, 2, BLOCKS[cls.layer], tied=cls is not Mamba2LM)
    d, lengths = Draw(6), np.asarray([9, 4])
    given = {"ids": d.generator.integers(0, 7, (BATCH, 9)), "next": np.asarray([3, 1]), "lengths": lengths}
    v = as_arrays(backend, dtype, language_parameters(model) | given)

    def run(v: SimpleNamespace) -> Any:
        params = params_of(v, model)
        y, state = model.apply(params, v.ids, lengths=v.lengths, return_state=True)
        return y[:, :4, :], state, model.step(params, v.next, state)[0]

    y, state, following = backend.run(run, v)
    values, block = rounded(backend, v), model.block()
    arguments = (cls.layer, model.options(), block.options(), params_of(values, model))
    wanted, last = truth_mamba.language_model(*arguments, values.ids, lengths=values.lengths)
    options = {"function": f"layers.{cls.__name__}", "terms": 64 * 9}
    assert_close(y, wanted[:, :4], backend, dtype, **options)
    for i, found in enumerate(state):
        for actual, expected in zip(found[1:], last[i][1:], strict=True):
            assert_close(actual, expected, backend, dtype, **options)
    for i, n in enumerate(lengths):
        ids = np.concatenate([values.ids[i, :n], values.next[i : i + 1]])[None]
        expected = truth_mamba.language_model(*arguments, ids)[0][0, -1]
        assert_close(following[i, :], expected, backend, dtype, **options)


@pytest.mark.parametrize(("layer", "pool"), [("Mamba", "mean"), ("Mamba2", "last"), ("Mamba3", None)])
@pytest.mark.dtypes("float32")
def test_sequence_models_in_pieces_and_steps(layer: str, pool: str | None, backend: Backend, dtype: str):
    """Lengths, and a state that goes through the blocks and the pool."""
    model = SequenceModel(3, 2, H, 1, layer, BLOCKS[layer], pool=pool)
    d, lengths = Draw(4), np.asarray([12, 5])
    v = as_arrays(backend, dtype, parameters(model) | {"u": d.real(BATCH, 12, 3), "lengths": lengths})
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        params = params_of(v, model)
        ends = model.apply(params, v.u, lengths=v.lengths)
        _, state = model.apply(params, v.u[:, :6, :], return_state=True, mode="scan")
        _, state = model.apply(params, v.u[:, 6:10, :], state=state, return_state=True)
        step = model.stepper(params)
        for k in range(10, 12):
            y, state = step(v.u[:, k, :], state)
        return ends if pool else ends[:, :5, :], y

    arguments = (model.options(), model.block().options(), params_of(values, model), values.u)
    ends, wanted = truth_mamba.sequence_model(*arguments, lengths), truth_mamba.sequence_model(*arguments)
    expected = (ends, wanted) if pool else (ends[:, :5], wanted[:, -1])
    for actual, wanted in zip(backend.run(run, v), expected, strict=True):
        assert_close(actual, wanted, backend, dtype, function="models.SequenceModel", terms=64 * 12)


def test_all_of_the_family_are_here():
    assert {kind for kind, _ in LAYERS.values()} == set(truth_mamba.LAYERS) == set(BLOCKS)
    assert {LAYERS[name][0] for name in ONE_OF_EACH} == set(BLOCKS)
