"""The layers of the S4 family: every option against plain loops, every mode and any cut of a sequence one function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssm_core import layers

from . import truth_family
from .backends import HALF, Backend
from .cases_of_layers import STEPS, parameters, params_of, state_of, truth_of
from .examples import Draw, as_arrays, rounded
from .plans import MODES, RESTARTING, Plan, explore
from .tolerances import assert_close, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

H, BATCH = 4, 2
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "S4": ("S4", {"d_state": 6, **STEPS}),
    "S4_legt_copies_channels": ("S4", {"d_state": 6, "init": "legt", "n_ssm": 2, "channels": 3, **STEPS}),
    "S4_zoh_rank_2": (
        "S4", {"d_state": 4, "rank": 2, "discretization": "zoh", "n_ssm": 1, "activation": "tanh", **STEPS}
    ),
    "S4_normal": ("S4", {"d_state": 4, "init": "legsd", "discretization": "backward_euler", "output": None, **STEPS}),
    "SSM": ("SSM", {"d_state": 5, **STEPS}),
    "SSM_fout_zoh_copies_channels": (
        "SSM", {"d_state": 4, "init": "fout", "discretization": "zoh", "n_ssm": 2, "channels": 2, **STEPS}
    ),
    "LMU": ("LMU", {"d_state": 5, "theta": 20}),
    "LMU_bilinear_channels": ("LMU", {"d_state": 3, "theta": 7.5, "discretization": "bilinear", "channels": 2}),
    "DSS": ("DSS", {"d_state": 6, "length": 40, **STEPS}),
    "DSS_copies_channels": ("DSS", {"d_state": 6, "length": 25, "n_ssm": 2, "channels": 2, "epsilon": 1e-2, **STEPS}),
    "DSS_growing": ("DSS", {"d_state": 6, "length": 90, **STEPS}),
    "S5": ("S5", {"d_state": 6, **STEPS}),
    "S5_all_modes_blocks": (
        "S5", {"d_state": 8, "blocks": 2, "conj_sym": False, "output": "half_glu", "activation": "gelu_tanh", **STEPS}
    ),
    "S5_clipped_bilinear": (
        "S5", {"d_state": 6, "clip_eigs": True, "max_real": 0.05, "discretization": "bilinear", **STEPS}
    ),
    "LRU": ("LRU", {"d_state": 8}),
    "LRU_ring_bare": ("LRU", {"d_state": 6, "r_min": 0.7, "r_max": 0.95, "max_phase": 0.6, "output": None,
                              "activation": None, "skip": False}),
    "RTF": ("RTF", {"d_state": 4}),
    "RTF_montel_copies": ("RTF", {"d_state": 3, "init": "montel", "constraint": "montel", "n_ssm": 2}),
    "LinOSS": ("LinOSS", {"d_state": 3}),
    "LinOSS_im": ("LinOSS", {"d_state": 3, "scheme": "im", "output": "linear"}),
    "LRU_gate_alone": ("LRU", {"d_state": 4, "output": "half_glu2"}),
}  # fmt: skip
ONE_OF_EACH = ("S4", "SSM", "LMU", "DSS_growing", "S5", "LRU", "RTF_montel_copies", "LinOSS_im")
TIED = tuple(name for name, (kind, _) in LAYERS.items() if kind in ("LRU", "RTF", "LinOSS"))  # without a step in time
each_layer = pytest.mark.parametrize("name", LAYERS)
one_of_each = pytest.mark.parametrize("name", ONE_OF_EACH)


def layer_of(name: str, **more: Any) -> Any:
    kind, options = LAYERS[name]
    return layers.make(kind, {"d_model": H, **options, **more})


def parameters_of(name: str, layer: Any) -> dict[str, Any]:
    found = parameters(layer)
    if name == "DSS_growing":
        found["A_re"][..., 0] = 0.02
    if name == "S5_clipped_bilinear":
        found["A_re"][0] = 0.3
    return found


def inputs(name: str, layer: Any, length: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    d = Draw(seed)
    given = {"u": d.real(BATCH, length, H), "state": state_of(layer, BATCH, d), "reset": None, "scale": None}
    return parameters_of(name, layer) | given | more


def run_pieces(layer: Any, v: SimpleNamespace, plan: Plan, rate: Any) -> Any:
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


def check_pieces(name: str, plan: Plan, backend: Backend, dtype: str, rate: Any = 1.0, **more: Any) -> None:
    layer = layer_of(name)
    v = as_arrays(backend, dtype, inputs(name, layer, plan.length, plan.seed, **more))
    values = rounded(backend, v)
    found = backend.run(lambda v: run_pieces(layer, v, plan, rate), v)
    wanted = truth_of(
        layer, params_of(values, layer), values.u, values.state, reset=values.reset, rate=rate,
        step_scale=values.scale,
    )  # fmt: skip
    check(layer, found, wanted, plan.length, backend, dtype)


def check(layer: Any, found: Any, wanted: Any, length: int, backend: Backend, dtype: str, **more: Any) -> None:
    for actual, expected in zip(found, wanted, strict=True):
        options = {"function": f"layers.{layer.name}", "terms": 32 * length, **more}
        assert_close(actual, expected, backend, dtype, **options)


def cut_anywhere(name: str, examples: int, backend: Backend, dtype: str) -> None:
    rate = 1.0 if name in TIED else 0.7
    explore(backend, examples, lambda plan: check_pieces(name, plan, backend, dtype, rate), MODES)


@each_layer
@pytest.mark.backends("numpy", "array_api_strict", "torch", "cupy", "other")
def test_any_cut_in_any_modes(name: str, backend: Backend, dtype: str):
    cut_anywhere(name, 3, backend, dtype)


@one_of_each
@pytest.mark.backends("jax")
def test_any_cut_in_any_modes_compiled(name: str, backend: Backend, dtype: str):
    cut_anywhere(name, 1, backend, dtype)


@one_of_each
@pytest.mark.dtypes("float32")
def test_any_cut_with_resets(name: str, backend: Backend, dtype: str):
    def body(plan: Plan) -> None:
        reset = Draw(plan.seed + 1).resets(BATCH, plan.length)
        check_pieces(name, plan, backend, dtype, reset=reset)

    explore(backend, 2, body, RESTARTING)


@pytest.mark.parametrize("conj_sym", [True, False], ids=["pairs", "all_modes"])
@pytest.mark.dtypes("float64")
def test_liquid_s5(conj_sym: bool, backend: Backend, dtype: str):
    """The input moves the gate: only the recurrence, in any pieces, with resets and steps of their own lengths."""
    layer = layers.S5(H, 6, liquid=True, conj_sym=conj_sym, **STEPS)

    def body(plan: Plan) -> None:
        d = Draw(plan.seed + 1)
        more = {"reset": d.resets(BATCH, plan.length), "scale": d.uniform(0.2, 2, BATCH, plan.length)}
        v = as_arrays(backend, dtype, inputs("S5", layer, plan.length, plan.seed, **more))
        values = rounded(backend, v)
        wanted = truth_of(
            layer, params_of(values, layer), values.u, values.state, reset=values.reset, step_scale=values.scale
        )
        check(layer, backend.run(lambda v: run_pieces(layer, v, plan, 1.0), v), wanted, plan.length, backend, dtype)

    explore(backend, 2, body, ("scan", "auto"))


@pytest.mark.parametrize("name", ["DSS_growing", "S5", "S5_all_modes_blocks", "S5_clipped_bilinear"])
@pytest.mark.dtypes("float64")
def test_any_cut_with_steps_of_their_own_lengths(name: str, backend: Backend, dtype: str):
    def body(plan: Plan) -> None:
        scale = Draw(plan.seed + 1).uniform(0.2, 3, BATCH, plan.length)
        check_pieces(name, plan, backend, dtype, rate=1.5, scale=scale)

    explore(backend, 2, body, RESTARTING)


@one_of_each
def test_lengths_in_every_mode(name: str, backend: Backend, dtype: str):
    layer, lengths, L = layer_of(name), np.asarray([40, 13]), 40
    v = as_arrays(backend, dtype, inputs(name, layer, L, lengths=lengths))
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        found = []
        for mode in ("conv", "chunk", "scan"):
            options = {"lengths": v.lengths, "mode": mode, "return_state": True, "state": v.state}
            y, state = layer.apply(params_of(v, layer), v.u, **options)
            found += [y[:, :13, :], state]
        return found

    y, state = truth_of(layer, params_of(values, layer), values.u, values.state, lengths=lengths)
    check(layer, backend.run(run, v), 3 * (y[:, :13], state), L, backend, dtype)


BOTH = tuple(name for name in LAYERS if name != "S4_normal")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.dtypes("float64")
def test_both_directions_are_a_direct_sum(name: str, backend: Backend, dtype: str):
    """With and without lengths."""
    layer, d, lengths = layer_of(name, bidirectional=True), Draw(2), np.asarray([23, 9])
    v = as_arrays(backend, dtype, parameters_of(name, layer) | {"u": d.real(BATCH, 23, H), "lengths": lengths})
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        params = params_of(v, layer)
        return layer.apply(params, v.u), layer.apply(params, v.u, lengths=v.lengths)[:, :9, :]

    arguments = (layer.name, layer.options(), params_of(values, layer), values.u)
    wanted = truth_family.both_directions(*arguments), truth_family.both_directions(*arguments, lengths)[:, :9]
    check(layer, backend.run(run, v), wanted, 23, backend, dtype)


@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH if name not in TIED])
def test_rate_is_a_longer_step(name: str, backend: Backend, dtype: str):
    """As an array, for outputs, kernels and steps."""
    layer = layer_of(name)
    rates = np.asarray([0.5, 1.0, 2.0, 3.0]) if layer.per_channel else np.asarray(2.0)
    v = as_arrays(backend, dtype, inputs(name, layer, 20) | {"rates": rates})
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> list[Any]:
        params = params_of(v, layer)
        found = layer.apply(params, v.u, return_state=True, state=v.state, rate=v.rates)
        return [*found, *layer.step(params, v.u[:, 0, :], v.state, rate=v.rates), layer.kernel(params, 9, rate=v.rates)]

    params = params_of(values, layer)
    wanted = truth_of(layer, params, values.u, values.state, rate=rates)
    first, after = truth_of(layer, params, values.u[:, :1], values.state, rate=rates)
    *found, K = backend.run(run, v)
    check(layer, found, (*wanted, first[:, 0], after), 20, backend, dtype)
    if layer.per_channel:
        taps = truth_family.kernel(layer.name, layer.options(), params, 9, rates)
        check(layer, (K,), (taps,), 20, backend, dtype)
        return
    impulses = np.zeros((H, 9, H))  # one in every input, through a layer that only runs its system
    impulses[:, 0] = np.eye(H)
    bare = layer.options() | {"skip": False, "activation": None, "output": None}
    answers, _ = truth_family.run(layer.name, bare, params, impulses, rate=rates)
    check(layer, (K,), (np.transpose(answers, (2, 0, 1)),), 20, backend, dtype)


@one_of_each
@pytest.mark.dtypes(*HALF)
def test_half_precision_inputs(name: str, backend: Backend, dtype: str):
    """The outputs come back in half precision, the states stay in float32."""
    layer = layer_of(name)
    given = inputs(name, layer, 30)
    v = as_arrays(backend, "float32", given)
    v.u = backend.asarray(given["u"], dtype)
    values = rounded(backend, v)

    def run(v: SimpleNamespace) -> Any:
        return layer.apply(params_of(v, layer), v.u, state=v.state, return_state=True)

    y, state = backend.run(run, v)
    wanted, last = truth_of(layer, params_of(values, layer), values.u, values.state)
    check(layer, (y,), (wanted,), 30, backend, dtype, half=True)
    check(layer, (state,), (last,), 30, backend, dtype, allowed=tolerance("float32", terms=32 * 30))


def test_all_of_the_family_are_here():
    kinds = {kind for kind, _ in LAYERS.values()}
    assert kinds == set(truth_family.SYSTEMS) == {LAYERS[name][0] for name in ONE_OF_EACH}
