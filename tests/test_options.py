"""NumPy's numbers are numbers, flags are flags, and states in lists are checked, for every layer and function alike."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from small import NAMES, small

import ssm_core as s
from ssm_core import models
from ssm_core.layers.options import settle

NUMPYS = {
    int: (np.int64, np.uint16, np.asarray),
    float: (np.float32, np.float64, np.asarray),
    bool: (np.bool_, np.asarray),
}
MODELS = (models.SequenceModel(3, 2, 4, 1), models.MambaLM(7, 4, 1))


@pytest.mark.parametrize("definition", [*map(small, NAMES), *MODELS], ids=lambda d: d.name)
def test_numbers_and_flags_of_numpy_make_the_same_definition(definition: Any):
    """Equal, of one hash, and of Python's own types."""
    given = definition.options()
    for name, value in given.items():
        for to in NUMPYS.get(type(value), ()):
            x = to(value)
            if x.item() != value:  # float32 rounds
                continue
            other = type(definition)(**given | {name: x})
            assert other == definition
            assert hash(other) == hash(definition)
            assert type(getattr(other, name)) is type(value)


@pytest.mark.parametrize("definition", [*map(small, NAMES), *MODELS], ids=lambda d: d.name)
def test_flags_are_flags_and_numbers_are_none(definition: Any):
    given = definition.options()
    flags = [f.name for f in fields(definition) if f.type == "bool" and f.init]
    numbers = [f.name for f in fields(definition) if str(f.type).split()[0] in ("int", "float") and f.init]
    for name in flags:
        for wrong in ("no", 0, 1, None, 0.0, [True], np.ones(1, bool)):
            with pytest.raises(s.OptionError, match=name):
                type(definition)(**given | {name: wrong})
    for name in numbers:
        for wrong in (True, "1", [1], 1j, np.ones(2), np.True_, np.nan):
            with pytest.raises(s.SSMError):
                type(definition)(**given | {name: wrong})


def test_a_layer_of_ones_own_settles_its_options():
    layer = small("S4D")
    object.__setattr__(layer, "bidirectional", 1)
    with pytest.raises(s.OptionError, match="S4D: bidirectional = 1 must be True or False"):
        settle(layer)


def test_numbers_of_numpy_in_functions():
    a, b, one = np.full(3, 0.5), np.ones(3), np.ones(1)
    wanted = s.linear_scan(a, b, axis=0)
    for half in (np.float32(0.5), np.float64(0.5), 0.5):
        np.testing.assert_array_equal(s.linear_scan(half, b, axis=np.int64(0), initial=np.int64(0)), wanted)
    system = s.Diagonal(-one, one, one)
    wanted = s.kernel(system, 4, dt=2)
    for dt in (np.int64(2), np.float32(2), np.float64(2)):
        np.testing.assert_array_equal(s.kernel(system, np.uint8(4), dt=dt), wanted)
    gbt = s.discretize(system, 0.1, "gbt", alpha=np.float32(0.5))
    np.testing.assert_allclose(gbt.poles, s.discretize(system, 0.1, "bilinear").poles)
    assert s.hippo("legs", np.asarray(4))[0].shape == (4, 4)
    assert s.nplr("legs", np.int32(4), rank=np.int64(2))[0].P.shape == (2, 2)
    torch = pytest.importorskip("torch")
    in_torch = s.Diagonal(*(torch.ones(1) * sign for sign in (-1, 1, 1)))
    assert s.kernel(in_torch, 4, dt=np.float32(2)).dtype == torch.float32
    assert s.linear_scan(np.float64(0.5), torch.ones(3), axis=0).dtype == torch.float32


@pytest.mark.parametrize("wrong", ["no", 1, 0, None, [True], np.ones(2, bool)])
def test_flags_of_functions(wrong: Any):
    one, u, layer = np.ones(1), np.ones((1, 3, 4), np.float32), small("S4D")
    calls = {
        "reverse": lambda: s.linear_scan(0.5, np.ones(3), axis=0, reverse=wrong),
        "conj_pairs": lambda: s.diagonal_scan(np.ones(3), one, one, one, conj_pairs=wrong),
        "discrete": lambda: s.kernel(s.Diagonal(one, one, one, discrete=wrong), 3),
        "check_values": lambda: s.kernel(s.Diagonal(-one, one, one), 3, dt=0.1, check_values=wrong),
        "return_state": lambda: layer.apply(layer.initial_parameters(), u, return_state=wrong),
        "gate_first": lambda: s.rms_norm(one, gate_first=wrong),
    }
    for name, call in calls.items():
        with pytest.raises(s.OptionError, match=f"{name} = .* must be True or False"):
            call()


@pytest.mark.parametrize("name", ["Mamba", "Mamba2", "Mamba3"])
def test_states_in_lists_are_checked_like_tuples(name: str):
    """Whatever the stepper was given before."""
    layer = small(name)
    params = layer.initial_parameters()
    step, good, u = layer.stepper(params), list(layer.initial_state(params, 2)), np.ones((2, 4), np.float32)
    step(u, good)
    for wrong in (good[:1], [x + 1j for x in good], [x[:1] for x in good], [None] * len(good), [[x] for x in good]):
        with pytest.raises(s.SSMError):
            step(u, wrong)


@pytest.mark.parametrize("name", NAMES)
def test_rates_that_are_arrays(name: str):
    """One number in any form is that number; every layer takes arrays () alike, and refuses other shapes alike."""
    layer, u = small(name), np.random.default_rng(0).normal(size=(1, 5, 4)).astype(np.float32)
    params = layer.initial_parameters()
    if not layer.timed:  # discrete, so that there is no step to multiply
        np.testing.assert_array_equal(layer.apply(params, u, rate=np.asarray(1.0)), layer.apply(params, u))
        return
    wanted = layer.apply(params, u, rate=2.0)
    for rate in (np.float32(2), np.int64(2), np.asarray(2.0), np.asarray(2)):
        np.testing.assert_array_equal(layer.apply(params, u, rate=rate), wanted)
    for wrong in (np.ones((1, 1)), np.ones(3), np.asarray("2"), np.asarray(True), np.asarray(-1.0), np.asarray(np.nan)):
        with pytest.raises(s.SSMError, match="rate"):
            layer.apply(params, u, rate=wrong)
