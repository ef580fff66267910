"""The functions of Mamba-2 and Mamba-3 against numbers of the original implementations: outputs, states, gradients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import GOLDEN, assert_close, compare, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

DIFFERENTIATED: Any = {"where": lambda numbers: "cotangent" in numbers}


def budget(steps: int, dtype: str) -> float:
    return GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=64 * steps)


def check_gradients(
    found: dict[str, Any], wanted: dict[str, np.ndarray], backend: Backend, dtype: str, function: str, steps: int
) -> None:
    assert wanted
    for name, expected in wanted.items():
        allowed = 8 * budget(steps, dtype)
        compare(backend.to_numpy(found[name]), expected, backend, dtype, function=f"{function} (derivatives)",
                allowed=allowed)  # fmt: skip


# ssd -----------------------------------------------------------------------------------------------------------------

apart = pytest.mark.parametrize("apart", [True, False], ids=["dt_apart", "dt_within"])


def of_ssd(numbers: Numbers, apart: bool) -> dict[str, np.ndarray]:
    """The inputs by our names, with dt apart or multiplied into x and A."""
    found = {n: numbers[n] for n in ("B", "C")}
    if apart:
        found |= {"x": numbers["x_raw"], "dt": numbers["dt"], "A": numbers["A_raw"]}
    else:
        found |= {"x": numbers["X"], "dt": np.ones(numbers["A"].shape), "A": numbers["A"]}
    return found | ({"initial": numbers["initial_states"][:, 0]} if "initial_states" in numbers else {})


def chunks_of(numbers: Numbers) -> list[int]:
    return [int(name.removeprefix("Y_chunk")) for name in numbers if name.startswith("Y_chunk")]


@apart
@files("ssd_minimal_*")
def test_ssd(path: Path, apart: bool, backend: Backend, dtype: str):
    numbers = read(path)
    inputs = of_ssd(numbers, apart)
    assert chunks_of(numbers)
    for chunk in chunks_of(numbers):

        def run(v: SimpleNamespace, chunk: int = chunk) -> Any:
            return ssm_core.ssd(**{n: getattr(v, n) for n in inputs}, return_state=True, chunk=chunk)

        found = backend.run(run, as_arrays(backend, dtype, inputs))
        for actual, name in zip(found, ("Y", "final_state"), strict=True):
            allowed = budget(inputs["x"].shape[1], dtype)
            assert_close(actual, numbers[f"{name}_chunk{chunk}"], backend, dtype, function="ssd", allowed=allowed)


@apart
@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files("ssd_minimal_*", **DIFFERENTIATED)
def test_gradients_of_ssd(path: Path, apart: bool, backend: Backend, dtype: str):
    """Of sum(Y * cotangent) + sum(final_state * cotangent_state), for X = dt x and A = dt A_raw by the chain rule."""
    numbers = read(path)
    inputs = of_ssd(numbers, apart)
    v = vars(as_arrays(backend, dtype, inputs))
    weights = [backend.asarray(numbers[n], dtype) for n in ("cotangent", "cotangent_state") if n in numbers]

    def loss(t: dict[str, Any]) -> Any:
        results = ssm_core.ssd(**t, return_state=True, chunk=chunks_of(numbers)[0])
        return sum(backend.xp.sum(y * c) for y, c in zip(results, weights, strict=False))

    dX, dA = numbers["grad.X"], numbers["grad.A"]
    wanted = {n: numbers[f"grad.{n}"] for n in ("B", "C")}
    if apart:
        dt, A = inputs["dt"], np.broadcast_to(inputs["A"], dA.shape)
        per_step = dt * dA
        wanted |= {"x": dt[..., None] * dX, "dt": np.sum(inputs["x"] * dX, axis=-1) + A * dA}
        wanted["A"] = per_step if inputs["A"].ndim == 3 else per_step.sum((0, 1))
    else:
        wanted |= {"x": dX, "A": dA}
    if "grad.initial_states" in numbers:
        wanted["initial"] = numbers["grad.initial_states"][:, 0]
    found = autodiff.gradient(backend, loss, {n: v[n] for n in inputs})
    check_gradients(found, wanted, backend, dtype, "ssd", inputs["x"].shape[1])


# The state update ----------------------------------------------------------------------------------------------------

SIGNALS = ("x", "dt", "B", "C", "z")  # with time first
CONSTANTS = ("A", "D", "dt_bias")


def softplus_of(numbers: Numbers) -> bool:
    """Which the numbers tell."""
    first = {n: numbers[n][0] for n in SIGNALS if n in numbers} | {n: numbers[n] for n in CONSTANTS if n in numbers}
    y, _ = ssm_core.selective_state_update(numbers["initial_state"], **first, dt_softplus=True)
    return bool(np.allclose(y, numbers["out"][0], rtol=1e-6, atol=1e-6 * np.abs(numbers["out"]).max()))


@files("selective_state_update_*")
def test_state_update(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    softplus, steps = softplus_of(numbers), len(numbers["x"])
    given = [n for n in (*SIGNALS, *CONSTANTS) if n in numbers]

    def run(v: SimpleNamespace) -> Any:
        state, outputs = v.initial_state, []
        for k in range(steps):
            now = {n: getattr(v, n)[k, ...] if n in SIGNALS else getattr(v, n) for n in given}
            y, state = ssm_core.selective_state_update(state, **now, dt_softplus=softplus)
            outputs.append(y)
        return v.xp.stack(outputs, axis=0), state

    found = backend.run(run, as_arrays(backend, dtype, {n: numbers[n] for n in (*given, "initial_state")}))
    for actual, name in zip(found, ("out", "final_state"), strict=True):
        assert_close(actual, numbers[name], backend, dtype, function="selective_state_update",
                     allowed=budget(steps, dtype))  # fmt: skip


@files("selective_state_update_*", where=lambda numbers: numbers["A"].ndim == 3)
def test_the_same_steps_at_once(path: Path, backend: Backend, dtype: str):
    """Every feature of every head is a channel of the selective scan."""
    numbers = read(path)
    softplus, (steps, batch, H, P), N = softplus_of(numbers), numbers["x"].shape, numbers["A"].shape[-1]
    inputs = {n: np.moveaxis(numbers[n], 0, -1) for n in SIGNALS if n in numbers}
    flat = {n: np.reshape(x, (batch, H * P, steps)) for n, x in inputs.items() if n not in ("B", "C")}
    inputs |= {"u" if n == "x" else n: x for n, x in flat.items()}
    del inputs["x"]
    vectors = {n: np.broadcast_to(numbers[n].reshape(H, -1), (H, P)).reshape(-1) for n in CONSTANTS[1:] if n in numbers}
    inputs |= vectors | {"A": numbers["A"].reshape(H * P, N), "initial": numbers["initial_state"].reshape(batch, -1, N)}

    def run(v: SimpleNamespace) -> Any:
        given = {n: getattr(v, n) for n in inputs}
        return ssm_core.selective_scan(**given, dt_softplus=softplus, return_state=True)

    found = backend.run(run, as_arrays(backend, dtype, inputs))
    wanted = np.moveaxis(numbers["out"].reshape(steps, batch, -1), 0, -1), numbers["final_state"]
    for actual, expected in zip(found, wanted, strict=True):
        shape = (batch, H * P, -1)
        assert_close(actual, expected.reshape(shape), backend, dtype, function="selective_scan",
                     allowed=budget(steps, dtype))  # fmt: skip


# mamba3_scan ---------------------------------------------------------------------------------------------------------

MAMBA3 = ("mamba3_siso_*", "mamba3_mimo_*")
PARTS = ("angle", "ssm", "k", "v")
MAPS = ("MIMO_V", "MIMO_Z", "MIMO_O")
OF_SCAN = ("Q", "K", "V", "ADT", "DT", "Trap", "Q_bias", "K_bias", "Angles", "D", "Z", *MAPS,
           *(f"init_{part}" for part in PARTS))  # fmt: skip


def scan(t: dict[str, Any], xp: Any, chunk: int = 64) -> Any:
    """mamba3_scan of the tensors by their names there, which have the heads before time in some."""
    DT, ADT, trap = (xp.permute_dims(t[n], (0, 2, 1)) for n in ("DT", "ADT", "Trap"))
    maps = tuple(t.get(n) for n in MAPS) if "MIMO_V" in t else None
    initial = tuple(t[f"init_{part}"] for part in PARTS) if "init_ssm" in t else None
    return ssm_core.mamba3_scan(
        t["V"], DT, ADT / DT, t["K"], t["Q"], trap=trap, angles=t["Angles"], B_bias=t.get("K_bias"),
        C_bias=t.get("Q_bias"), D=t.get("D"), z=t.get("Z"), rank_maps=maps, initial=initial, return_state=True,
        chunk=chunk,
    )  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 3, 64])
@files(*MAMBA3)
def test_mamba3_scan(path: Path, chunk: int, backend: Backend, dtype: str):
    """Angles are compared on the circle."""
    numbers = read(path)
    inputs = {n: numbers[n] for n in OF_SCAN if n in numbers}

    def run(v: SimpleNamespace) -> Any:
        y, (angle, *state) = scan({n: getattr(v, n) for n in inputs}, v.xp, chunk)
        return y, v.xp.cos(angle), v.xp.sin(angle), *state

    found = backend.run(run, as_arrays(backend, dtype, inputs))
    angle, *state = (numbers[f"final_{part}"] for part in PARTS)
    wanted = [(0, numbers["out"]), (1, np.cos(angle)), (2, np.sin(angle)), *zip((3, 4, 5), state, strict=True)]
    wanted += [(i, numbers[n]) for i, n in ((0, "out_parallel"), (3, "final_ssm_parallel")) if n in numbers]
    for i, expected in wanted:
        allowed = budget(inputs["V"].shape[1], dtype)
        assert_close(found[i], expected, backend, dtype, function="mamba3_scan", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(*MAMBA3, **DIFFERENTIATED)
def test_gradients_of_mamba3_scan(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    v = vars(as_arrays(backend, dtype, {n: numbers[n] for n in OF_SCAN if n in numbers}))
    cotangent = backend.asarray(numbers["cotangent"], dtype)
    wanted = {n.removeprefix("grad."): x for n, x in numbers.items() if n.startswith("grad.")}
    fixed = {n: v[n] for n in OF_SCAN if n in v and n not in wanted}

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(scan(fixed | t, backend.xp, 3)[0] * cotangent)

    found = autodiff.gradient(backend, loss, {n: v[n] for n in wanted})
    check_gradients(found, wanted, backend, dtype, "mamba3_scan", numbers["V"].shape[1])
