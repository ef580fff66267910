"""The layers of Mamba, Mamba-2 and Mamba-3 against numbers of the original blocks, and a stack of them.

Outputs at once and token by token, states in between and at the end, gradients with respect to input and parameters.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.layers import Mamba, Mamba2, Mamba3

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import GOLDEN, assert_close, compare, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

BLOCKS = "*mamba*_block_*"
STACKS = "mambapy_stack_*"
PREFIX = "sd."
RENAMED = {"conv1d.": "conv_", "mimo_x": "x_map", "mimo_z": "z_map", "mimo_o": "out_map"}
EPSILON = 1e-5  # of the norms between the blocks of a stack

Layer = Mamba | Mamba2 | Mamba3


def our_name(theirs: str) -> str:
    """layers.0.mixer.conv1d.weight: conv_weight."""
    name = theirs.rpartition("mixer.")[2]
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name.replace(".", "_")


def in_our_shape(theirs: str, x: np.ndarray) -> np.ndarray:
    return x[:, 0] if theirs.endswith("conv1d.weight") else x


def parameters(numbers: Numbers, prefix: str = PREFIX) -> dict[str, np.ndarray]:
    """A block's parameters by our names."""
    found = {n.removeprefix(prefix): x for n, x in numbers.items() if n.startswith(prefix)}
    return {our_name(n): in_our_shape(n, x) for n, x in found.items()}


def options(numbers: Numbers) -> dict[str, Any]:
    return dict(json.loads(str(numbers["config_json"])))


def layer_of(params: dict[str, np.ndarray], config: dict[str, Any]) -> Layer:
    """Sizes are those of the arrays; what these cannot tell is in the configuration."""
    inner, d_model = params["out_proj_weight"].shape[::-1]
    common: dict[str, Any] = {"expand": inner // d_model}
    if "B_norm_weight" in params:
        heads, rank, d_state = params["B_bias"].shape
        known = {"rope_fraction": "rope_fraction", "ngroups": "n_groups", "A_floor": "A_floor", "chunk_size": "chunk"}
        common |= {ours: config[theirs] for theirs, ours in known.items() if theirs in config}
        return Mamba3(
            d_model, d_state=d_state, head_dim=inner // heads, rank=rank, out_norm="norm_weight" in params, **common
        )
    common |= {"d_conv": params["conv_weight"].shape[1], "conv_bias": "conv_bias" in params}
    common |= {"bias": "in_proj_bias" in params}
    if "x_proj_weight" in params:
        (_, d_state), (_, rank) = params["A_log"].shape, params["dt_proj_weight"].shape
        return Mamba(d_model, d_state=d_state, dt_rank=rank, norm_epsilon=config.get("mixer_rms_eps"), **common)
    groups, heads = config["n_groups"], len(params["A_log"])
    low, high = config.get("time_step_limit", (0.0, "inf"))
    limit = float(low), float(high["__float__"] if isinstance(high, dict) else high)
    return Mamba2(
        d_model, d_state=(len(params["conv_weight"]) - inner) // (2 * groups), head_dim=inner // heads,
        n_groups=groups, epsilon=config["layer_norm_epsilon"], dt_limit=limit, chunk=config["chunk_size"], **common,
    )  # fmt: skip


def budget(layer: Layer, numbers: Numbers, dtype: str) -> float:
    """Roundings add up along the sequence and over the channels of the maps."""
    terms = 64 * numbers["x"].shape[1] * layer.inner**0.5
    return GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=terms)


def token_by_token(layer: Layer, params: dict[str, Any], x: Any, prefilled: int, xp: Any) -> tuple[Any, Any, Any]:
    """y with the first tokens at once and the rest one by one, the state after the first ones, and the last one."""
    outputs, state = [], layer.initial_state(params, x.shape[0])
    if prefilled:
        y, state = layer.apply(params, x[:, :prefilled, :], state=state, return_state=True)
        outputs += [y[:, k, :] for k in range(prefilled)]
    between, step = state, layer.stepper(params)
    for k in range(prefilled, x.shape[1]):
        y, state = step(x[:, k, :], state)
        outputs.append(y)
    return xp.stack(outputs, axis=1), between, state


