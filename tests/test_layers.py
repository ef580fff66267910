"""Layer definitions on plain arrays: options, parameters, and that all ways to run them are one function."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import layers
from ssm_core.functions.special import ACTIVATIONS, activation
from ssm_core.layers import S4D
from ssm_core.models import SequenceModel

B, L, H = 2, 37, 4
MODES = ("conv", "chunk", "scan", "auto")
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "copies": {"n_ssm": 2},
    "channels": {"channels": 3},
    "real": {"real": True, "init": "real", "d_state": 5},
    "fixed B": {"trainable_B": False},
    "legs": {"init": "legs", "discretization": "bilinear"},
    "linear": {"output": "linear", "activation": "silu"},
    "bare": {"output": None, "activation": None, "skip": False},
    "everything": {"channels": 2, "n_ssm": 1, "activation": "tanh", "discretization": "backward_euler"},
}


def layer(name: str = "default", **more: Any) -> S4D:
    return S4D(H, **{"d_state": 8, "dt_max": 0.5, **OPTIONS[name], **more})


def double(params: dict[str, Any]) -> dict[str, Any]:
    return {name: p.astype(np.float64) for name, p in params.items()}


def parameters(definition: layers.Layer) -> dict[str, Any]:
    """As if after some training: at first all copies have the same poles."""
    rng = np.random.default_rng(1)
    return {name: p + rng.uniform(-0.2, 0.2, p.shape) for name, p in double(definition.initial_parameters()).items()}


def signal(width: int = H, length: int = L, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, length, width))


def close(x: Any, y: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", OPTIONS)
def test_parameters_are_real_float32_and_named(name: str):
    definition = layer(name)
    params = definition.initial_parameters()
    assert list(params) == [p.name for p in definition.parameters()]
    for p in definition.parameters():
        assert params[p.name].shape == p.shape
        assert params[p.name].dtype == np.float32
        assert p.no_weight_decay == (p.name in ("log_dt", "log_A_re", "A_im", "B_re", "B_im"))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, "log_dt log_A_re A_im B_re B_im C_re C_im D output_weight output_bias"),
        ({"trainable_B": False}, "log_dt log_A_re A_im C_re C_im D output_weight output_bias"),
        ({"real": True, "init": "real"}, "log_dt log_A_re B_re C_re D output_weight output_bias"),
        ({"skip": False}, "log_dt log_A_re A_im B_re B_im C_re C_im output_weight output_bias"),
        ({"output": None}, "log_dt log_A_re A_im B_re B_im C_re C_im D"),
    ],
)
def test_names_follow_the_options(options: dict[str, Any], names: str):
    assert [p.name for p in S4D(H, **options).parameters()] == names.split()


def test_shapes_follow_the_options():
    shapes = {p.name: p.shape for p in S4D(6, d_state=8, n_ssm=3, channels=2, bidirectional=True).parameters()}
    assert shapes == {
        "log_dt": (6,),
        "log_A_re": (3, 4),
        "A_im": (3, 4),
        "B_re": (3, 4),
        "B_im": (3, 4),
        "C_re": (4, 6, 4),
        "C_im": (4, 6, 4),
        "D": (2, 6),
        "output_weight": (12, 12),
        "output_bias": (12,),
    }


@pytest.mark.parametrize("init", ["lin", "inv", "inv2", "legs", "quad"])
def test_first_poles_are_those_of_the_initialization(init: str):
    params = double(S4D(H, d_state=8, init=init).initial_parameters())
    start = ssm_core.diagonal_init(init, 8)
    for copy in range(H):
        close(-np.exp(params["log_A_re"][copy]) + 1j * params["A_im"][copy], start.poles, 1e-6)
        close(params["B_re"][copy] + 1j * params["B_im"][copy], start.B, 1e-6)


def test_first_steps_are_log_uniform():
    definition = S4D(4096, d_state=2, n_ssm=1, output=None)
    log_dt = definition.initial_parameters()["log_dt"]
    assert math.log(1e-3) <= log_dt.min() < log_dt.max() <= math.log(1e-1)
    assert abs(log_dt.mean() - math.log(1e-2)) < 0.1
    close(S4D(2, dt_min=0.5, dt_max=0.5).initial_parameters()["log_dt"], np.full(2, math.log(0.5)), 1e-6)


def test_seeds():
    definition = layer()
    first, same, other = (definition.initial_parameters(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["C_re"], same["C_re"])
    assert (first["C_re"] != other["C_re"]).all()
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal(definition.initial_parameters(generator)["C_re"], first["C_re"])


def test_first_parameters_in_any_namespace(xp: Any):
    params = layer().initial_parameters(xp=xp, dtype=xp.float64)
    assert all(p.dtype == xp.float64 for p in params.values())
    assert all(ssm_core._arrays.library.namespace("f", p=p) is xp for p in params.values())


@pytest.mark.parametrize("name", OPTIONS)
def test_definition_by_the_public_functions(name: str):
    """v = scan(Diagonal(poles, B, C), u) + D u channel by channel, then the mix."""
    definition = layer(name)
    params, u = parameters(definition), signal()
    poles = -np.exp(params["log_A_re"]) + 1j * params.get("A_im", 0)
    Bs = params["B_re"] + 1j * params.get("B_im", 0) if definition.trainable_B else np.ones_like(poles)
    C = params["C_re"] + 1j * params.get("C_im", 0)
    v = np.zeros((B, L, definition.channels, H))
    for h in range(H):
        copy = h % (definition.n_ssm or H)
        for c in range(definition.channels):
            system = ssm_core.Diagonal(poles[copy], Bs[copy], C[c, h], conj_pairs=not definition.real)
            dt = float(np.exp(params["log_dt"][h]))
            y, _ = ssm_core.scan(system, u[:, :, h], dt=dt, method=definition.discretization, mode="scan")
            v[:, :, c, h] = y.real + (params["D"][c, h] * u[:, :, h] if definition.skip else 0)
    x = activation(definition.activation)(v.reshape(B, L, -1))
    if definition.output:
        x = x @ params["output_weight"].T + params["output_bias"]
    if definition.output == "glu":
        x = x[..., :H] / (1 + np.exp(-x[..., H:]))
    close(definition.apply(params, u), x)


@pytest.mark.parametrize("name", ["default", "channels", "real", "copies"])
def test_modes_chunks_and_steps_are_one_function(name: str, xp: Any):
    definition = layer(name)
    params = {k: xp.asarray(p) for k, p in parameters(definition).items()}
    u = xp.asarray(signal(length=20))
    first = xp.astype(definition.initial_state(params, B), xp.float64 if definition.real else xp.complex128) + 0.5
    wanted, last = definition.apply(params, u, state=first, return_state=True, mode="scan")
    for mode in MODES:
        y, state = definition.apply(params, u, state=first, return_state=True, mode=mode)
        close(y, wanted)
        close(state, last)
        close(definition.apply(params, u, state=first, mode=mode), wanted)
    state, pieces = first, []
    for start, stop in ((0, 1), (1, 12), (12, 20)):
        y, state = definition.apply(params, u[:, start:stop, :], state=state, return_state=True)
        pieces.append(np.asarray(y))
    close(np.concatenate(pieces, axis=1), wanted)
    close(state, last)
    step, state = definition.stepper(params), first
    for k in range(20):
        y, state = step(u[:, k, :], state)
        close(y, wanted[:, k, :])
    close(state, last)


def test_no_state_is_the_zero_state():
    definition, u = layer(), signal()
    params = parameters(definition)
    zero = definition.initial_state(params, B)
    assert zero.shape == (B, H, 4)
    assert zero.dtype == np.complex128
    assert not zero.any()
    close(definition.apply(params, u, state=zero), definition.apply(params, u))
    y, _ = definition.step(params, u[:, 0], zero)
    close(y, definition.apply(params, u)[:, 0])


@pytest.mark.parametrize("mode", MODES)
def test_lengths(mode: str):
    definition, u, lengths = layer(), signal(), np.asarray([5, L])
    params = parameters(definition)
    y, state = definition.apply(params, u, lengths=lengths, return_state=True, mode=mode)
    for b, n in enumerate(lengths):
        alone, end = definition.apply(params, u[b : b + 1, :n], return_state=True, mode="scan")
        close(y[b, :n], alone[0])
        close(state[b], end[0])


@pytest.mark.parametrize("mode", ["chunk", "scan", "auto"])
def test_resets(mode: str):
    definition, u, reset = layer(), signal(), np.zeros((B, L), bool)
    reset[0, 10] = reset[1, [3, 20]] = True
    params = parameters(definition)
    first = definition.initial_state(params, B) + 1
    y, state = definition.apply(params, u, reset=reset, state=first, return_state=True, mode=mode)
    for b, cuts in enumerate(([0, 10, L], [0, 3, 20, L])):
        for start, stop in itertools.pairwise(cuts):
            before = first[b : b + 1] if start == 0 else None
            alone, end = definition.apply(params, u[b : b + 1, start:stop], state=before, return_state=True)
            close(y[b, start:stop], alone[0])
        close(state[b], end[0])


@pytest.mark.parametrize("rate", [2.0, 0.5, 1, np.float32(2), np.asarray(2.0), np.linspace(0.5, 2, H)])
def test_rates_scale_the_steps(rate: Any):
    definition, u = layer(), signal()
    params = parameters(definition)
    scaled = {**params, "log_dt": params["log_dt"] + np.log(np.asarray(rate, float))}
    wanted = definition.apply(scaled, u)
    for mode in MODES:
        close(definition.apply(params, u, rate=rate, mode=mode), wanted)
    close(definition.kernel(params, 9, rate=rate), definition.kernel(scaled, 9))
    close(definition.stepper(params, rate=rate)(u[:, 0], definition.initial_state(params, B))[0], wanted[:, 0])
    close(definition.step(params, u[:, 0], definition.initial_state(params, B), rate=rate)[0], wanted[:, 0])


@pytest.mark.parametrize("rate", [2.0, np.float64(2.0), np.asarray(2.0, np.float32)], ids=repr)
def test_rates_do_not_widen_the_result(rate: Any):
    definition = layer()
    u = signal().astype(np.float32)
    assert definition.apply(definition.initial_parameters(), u, rate=rate).dtype == np.float32


@pytest.mark.parametrize("mode", ["scan", "chunk", "auto"])
def test_every_step_its_own_duration(mode: str):
    definition, u = layer(), signal()
    params = parameters(definition)
    scale = np.random.default_rng(1).uniform(0.5, 2.0, (B, L))
    y, last = definition.apply(params, u, step_scale=scale, rate=1.5, return_state=True, mode=mode)
    for b in range(B):
        state = definition.initial_state(params, 1)
        for k in range(L):
            one, state = definition.step(params, u[b : b + 1, k], state, rate=1.5 * scale[b, k])
            close(y[b, k], one[0])
        close(last[b], state[0])


@pytest.mark.parametrize("channels", [1, 2])
def test_both_directions(channels: int):
    definition, u = layer(bidirectional=True, channels=channels, output=None, activation=None, skip=False), signal()
    params = parameters(definition)
    K = definition.kernel(params, L)
    assert K.shape == (2 * channels, H, L)
    x = u.transpose(0, 2, 1)
    wanted = [ssm_core.convolve(x, K[c], kernel_reverse=K[channels + c]) for c in range(channels)]
    close(definition.apply(params, u), np.concatenate(wanted, axis=1).transpose(0, 2, 1))
    close(definition.apply(params, u, mode="conv"), definition.apply(params, u))


def test_both_directions_and_lengths():
    definition, u = layer(bidirectional=True), signal()
    params = parameters(definition)
    y = definition.apply(params, u, lengths=np.asarray([9, L]))
    close(y[0, :9], definition.apply(params, u[:1, :9])[0])
    close(y[1], definition.apply(params, u[1:])[0])


@pytest.mark.parametrize("name", ["default", "channels", "real"])
def test_kernels(name: str):
    """The kernel is the answer to an impulse of the layer without its outer parts."""
    definition = layer(name, output=None, activation=None, skip=False)
    params = parameters(definition)
    impulse = np.zeros((1, L, H))
    impulse[:, 0] = 1
    y = definition.apply(params, impulse, mode="scan")[0].reshape(L, definition.channels, H)
    close(definition.kernel(params, L), y.transpose(1, 2, 0))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str | None):
    definition, u = layer(activation=name, output=None), signal()
    params = parameters(definition)
    linear = dataclasses.replace(definition, activation=None)
    close(definition.apply(params, u), activation(name)(linear.apply(params, u)))


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("name", ["default", "channels", "real"])
def test_empty_batches_and_sequences(name: str, length: int, batch: int):
    definition = layer(name)
    params = definition.initial_parameters()
    u = np.ones((batch, length, H), np.float32)
    for mode in MODES:
        y, state = definition.apply(params, u, return_state=True, mode=mode)
        assert y.shape == (batch, length, H)
        assert state.shape == (batch, H, definition.n_states)
    both = layer(bidirectional=True)
    assert both.apply(both.initial_parameters(), u).shape == (batch, length, H)
    y, state = definition.step(params, np.ones((batch, H), np.float32), definition.initial_state(params, batch))
    assert y.shape == (batch, H)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision(mode: str):
    definition = layer()
    params = definition.initial_parameters()
    u = signal().astype(np.float16)
    y, state = definition.apply(params, u, return_state=True, mode=mode)
    assert (y.dtype, state.dtype) == (np.float16, np.complex64)
    close(y, definition.apply(params, u.astype(np.float32)), 2e-3)
    y_t, state = definition.step(params, u[:, 0], definition.initial_state(params, B))
    assert (y_t.dtype, state.dtype) == (np.float16, np.complex64)
    halves = {k: p.astype(np.float16) for k, p in params.items()}
    assert definition.apply(halves, u.astype(np.float32), mode=mode).dtype == np.float32


LAYOUTS = {
    "contiguous": lambda x: x.copy(),
    "batch inside": lambda x: np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2),
    "Fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[:, :, ::2],
    "reversed": lambda x: x[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "double": lambda x: x.astype(np.result_type(x.dtype, np.float64)),
    "real": lambda x: x.real.copy(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["default", "channels", "real"])
def test_states_of_any_layout_and_precision(name: str, layout: str):
    definition = layer(name)
    params, u = definition.initial_parameters(), signal().astype(np.float32)
    rng, shape = np.random.default_rng(0), (B, H, definition.n_states)
    state = rng.normal(size=shape) if definition.real else rng.normal(size=shape) + 1j * rng.normal(size=shape)
    given = LAYOUTS[layout](state.astype(np.float32 if definition.real else np.complex64))
    given.flags.writeable = False
    before = given.copy()
    exact = given.astype(np.float64 if definition.real else np.complex128)
    wanted, last = definition.apply(double(params), u[:, :1].astype(float), state=exact, return_state=True)
    y, after = definition.step(params, u[:, 0], given)
    close(y, wanted[:, 0], 1e-5)
    close(after, last, 1e-5)
    np.testing.assert_array_equal(given, before)
    z, end = definition.apply(params, u[:, :1], state=given, return_state=True)
    close(z, wanted, 1e-5)
    close(end, last, 1e-5)


def test_a_stepper_may_be_fed_its_own_results_in_any_layout():
    definition = layer()
    params, u = parameters(definition), np.asfortranarray(signal())
    step, state = definition.stepper(params), np.asfortranarray(definition.initial_state(params, B))
    wanted = definition.apply(params, u)
    for k in range(L):
        y, state = step(u[:, k], state)
        close(y, wanted[:, k])


def test_inputs_are_left_alone():
    definition, u = layer(), signal()
    params = parameters(definition)
    state = definition.initial_state(params, B) + 1
    arrays = [u, state, *params.values()]
    copies = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    for mode in MODES:
        definition.apply(params, u, state=state, return_state=True, mode=mode)
    definition.step(params, u[:, 0], state)
    for x, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize("definition", [layer(), layer("everything"), SequenceModel(3, 2, d_model=H, n_layers=1)])
def test_options_are_plain_and_make_the_same_layer(definition: layers.Layer):
    options = json.loads(json.dumps(definition.options()))
    assert layers.make(definition.name, options) == definition
    assert definition.name in layers.LAYERS
