"""RG-LRU, HGRN and RWKV-4 against numbers of the original implementations: outputs, states and gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import layers

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import GOLDEN, assert_close, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

PARTS = ("num", "den", "max")


def budget(length: int, dtype: str) -> float:
    return GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=64 * length)


def gradients_agree(
    run: Callable[[dict[str, Any]], Any], inputs: Numbers, numbers: Numbers, theirs: dict[str, str], *where: Any
) -> None:
    """Those of sum(run(inputs) * cotangent), under the names that the file has for them."""
    backend, dtype, length = where
    v = vars(as_arrays(backend, dtype, inputs))
    cotangent = backend.asarray(numbers["cotangent"], dtype)
    t = {name: v[name] for name in inputs if np.issubdtype(inputs[name].dtype, np.floating)}
    fixed = {name: v[name] for name in inputs if name not in t}
    found = autodiff.gradient(backend, lambda t: backend.xp.sum(run(t | fixed) * cotangent), t)
    for name, gradient in found.items():
        if f"grad.{theirs[name]}" not in numbers:  # of a first state, which theirs holds fixed
            continue
        wanted = numbers[f"grad.{theirs[name]}"].reshape(gradient.shape)
        error = np.abs(backend.to_numpy(gradient) - wanted).max() / np.abs(wanted).max()
        assert error <= 8 * budget(length, dtype), f"{name}: {error:.1e}"


# HGRN ----------------------------------------------------------------------------------------------------------------

HGRN = {"x": "x", "log_decay": "g", "initial": "initial_state"}


@files("hgrn_B*")
def test_hgrn(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    inputs = {name: numbers[theirs] for name, theirs in HGRN.items()}

    def run(v: SimpleNamespace) -> Any:
        return ssm_core.hgrn(**{name: getattr(v, name) for name in inputs}, return_state=True)

    found = backend.run(run, as_arrays(backend, dtype, inputs))
    allowed = budget(numbers["x"].shape[1], dtype)
    for actual, name in zip(found, ("o", "final_state"), strict=True):
        assert_close(actual, numbers[name], backend, dtype, function="hgrn", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files("hgrn_B*")
def test_gradients_of_hgrn(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    inputs = {name: numbers[theirs] for name, theirs in HGRN.items()}
    where = (backend, dtype, numbers["x"].shape[1])
    gradients_agree(lambda t: ssm_core.hgrn(**t), inputs, numbers, HGRN, *where)


# RG-LRU --------------------------------------------------------------------------------------------------------------

RG_LRU = {
    "x": "x", "recurrent_param": "a_param", "w_i": "input_gate.w", "b_i": "input_gate.b", "w_r": "a_gate.w",
    "b_r": "a_gate.b", "initial": "h0", "reset": "reset",
}  # fmt: skip


def inputs_of_rg_lru(numbers: Numbers) -> Numbers:
    """By our names; a sequence begins where its position is 0."""
    held = {name: numbers.get(theirs, numbers.get(f"sd.{theirs}")) for name, theirs in RG_LRU.items()}
    held["reset"] = numbers["segment_pos"] == 0
    return {name: x for name, x in held.items() if x is not None}


def rg_lru(t: dict[str, Any], **options: Any) -> Any:
    """With the block-diagonal maps of the gates, which the file has in it."""
    v = dict(t)
    xp, (batch, L, W) = ssm_core._arrays.library.namespace("rg_lru", x=v["x"]), v["x"].shape
    rows, gates = xp.reshape(v["x"], (batch, L, v["w_i"].shape[0], 1, -1)), []
    for gate in ("i", "r"):
        mapped = xp.matmul(rows, v.pop(f"w_{gate}"))[..., 0, :] + v.pop(f"b_{gate}")
        gates.append(xp.reshape(mapped, (batch, L, W)))
    return ssm_core.rg_lru(v.pop("x"), *gates, v.pop("recurrent_param"), **v, **options)


@files("rg_lru_*")
def test_rg_lru(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    inputs = inputs_of_rg_lru(numbers)

    def run(v: SimpleNamespace) -> Any:
        return rg_lru({name: getattr(v, name) for name in inputs}, return_state=True)

    found = backend.run(run, as_arrays(backend, dtype, inputs))
    allowed = budget(numbers["x"].shape[1], dtype)
    for actual, name in zip(found, ("y", "last_h"), strict=True):
        assert_close(actual, numbers[name], backend, dtype, function="rg_lru", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files("rg_lru_*")
def test_gradients_of_rg_lru(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    where = (backend, dtype, numbers["x"].shape[1])
    gradients_agree(rg_lru, inputs_of_rg_lru(numbers), numbers, RG_LRU, *where)


BLOCK = "recurrent_gemma_block_*"
RGLRU = layers.RGLRU(12, heads=2)


def parameters_of_block(numbers: Numbers) -> Numbers:
    shapes = {p.name: p.shape for p in RGLRU.parameters()}
    held = {name[3:].replace(".", "_"): x for name, x in numbers.items() if name.startswith("sd.")}
    assert held.keys() == shapes.keys()
    return {name: held[name].reshape(shape) for name, shape in shapes.items()}


@files(BLOCK)
def test_block_of_recurrent_gemma(path: Path, backend: Backend, dtype: str):
    """Sequences at once, and with a state between a first part and steps; weights by their names in checkpoints."""
    numbers, params = read(path), parameters_of_block(read(path))
    first = int(numbers["prefill_length"])

    def run(v: SimpleNamespace) -> Any:
        params = {p.name: getattr(v, p.name) for p in RGLRU.parameters()}
        y, last = RGLRU.apply(params, v.u, return_state=True)
        start, state = RGLRU.apply(params, v.u[:, :first, :], return_state=True)
        between, steps = state, []
        for k in range(first, v.u.shape[1]):
            y_k, state = RGLRU.step(params, v.u[:, k, :], state)
            steps.append(y_k[:, None, :])
        return y, last[1], v.xp.concat([start, *steps], axis=1), between[1], between[0], state[1]

    found = backend.run(run, as_arrays(backend, dtype, params | {"u": numbers["x"]}))
    names = ("y", "state_final", "y_cached", "state_after_prefill", "conv_state_after_prefill", "state_final")
    allowed = budget(numbers["x"].shape[1], dtype)
    for actual, name in zip(found, names, strict=True):
        assert_close(actual, numbers[name], backend, dtype, function="layers.RGLRU", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(BLOCK)
def test_gradients_of_the_block(path: Path, backend: Backend, dtype: str):
    numbers, params = read(path), parameters_of_block(read(path))
    theirs = {name[3:].replace(".", "_"): name for name in numbers if name.startswith("sd.")} | {"u": "x"}

    def run(t: dict[str, Any]) -> Any:
        return RGLRU.apply({name: x for name, x in t.items() if name != "u"}, t["u"])

    where = (backend, dtype, numbers["x"].shape[1])
    gradients_agree(run, params | {"u": numbers["x"]}, numbers, theirs, *where)


# RWKV-4 --------------------------------------------------------------------------------------------------------------

OF_RWKV4 = {
    "time_mix_key": "time_mix_k", "time_mix_value": "time_mix_v", "time_mix_receptance": "time_mix_r",
    "time_first": "u", "receptance_weight": "Wr", "key_weight": "Wk", "value_weight": "Wv", "output_weight": "Wo",
}  # fmt: skip


@files("rwkv4_timemix_*")
def test_time_mix_of_rwkv4(path: Path, backend: Backend, dtype: str):
    """The whole sequence and its last state, whose sums are over e^max."""
    numbers = read(path)
    layer = layers.RWKV4(numbers["x"].shape[1], chunk=5)
    params = {name: numbers[theirs] for name, theirs in OF_RWKV4.items()}
    params["time_decay"] = np.log(-numbers["w"])

    def run(v: SimpleNamespace) -> Any:
        y, (_, num, den, top) = layer.apply({name: getattr(v, name) for name in params}, v.u, return_state=True)
        return y[0, ...], (num * v.xp.exp(top))[0, ...], (den * v.xp.exp(top))[0, ...]

    found = backend.run(run, as_arrays(backend, dtype, params | {"u": numbers["x"][None]}))
    allowed = budget(numbers["x"].shape[0], dtype)
    for actual, name in zip(found, ("o", "final_num", "final_den"), strict=True):
        assert_close(actual, numbers[name], backend, dtype, function="layers.RWKV4", allowed=allowed)
