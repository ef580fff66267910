"""Layers of delta rules against numbers of the original blocks: outputs, states, gradients, token by token."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from . import autodiff, originals
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .test_golden_duality import budget, check_gradients
from .tolerances import assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

BLOCKS = ("qwen3_next_gdn_layer_*", "kimi_linear_kda_layer_*")
PREFIX = "sd."


def imported(path: Path, numbers: Numbers, prefix: str = PREFIX) -> originals.Imported:
    tensors = {n.removeprefix(prefix): x for n, x in numbers.items() if n.startswith(prefix)}
    make = originals.gated_delta_net if path.stem.startswith("qwen3") else originals.kda
    return make(tensors, json.loads(str(numbers["config_json"])), chunk=4)


def params_in(v: SimpleNamespace, params: dict[str, Any]) -> dict[str, Any]:
    return {n: getattr(v, n) for n in params}


@files(*BLOCKS)
def test_blocks(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    layer, params = imported(path, numbers)
    n = int(numbers["prefill_length"])

    def run(v: SimpleNamespace) -> Any:
        given = params_in(v, params)
        y, last = layer.apply(given, v.x, return_state=True)
        cached, state = layer.apply(given, v.x[:, :n, :], return_state=True)
        memory, outputs = state[-1], [cached]
        step = layer.stepper(given)
        for t in range(n, v.x.shape[1]):
            y_t, state = step(v.x[:, t, :], state)
            outputs.append(y_t[:, None, :])
        return y, last[-1], memory, v.xp.concat(outputs, axis=1), state[-1]

    found = backend.run(run, as_arrays(backend, dtype, params | {"x": numbers["x"]}))
    wanted = ("y", "state_final", "state_after_prefill", "y_cached", "state_final")
    for actual, name in zip(found, wanted, strict=True):
        allowed = budget(numbers["x"].shape[1], dtype)
        assert_close(actual, numbers[name], backend, dtype, function=f"layers.{layer.name}", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(*BLOCKS)
def test_gradients_of_blocks(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    layer, params = imported(path, numbers)
    _, wanted = imported(path, numbers, f"grad.{PREFIX}")
    v = as_arrays(backend, dtype, params | {"x": numbers["x"]})
    cotangent = backend.asarray(numbers["cotangent"], dtype)

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(layer.apply({n: t[n] for n in params}, t["x"]) * cotangent)

    found = autodiff.gradient(backend, loss, {n: getattr(v, n) for n in (*params, "x")})
    wanted |= {"x": numbers["grad.x"]}
    check_gradients(found, wanted, backend, dtype, f"layers.{layer.name}", numbers["x"].shape[1])


@files("rwkv7_lm_*")
def test_rwkv7(path: Path, backend: Backend, dtype: str):
    """Both mixes of every block, whose norms and residuals are here, and the values that later blocks share."""
    numbers = read(path)
    weights = {n.removeprefix("w."): x for n, x in numbers.items() if n.startswith("w.")}
    states, (blocks, heads) = numbers["final_S"], numbers["final_S"].shape[:2]
    mixes = [originals.rwkv7(weights, i, blocks, heads=heads, chunk=4) for i in range(blocks)]
    inputs = weights | {"x": weights["emb.weight"][numbers["tokens"]][None]}
    of_mixes = {f"{i} {j} {n}": x for i, pair in enumerate(mixes) for j in (0, 1) for n, x in pair[j][1].items()}

    def run(v: SimpleNamespace) -> Any:
        given = vars(v)

        def norm(x: Any, name: str) -> Any:
            x = x - v.xp.mean(x, axis=-1, keepdims=True)
            x = x / v.xp.sqrt(v.xp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
            return x * given[f"{name}.weight"] + given[f"{name}.bias"]

        def mixed(i: int, j: int, x: Any) -> tuple[Any, Any]:
            layer, params = mixes[i][j]
            return layer.apply({n: given[f"{i} {j} {n}"] for n in params}, x, return_state=True)

        x, found = norm(v.x, "blocks.0.ln0"), []
        values = None
        for i in range(blocks):
            z = norm(x, f"blocks.{i}.ln1")
            y, (before, S) = mixed(i, 0, z if values is None else v.xp.concat([z, values], axis=-1))
            values, y = (y[..., z.shape[-1] :], y[..., : z.shape[-1]]) if values is None else (values, y)
            x = x + y
            y, (before_ffn,) = mixed(i, 1, norm(x, f"blocks.{i}.ln2"))
            x = x + y
            found += [before, before_ffn, v.xp.matrix_transpose(S)]
        return v.xp.matmul(norm(x, "ln_out"), v.xp.matrix_transpose(given["head.weight"])), *found

    found = backend.run(run, as_arrays(backend, dtype, inputs | of_mixes))
    shifts = numbers["final_shift"]
    wanted = [numbers["logits"][None], *(m[None] for i in range(blocks) for m in (*shifts[i], states[i]))]
    for actual, expected in zip(found, wanted, strict=True):
        allowed = budget(len(numbers["tokens"]), dtype)
        assert_close(actual, expected, backend, dtype, function="layers.RWKV7", allowed=allowed)
