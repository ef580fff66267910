"""What every layer promises before it runs: names, first values, options that make it again, weights that come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.models import SequenceModel

from .cases.instance import BATCH, H, Instance
from .cases.layers import INSTANCES, LAYERS, STREAMING, WHOLE
from .examples import Draw

each_layer = pytest.mark.parametrize("name", LAYERS)
WITHOUT_STATES = tuple(instance for cases in WHOLE for instance in cases.all)
each_instance = pytest.mark.parametrize("instance", [*INSTANCES, *WITHOUT_STATES], ids=lambda i: i.name)


@each_layer
def test_parameters_are_named(name: str):
    cases = LAYERS[name]
    layer, outer = cases.plain.layer, cases.outer_parameters(cases.plain.layer)
    assert [p.name for p in layer.parameters()] == f"{cases.parameters}{outer}".split()
    assert {p.name for p in layer.parameters() if p.no_weight_decay} == set(cases.no_weight_decay.split())


@each_instance
def test_parameters_are_real_and_single(instance: Instance):
    params = instance.layer.initial_parameters()
    assert list(params) == [p.name for p in instance.layer.parameters()]
    for p in instance.layer.parameters():
        assert params[p.name].shape == p.shape
        assert params[p.name].dtype == np.float32
        assert np.isfinite(params[p.name]).all()


@each_instance
def test_options_make_the_same_layer_again(instance: Instance):
    """Also from a file of configuration, where tuples become lists."""
    options = instance.layer.options()
    assert ssm_core.layers.make(instance.cases.name, options) == instance.layer
    assert ssm_core.layers.make(instance.cases.name, json.loads(json.dumps(options))) == instance.layer


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda i: i.name)
def test_first_states_are_those_of_the_truth(instance: Instance):
    """Zeros of the shapes and the kind of numbers that a run leaves behind."""
    layer, cases = instance.layer, instance.cases
    params = instance.parameters()
    u = Draw(0).real(BATCH, 1, H)
    _, last = cases.run(layer.options(), params, u)
    _, after = layer.apply(params, u, return_state=True)
    first = layer.initial_state(params, BATCH)
    for x, y, wanted in zip(*map(cases.parts, (first, after, last)), strict=True):
        assert x.shape == y.shape == wanted.shape
        assert x.dtype == y.dtype
        assert not x.any()
    single = layer.initial_state(layer.initial_parameters(), BATCH)
    assert {x.dtype.name for x in cases.parts(single)} <= {"float32", "complex64"}


def model_of(instance: Instance) -> SequenceModel:
    options = {name: x for name, x in instance.options.items() if name != "d_model"}
    return SequenceModel(3, 2, d_model=H, n_layers=2, layer=instance.cases.name, layer_options=options)


@pytest.mark.parametrize(
    "instance", [i for i in INSTANCES if i.options.get("output", "") is not None], ids=lambda i: i.name
)
def test_weights_of_a_model_come_back(instance: Instance, tmp_path: Path):
    """Its weights come back from a file, and run; its state goes through blocks and pool."""
    pytest.importorskip("safetensors")
    model = model_of(instance)
    params, u = model.initial_parameters(), Draw(0).real(BATCH, 12, 3).astype(np.float32)
    ssm_core.save(model, params, tmp_path / "weights")
    loaded, again = ssm_core.load(tmp_path / "weights")
    assert loaded == model
    wanted = model.apply(params, u)
    np.testing.assert_array_equal(loaded.apply(again, u), wanted)
    _, state = model.apply(params, u[:, :-2], return_state=True)
    step = model.stepper(params)
    for k in (10, 11):
        y, state = step(u[:, k], state)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [cases.name for cases in STREAMING])
@pytest.mark.parametrize("rate", [2, np.float64(2.0), np.asarray(2.0, np.float32)], ids=repr)
def test_rates_of_any_type_leave_single_precision(name: str, rate: Any):
    """For sequences and for steps."""
    cases = LAYERS[name]
    if not cases.timed:
        pytest.skip("the layer has no step in time")
    layer, params = cases.plain.layer, cases.plain.layer.initial_parameters()
    u, state = Draw(0).real(BATCH, 1, H).astype(np.float32), layer.initial_state(params, BATCH)
    wanted = layer.apply(params, u, state=state, return_state=True, rate=2.0)
    found = layer.apply(params, u, state=state, return_state=True, rate=rate)
    y, last = layer.step(params, u[:, 0], state, rate=rate)
    for (actual, after), expected in ((found, wanted[0]), ((y, last), wanted[0][:, 0])):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        for x, e in zip((actual, *cases.parts(after)), (expected, *cases.parts(wanted[1])), strict=True):
            assert x.dtype == e.dtype
            np.testing.assert_allclose(x, e, rtol=1e-5, atol=1e-6)
