"""The layers: every option against plain loops, every mode and any cut of the sequence the same function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.layers import S4D
from ssm_core.models import SequenceModel

from . import cases_of_layers, truth_family, truth_layers, truth_mamba
from .backends import HALF, Backend
from .cases_of_layers import STEPS, parameters, params_of, state_of
from .examples import Draw, as_arrays, rounded
from .plans import RESTARTING, Plan, explore
from .tolerances import assert_close, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

H, BATCH = 4, 2
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "real": {"real": True, "init": "real"},
    "copies_channels": {"n_ssm": 2, "channels": 3},
    "one_copy_real_channels": {"n_ssm": 1, "channels": 2, "real": True, "init": "real", "output": "linear"},
    "fixed_B_legs": {"trainable_B": False, "init": "legs", "activation": "silu"},
    "bare": {"activation": None, "output": None, "skip": False},
    "bilinear_tanh": {"discretization": "bilinear", "activation": "tanh", "init": "inv"},
    "euler_relu": {"discretization": "euler", "activation": "relu", "output": None},
    "backward_euler": {"discretization": "backward_euler", "activation": "gelu_tanh", "init": "quad"},
    "dirac": {"discretization": "dirac", "init": "inv2"},
}
each_layer = pytest.mark.parametrize("name", OPTIONS)


def layer_of(name: str, **more: Any) -> S4D:
    return S4D(d_model=H, d_state=6, **STEPS | OPTIONS[name] | more)


def inputs(layer: S4D, length: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    d = Draw(seed)
    given = {"u": d.real(BATCH, length, H), "state": state_of(layer, BATCH, d), "reset": None, "scale": None}
    return parameters(layer) | given | more


def run_pieces(layer: S4D, v: SimpleNamespace, plan: Plan, rate: float) -> Any:
    params, state, outputs, start = params_of(v, layer), v.state, [], 0
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


def check_pieces(layer: S4D, plan: Plan, backend: Backend, dtype: str, rate: float = 1.0, **more: Any) -> None:
    v = as_arrays(backend, dtype, inputs(layer, plan.length, plan.seed, **more))
    values = rounded(backend, v)
    found = backend.run(lambda v: run_pieces(layer, v, plan, rate), v)
    wanted = truth_layers.s4d(
        layer.options(), params_of(values, layer), values.u, values.state, reset=values.reset, rate=rate,
        step_scale=values.scale,
    )  # fmt: skip
    for actual, expected in zip(found, wanted, strict=True):
        assert_close(actual, expected, backend, dtype, function="layers.S4D", terms=32 * plan.length)


@each_layer
def test_any_cut_in_any_modes(name: str, backend: Backend, dtype: str):
    rate = 0.7 if name in ("default", "bilinear_tanh") else 1.0
    explore(backend, 4, lambda plan: check_pieces(layer_of(name), plan, backend, dtype, rate))


@pytest.mark.parametrize("name", ["default", "copies_channels", "real"])
def test_any_cut_with_resets(name: str, backend: Backend, dtype: str):
    def body(plan: Plan) -> None:
        reset = Draw(plan.seed + 1).resets(BATCH, plan.length)
        check_pieces(layer_of(name), plan, backend, dtype, reset=reset)

    explore(backend, 4, body, RESTARTING)


@pytest.mark.parametrize("name", ["default", "copies_channels", "dirac"])
@pytest.mark.dtypes("float64")
def test_any_cut_with_steps_of_their_own_lengths(name: str, backend: Backend, dtype: str):
    def body(plan: Plan) -> None:
        scale = Draw(plan.seed + 1).uniform(0.2, 3, BATCH, plan.length)
        check_pieces(layer_of(name), plan, backend, dtype, rate=1.5, scale=scale)

    explore(backend, 4, body, RESTARTING)


@pytest.mark.parametrize("mode", ["conv", "chunk", "scan"])
@pytest.mark.parametrize("name", ["default", "copies_channels"])
def test_lengths(name: str, mode: str, backend: Backend, dtype: str):
    layer, lengths, L = layer_of(name), np.asarray([40, 13]), 40
    v = as_arrays(backend, dtype, inputs(layer, L, lengths=lengths))
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        options = {"lengths": v.lengths, "mode": mode, "return_state": True, "state": v.state}
        y, state = layer.apply(params_of(v, layer), v.u, **options)
        return y[:, :13, :], state

    y, state = truth_layers.s4d(layer.options(), params_of(values, layer), values.u, values.state, lengths=lengths)
    for actual, expected in zip(backend.run(run, v), (y[:, :13], state), strict=True):
        assert_close(actual, expected, backend, dtype, function="layers.S4D", terms=32 * L)


@pytest.mark.parametrize("lengths", [None, np.asarray([23, 9])], ids=["full", "lengths"])
@pytest.mark.parametrize("name", ["default", "copies_channels", "real", "bare"])
def test_both_directions_are_a_direct_sum(name: str, lengths: Any, backend: Backend, dtype: str):
    layer = layer_of(name, bidirectional=True)
    d = Draw(2)
    v = as_arrays(backend, dtype, parameters(layer) | {"u": d.real(BATCH, 23, H), "lengths": lengths})
    values = rounded(backend, v)
    y = backend.run(lambda v: layer.apply(params_of(v, layer), v.u, lengths=v.lengths)[:, :9, :], v)
    wanted = truth_layers.s4d_bidirectional(layer.options(), params_of(values, layer), values.u, values.lengths)
    assert_close(y, wanted[:, :9], backend, dtype, function="layers.S4D", terms=32 * 23)


def test_rate_is_a_longer_step(backend: Backend, dtype: str):
    """As a number or an array, for outputs, kernels and steps: the same as log_dt + log(rate)."""
    layer = layer_of("default")
    v = as_arrays(backend, dtype, inputs(layer, 20) | {"rates": np.asarray([0.5, 1.0, 2.0, 3.0])})

    def run(v: SimpleNamespace) -> list[tuple[Any, Any]]:
        params = params_of(v, layer)
        slower = params | {"log_dt": params["log_dt"] + v.xp.log(v.rates)}
        wanted, state = layer.apply(slower, v.u, return_state=True, state=v.state)
        found, last = layer.apply(params, v.u, return_state=True, state=v.state, rate=v.rates)
        first, _ = layer.step(params, v.u[:, 0, :], v.state, rate=v.rates)
        kernels = layer.kernel(params, 9, rate=v.rates), layer.kernel(slower, 9)
        return [(found, wanted), (last, state), (first, wanted[:, 0, :]), kernels]

    for actual, expected in backend.run(run, v):
        assert_close(actual, backend.to_numpy(expected), backend, dtype, function="layers.S4D", terms=20 * 32)


@pytest.mark.dtypes("float32", *HALF)
def test_half_precision_inputs(backend: Backend, dtype: str):
    """With parameters in float32, or in half precision themselves; outputs come back, states stay in float32."""
    layer = layer_of("default")
    for halves in ((), tuple(p.name for p in layer.parameters())):
        given = inputs(layer, 40)
        v = as_arrays(backend, "float32", given)
        for name in ("u", *halves):
            setattr(v, name, backend.asarray(given[name], dtype))
        values = rounded(backend, v)

        def run(v: SimpleNamespace) -> Any:
            return layer.apply(params_of(v, layer), v.u, state=v.state, return_state=True)

        y, state = backend.run(run, v)
        wanted, last = truth_layers.s4d(layer.options(), params_of(values, layer), values.u, values.state)
        assert_close(y, wanted, backend, dtype, function="layers.S4D", terms=32 * 40, half=True)
        assert_close(state, last, backend, dtype, function="layers.S4D", allowed=tolerance("float32", terms=32 * 40))


# The model -----------------------------------------------------------------------------------------------------------

MODEL = {"d_input": 3, "d_output": 2, "d_model": H, "n_layers": 2, "layer_options": {"d_state": 6, **STEPS}}


@pytest.mark.parametrize("pool", ["mean", "last", None])
@pytest.mark.parametrize("lengths", [None, np.asarray([30, 11])], ids=["full", "lengths"])
def test_sequence_model(pool: str | None, lengths: Any, backend: Backend, dtype: str):
    model, d = SequenceModel(**MODEL, pool=pool), Draw(3)
    v = as_arrays(backend, dtype, parameters(model) | {"u": d.real(BATCH, 30, 3), "lengths": lengths})
    values = rounded(backend, v)
    y = backend.run(lambda v: model.apply(params_of(v, model), v.u, lengths=v.lengths), v)
    block = model.block().options()
    wanted = truth_layers.sequence_model(model.options(), block, params_of(values, model), values.u, lengths)
    within = slice(None) if pool or lengths is None else slice(11)
    assert_close(y[:, within, ...] if pool is None else y, wanted[:, within] if pool is None else wanted,
                 backend, dtype, function="models.SequenceModel", terms=64 * 30)  # fmt: skip


@pytest.mark.parametrize("pool", ["mean", "last", None])
def test_sequence_model_in_pieces_and_steps(pool: str | None, backend: Backend, dtype: str):
    """Its state goes through the blocks and the pool: pieces, then steps, end where the whole sequence does."""
    model, d = SequenceModel(**MODEL, pool=pool), Draw(4)
    v = as_arrays(backend, dtype, parameters(model) | {"u": d.real(BATCH, 12, 3)})
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        params = params_of(v, model)
        _, state = model.apply(params, v.u[:, :5, :], return_state=True, mode="scan")
        _, state = model.apply(params, v.u[:, 5:9, :], state=state, return_state=True, mode="conv")
        step = model.stepper(params)
        for k in range(9, 12):
            y, state = step(v.u[:, k, :], state)
        return y

    block = model.block().options()
    wanted = truth_layers.sequence_model(model.options(), block, params_of(values, model), values.u)
    wanted = wanted[:, -1] if pool is None else wanted
    assert_close(backend.run(run, v), wanted, backend, dtype, function="models.SequenceModel", terms=64 * 12)


def test_every_layer_is_here():
    tested = {"S4D", "SequenceModel", "LanguageModel"} | set(truth_family.SYSTEMS)
    tested |= set(truth_mamba.LAYERS) | {f"{name}LM" for name in truth_mamba.LAYERS}
    assert set(ssm_core.layers.LAYERS) == tested, "a new layer needs its tests"
    assert {case.function for case in cases_of_layers.ALL} == {f"layers.{name}" for name in tested}
