"""Whole models of flash-linear-attention, block by block: GLA, RetNet and HGRN2 as their checkpoints hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssm_core.functions.affine import affine
from ssm_core.functions.norms import normed
from ssm_core.functions.special import silu
from ssm_core.layers import GLA, HGRN2, RetNet

from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import GOLDEN, assert_close, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")


def lower_bound(weights: Numbers, depth: int) -> Numbers:
    """Of the gates of HGRN2, from the rows of all layers."""
    if "model.lower_bounds" not in weights:
        return {}
    shares = np.exp(weights["model.lower_bounds"])
    shares = shares / shares.sum(0)
    return {"lower_bound": np.cumsum(shares, axis=0)[depth] - shares[0]}


def sizes(config: dict[str, Any]) -> dict[str, Any]:
    names = {"expand_k": "expand_k", "expand_v": "expand_v", "heads": "num_heads", "epsilon": "norm_eps"}
    return {ours: config[theirs] for ours, theirs in names.items()}


LAYERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "gla": lambda c: GLA(c["hidden_size"], chunk=5, **sizes(c)),
    "retnet": lambda c: RetNet(c["hidden_size"], chunk=5, **sizes(c)),
    "hgrn2": lambda c: HGRN2(c["hidden_size"], heads=c["num_heads"], lower_bound=None, chunk=5),
}


def weights_of(folder: Path) -> Numbers:
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    return {n: x.astype(np.float64) for n, x in safetensors.load_file(folder / "model.safetensors").items()}


@files("fla_*_lm_tiny", where=lambda numbers: "recurrent_state_final" in numbers and "hidden_states" in numbers)
def test_blocks_of_models(path: Path, backend: Backend, dtype: str):
    """From the input of every block to that of the next, and the state that it leaves."""
    kind, folder, numbers = path.stem.split("_")[1], path.with_suffix(""), read(path)
    if kind not in LAYERS:
        pytest.skip("another family")
    config, weights = json.loads((folder / "config.json").read_text()), weights_of(folder)
    layer, hidden = LAYERS[kind](config), numbers["hidden_states"]
    for depth in range(len(hidden) - 1):
        prefix = f"model.layers.{depth}."
        own = {n.removeprefix(prefix): x for n, x in weights.items() if n.startswith(prefix)}
        names = {n: n.removeprefix("attn.").replace(".", "_") for n in own}
        given = {names[n]: x for n, x in own.items()} | {"x": hidden[depth]} | lower_bound(weights, depth)

        def run(v: SimpleNamespace) -> Any:
            params = {p.name: getattr(v, p.name) for p in layer.parameters()}
            z = normed(v.x, v.attn_norm_weight, epsilon=config["norm_eps"])
            y, state = layer.apply(params, z, return_state=True)
            x = v.x + y
            z = normed(x, v.mlp_norm_weight, epsilon=config["norm_eps"])
            gate, up = (affine(z, getattr(v, f"mlp_{n}_proj_weight"), None) for n in ("gate", "up"))
            return x + affine(silu(gate) * up, v.mlp_down_proj_weight, None), state[-1]

        found = backend.run(run, as_arrays(backend, dtype, given))
        S = numbers["recurrent_state_final"][depth]
        S = np.swapaxes(S, -1, -2) if str(numbers["recurrent_state_layout"]) == "vk" else S
        allowed = GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=1e5)
        for actual, expected in zip(found, (hidden[depth + 1], S), strict=True):
            assert_close(actual, expected, backend, dtype, function=f"layers.{layer.name}", allowed=allowed)
