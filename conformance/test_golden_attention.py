"""The layers of gated linear attention against numbers of the original blocks: outputs, states, gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssm_core.layers import MLSTM, Lightning, RetNet

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .test_golden_duality import budget, check_gradients
from .test_golden_mamba import token_by_token
from .tolerances import assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

FILES = ("retnet_*", "minimax_lightning_layer_*", "xlstm_block_*")
RENAMED = {"out_proj_weight": "o_proj_weight"}  # of torchscale


def retnet(numbers: Numbers) -> RetNet:
    heads, (values, H) = len(numbers["decay"]), numbers["sd.v_proj.weight"].shape
    return RetNet(
        H,
        heads=heads,
        expand_v=values / H,
        rotation="interleaved",
        row_norm=True,
        norm_weight=False,
        epsilon=1e-6,
        chunk=5,
    )


def lightning(numbers: Numbers) -> Lightning:
    heads, inner = len(numbers["slope"]), len(numbers["sd.norm.weight"])
    place = {"layer_idx": int(numbers["layer_idx"]), "num_layers": int(numbers["num_layers"])}
    return Lightning(numbers["x"].shape[-1], heads=heads, head_dim=inner // heads, chunk=5, **place)


def mlstm(numbers: Numbers) -> MLSTM:
    return MLSTM(numbers["x"].shape[-1], heads=len(numbers["sd.mlstm_layer.igate_preact.bias"]), chunk=5)


LAYERS: dict[str, Callable[[Numbers], Any]] = {"retnet": retnet, "minimax": lightning, "xlstm": mlstm}


def layer_of(path: Path, numbers: Numbers) -> Any:
    return LAYERS[path.stem.partition("_")[0]](numbers)


def named(numbers: Numbers, layer: Any, prefix: str) -> dict[str, np.ndarray]:
    """Arrays of a block by our names of the layer's parameters, those of the rest left out."""
    names = {p.name for p in layer.parameters()}
    found = {n.removeprefix(prefix).removeprefix("mlstm_layer.").replace(".", "_"): x for n, x in numbers.items()
             if n.startswith(prefix)}  # fmt: skip
    found = {n if n in names else RENAMED.get(n, n): x for n, x in found.items()}
    return {n: x for n, x in found.items() if n in names}


def entering(numbers: Numbers) -> np.ndarray:
    """What the layer sees: the block of xLSTM has a norm before it."""
    x = numbers["x"]
    if "sd.norm_mlstm.weight" not in numbers:
        return x
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * numbers["sd.norm_mlstm.weight"]


def outputs(numbers: Numbers) -> np.ndarray:
    return next(numbers[n] for n in ("y_recurrent", "mlstm_layer_output", "y") if n in numbers)


def last_states(numbers: Numbers) -> list[np.ndarray]:
    if "final_c" in numbers:
        return [numbers["final_c"], numbers["final_n"], numbers["final_m"][..., 0]]
    return [numbers["state_final"]] if "state_final" in numbers else []


@files(*FILES)
def test_layers(path: Path, backend: Backend, dtype: str):
    """In every mode and, as a cached model runs it, token by token behind a prefix."""
    numbers = read(path)
    layer = layer_of(path, numbers)
    params = named(numbers, layer, "sd.")
    prefilled = int(numbers.get("prefill_length", 4))

    def run(v: SimpleNamespace) -> Any:
        given = {n: getattr(v, n) for n in params}
        found = [layer.apply(given, v.x, return_state=True, mode=mode) for mode in layer.modes]
        y, between, last = token_by_token(layer, given, v.x, prefilled, v.xp)
        return [*found, (y, last)], between

    x = entering(numbers)
    ends, between = backend.run(run, as_arrays(backend, dtype, params | {"x": x}))
    allowed = budget(x.shape[1], dtype)
    middle = [numbers[n].reshape(b.shape) for n, b in zip(
        ("c_after_prefill", "n_after_prefill", "m_after_prefill"), between, strict=False) if n in numbers]  # fmt: skip
    middle = [numbers["state_after_prefill"]] if "state_after_prefill" in numbers else middle
    compared = [(y, outputs(numbers)) for y, _ in ends] + list(zip(between, middle, strict=False))
    for _, state in ends:
        compared += list(zip(state, last_states(numbers), strict=False))
    for actual, expected in compared:
        assert_close(actual, expected, backend, dtype, function=f"layers.{layer.name}", allowed=allowed)


@files("retnet_*")
def test_state_of_retnet(path: Path, backend: Backend, dtype: str):
    """Theirs is transposed and divided by sqrt(1 + gamma + ...)."""
    numbers = read(path)
    layer = retnet(numbers)
    params = named(numbers, layer, "sd.")
    v = as_arrays(backend, dtype, params | {"x": numbers["x"]})
    given = {n: getattr(v, n) for n in params}
    _, (position, S) = layer.apply(given, v.x, return_state=True)
    expected = np.swapaxes(numbers["final_kv"], -1, -2) * np.sqrt(numbers["final_scale"])[:, None, None]
    assert_close(S * layer.key_dim**-0.5, expected, backend, dtype, function="layers.RetNet", allowed=budget(16, dtype))
    assert backend.to_numpy(position).tolist() == [numbers["x"].shape[1]] * len(numbers["x"])


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files("minimax_lightning_layer_*")
def test_gradients(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    layer = layer_of(path, numbers)
    wanted = named(numbers, layer, "grad.sd.") or named(numbers, layer, "grad.")
    wanted |= {"x": numbers["grad.x"]} if "grad.x" in numbers else {}
    params = named(numbers, layer, "sd.")
    assert wanted.keys() == {*params, "x"}
    v = vars(as_arrays(backend, dtype, params | {"x": numbers["x"]}))
    cotangent = backend.asarray(numbers["cotangent"], dtype)

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(layer.apply({n: t[n] for n in params}, t["x"]) * cotangent)

    found = autodiff.gradient(backend, loss, {n: v[n] for n in wanted})
    check_gradients(found, wanted, backend, dtype, f"layers.{layer.name}", numbers["x"].shape[1])
