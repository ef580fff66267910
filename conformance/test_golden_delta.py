"""Delta rules against numbers of the original implementations: outputs, states, gradients, step by step."""

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
from .test_golden_duality import budget, check_gradients
from .tolerances import assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

RULES = ("delta_rule_*", "gated_delta_rule_*", "kda_*", "dplr_delta_*", "rwkv7_wkv_*", "gdn2_*", "comba_*",
         "gated_delta_product_*")  # fmt: skip
# Our names of theirs, by the beginning of the file's name; the first that fits.
NAMES = {
    "delta_rule": {},
    "gated_delta_rule": {"g": "log_decay"},
    "kda": {"g": "log_decay"},
    "dplr_delta": {"gk": "log_decay", "alpha": "a", "beta": "b"},
    "rwkv7_wkv": {"r": "q"},
    "gdn2": {"g": "log_decay", "b": "erase", "w": "write"},
    "comba": {"g": "log_decay", "p": "a"},
    "gated_delta_product": {"g": "log_decay"},
}
HEADS_FIRST = ("delta_rule", "dplr_delta")


class Original:
    """A file: its inputs by our names, and the way from an array of theirs to one of ours."""

    def __init__(self, path: Path, numbers: Numbers):
        self.kind = next(kind for kind in NAMES if path.stem.startswith(kind))
        self.numbers, self.normed = numbers, "l2norm" in path.stem or "lowerbound" in path.stem
        self.features = int(path.stem.rpartition("_N")[2]) if self.kind == "rwkv7_wkv" else 0
        names = NAMES[self.kind] | {"initial_state": "initial"}
        ours = ("q", "k", "v", "beta", "beta_raw", "a", "b", "log_decay", "erase", "write", "initial")
        self.names = {theirs: names.get(theirs, theirs) for theirs in numbers}
        self.names = {theirs: name for theirs, name in self.names.items() if name in ours}
        self.inputs = {name: self.ours(numbers[theirs], name) for theirs, name in self.names.items()}
        if self.kind == "rwkv7_wkv":
            self.inputs["log_decay"] = -np.exp(self.ours(numbers["w"], "w"))

    def ours(self, x: np.ndarray, name: str) -> np.ndarray:
        if self.kind in HEADS_FIRST and name not in ("initial", "state"):
            return np.swapaxes(x, 1, 2)
        if self.features:
            return x.reshape(*x.shape[:2], -1, self.features)
        if self.kind == "gated_delta_product" and name in ("k", "v", "beta"):
            return x.reshape(*self.numbers["q"].shape[:2], -1, *x.shape[2:])
        return x

    def run(self, v: dict[str, Any], xp: Any, **options: Any) -> Any:
        """y and the last state."""
        given = {n: x for n, x in v.items() if n != "beta_raw"}
        if self.normed:
            for n in ("q", "k"):
                given[n] = v[n] / xp.sqrt(xp.sum(v[n] * v[n], axis=-1, keepdims=True) + 1e-6)
        if "beta_raw" in v:
            given["beta"] = 1 / (1 + xp.exp(-v["beta_raw"]))
        scale = {"scale": 1.0} if self.features else {}
        return ssm_core.gated_delta(**given, **scale, return_state=True, **options)


@pytest.mark.parametrize("chunk", [1, 5, 64])
@files(*RULES)
def test_outputs_and_states(path: Path, chunk: int, backend: Backend, dtype: str):
    numbers = read(path)
    one = Original(path, numbers)

    def run(v: SimpleNamespace) -> Any:
        return one.run({n: getattr(v, n) for n in one.inputs}, v.xp, chunk=chunk)

    found = backend.run(run, as_arrays(backend, dtype, one.inputs))
    wanted = [one.ours(numbers["o"], "o"), *(numbers[n] for n in ("final_state",) if n in numbers)]
    for actual, expected in zip(found, wanted, strict=False):
        allowed = budget(one.inputs["q"].shape[1], dtype)
        assert_close(actual, expected, backend, dtype, function="gated_delta", allowed=allowed)


@files("gated_delta_rule_B2*", "kda_B2*", "dplr_delta_B2*", "gdn2_*", "comba_*", "gated_delta_product_*")
def test_steps(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    one = Original(path, numbers)
    initial = one.inputs.pop("initial", None)
    initial = np.zeros_like(numbers["final_state"]) if initial is None else initial
    L = one.inputs["q"].shape[1]

    def run(v: SimpleNamespace) -> Any:
        state, outputs = v.initial, []
        for t in range(L):
            now = {n: getattr(v, n)[:, t, ...] for n in one.inputs}
            y, state = ssm_core.gated_delta_update(state, **now)
            outputs.append(y)
        return v.xp.stack(outputs, axis=1), state

    found = backend.run(run, as_arrays(backend, dtype, one.inputs | {"initial": initial}))
    for actual, expected in zip(found, (one.ours(numbers["o"], "o"), numbers["final_state"]), strict=True):
        assert_close(actual, expected, backend, dtype, function="gated_delta_update", allowed=budget(L, dtype))


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(*RULES, where=lambda numbers: "cotangent" in numbers)
def test_gradients(path: Path, backend: Backend, dtype: str):
    """Of sum(o * cotangent) + sum(final_state * cotangent_state)."""
    numbers = read(path)
    one = Original(path, numbers)
    v = vars(as_arrays(backend, dtype, one.inputs))
    weights = [one.ours(numbers["cotangent"], "o"), *(numbers[n] for n in ("cotangent_state",) if n in numbers)]
    weights = [backend.asarray(w, dtype) for w in weights]
    wanted = {name: one.ours(numbers[f"grad.{theirs}"], name) for theirs, name in one.names.items()
              if f"grad.{theirs}" in numbers}  # fmt: skip
    if one.features and "grad.w" in numbers:  # the log decay is -e^w
        wanted["log_decay"] = one.ours(numbers["grad.w"], "w") / one.inputs["log_decay"]

    def loss(t: dict[str, Any]) -> Any:
        results = one.run(t, backend.xp, chunk=4)
        return sum(backend.xp.sum(y * c) for y, c in zip(results, weights, strict=False))

    found = autodiff.gradient(backend, loss, {n: v[n] for n in one.inputs})
    check_gradients(found, wanted, backend, dtype, "gated_delta", one.inputs["q"].shape[1])