@files(BLOCKS)
def test_blocks(path: Path, backend: Backend, dtype: str):
    """In every mode of the layer, and as a cached model runs it."""
    numbers = read(path)
    params = parameters(numbers)
    layer, prefilled = layer_of(params, options(numbers)), int(numbers.get("prefill_length", 0))

    def run(v: SimpleNamespace) -> Any:
        given = {n: getattr(v, n) for n in params}
        found = [layer.apply(given, v.x, return_state=True, mode=mode) for mode in layer.modes]
        y, between, last = token_by_token(layer, given, v.x, prefilled, v.xp)
        return y, between, [*((y, state) for y, state in found), (y, last)]

    cached, between, ends = backend.run(run, as_arrays(backend, dtype, params | {"x": numbers["x"]}))
    compared = [(y, "y") for y, _ in ends] + [(cached, n) for n in ("y_cached", "y_step") if n in numbers]
    lasts = [state for _, state in ends]
    states = {
        "conv_state_after_prefill": (0, [between]), "state_after_prefill": (1, [between]), "final_inputs": (0, lasts),
        "final_h": (1, lasts), "state_final": (1, lasts),
    }  # fmt: skip
    for name, (part, given) in states.items():
        compared += [(state[part], name) for state in given if name in numbers]
    for actual, name in compared:
        expected = numbers[name]
        if expected.shape != tuple(actual.shape):  # as many inputs as taps: we keep those that later steps see
            expected = expected[..., -actual.shape[-1] :]
        assert_close(actual, expected, backend, dtype, function=f"layers.{layer.name}",
                     allowed=budget(layer, numbers, dtype))  # fmt: skip


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(BLOCKS, where=lambda numbers: "cotangent" in numbers)
def test_gradients_of_blocks(path: Path, backend: Backend, dtype: str):
    """Of sum(y * cotangent), with respect to the input and every parameter."""
    numbers = read(path)
    params = parameters(numbers)
    layer = layer_of(params, options(numbers))
    v = vars(as_arrays(backend, dtype, params | {"x": numbers["x"], "c": numbers["cotangent"]}))

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(layer.apply({n: t[n] for n in params}, t["x"]) * v["c"])

    found = autodiff.gradient(backend, loss, {n: v[n] for n in (*params, "x")})
    check_gradients(found, parameters(numbers, "grad."), backend, dtype, layer, numbers)


def check_gradients(
    found: dict[str, Any], wanted: dict[str, np.ndarray], backend: Backend, dtype: str, layer: Layer, numbers: Numbers
) -> None:
    """The file has the gradient of every input."""
    assert set(wanted) == set(found)
    for name, gradient in found.items():
        compare(backend.to_numpy(gradient), wanted[name], backend, dtype, function=f"layers.{layer.name} (derivatives)",
                allowed=8 * budget(layer, numbers, dtype))  # fmt: skip


# A stack of blocks ---------------------------------------------------------------------------------------------------


def stack_of(numbers: Numbers) -> tuple[list[Layer], dict[str, np.ndarray]]:
    """The blocks, and all parameters as "layers.0.mixer.A_log"; our names after "mixer."."""
    theirs = {n.removeprefix(PREFIX): x for n, x in numbers.items() if n.startswith(PREFIX)}
    params = {full_name(n): in_our_shape(n, x) for n, x in theirs.items()}
    depth = 1 + max(int(found[1]) for n in params if (found := re.match(r"layers\.(\d+)\.", n)))
    return [layer_of(of_block(params, i), options(numbers)) for i in range(depth)], params


def full_name(theirs: str) -> str:
    block, mixer, name = theirs.rpartition("mixer.")
    return block + mixer + our_name(name) if mixer else theirs


def of_block(params: dict[str, Any], i: int) -> dict[str, Any]:
    prefix = f"layers.{i}.mixer."
    return {n.removeprefix(prefix): x for n, x in params.items() if n.startswith(prefix)}


def stack(layers: list[Layer], params: dict[str, Any], x: Any, xp: Any, *, stepped: bool = False) -> Any:
    """x + block(norm(x)) layer by layer; without a norm at the end."""
    for i, layer in enumerate(layers):
        h = ssm_core.rms_norm(x, params[f"layers.{i}.norm.weight"], epsilon=EPSILON)
        block = of_block(params, i)
        x = x + (token_by_token(layer, block, h, 0, xp)[0] if stepped else layer.apply(block, h))
    return x


@files(STACKS)
def test_stacks(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    layers, params = stack_of(numbers)

    def run(v: SimpleNamespace) -> Any:
        given = {n: getattr(v, n) for n in params}
        return [stack(layers, given, v.x, v.xp, stepped=stepped) for stepped in (False, True)]

    found = backend.run(run, as_arrays(backend, dtype, params | {"x": numbers["x"]}))
    for actual, name in zip(found, ("y", "y_step"), strict=True):
        allowed = len(layers) * budget(layers[0], numbers, dtype)
        assert_close(actual, numbers[name], backend, dtype, function="layers.Mamba", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(STACKS, where=lambda numbers: "cotangent" in numbers)
def test_gradients_of_stacks(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    layers, params = stack_of(numbers)
    v = vars(as_arrays(backend, dtype, params | {"x": numbers["x"], "c": numbers["cotangent"]}))

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(stack(layers, t, t["x"], backend.xp) * v["c"])

    found = autodiff.gradient(backend, loss, {n: v[n] for n in (*params, "x")})
    theirs = {n.removeprefix("grad."): x for n, x in numbers.items() if n.startswith("grad.")}
    wanted = {full_name(n): in_our_shape(n, x) for n, x in theirs.items()}
    check_gradients(found, wanted, backend, dtype, layers[0], numbers)
