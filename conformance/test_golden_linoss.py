"""D-LinOSS against numbers of the original: outputs and gradients, with parameters beyond their bounds too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssm_core import layers

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import GOLDEN, assert_close, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

TENSORS = ("A_diag", "G_diag", "dt", "B", "C", "D")


def budget(numbers: Numbers, dtype: str) -> float:
    return GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=64 * numbers["u"].size)


def applied(v: SimpleNamespace) -> Any:
    P, H = v.B.shape[:2]
    layer = layers.DLinOSS(H, d_state=P, activation=None, output=None)
    params = {"A_diag": v.A_diag, "G_diag": v.G_diag, "steps": v.dt, "B_re": v.B[..., 0], "B_im": v.B[..., 1]}
    params |= {"C_re": v.C[None, :, :, 0], "C_im": v.C[None, :, :, 1], "D": v.D[None, :]}
    return layer.apply(params, v.u[None, ...])[0, ...]


@files("damped_linoss_*")
def test_output(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    v = as_arrays(backend, dtype, {n: numbers[f"sd.{n}"] for n in TENSORS} | {"u": numbers["u"]})
    y = backend.run(applied, v)
    assert_close(y, numbers["y"], backend, dtype, function="layers.DLinOSS", allowed=budget(numbers, dtype))


@files("damped_linoss_*")
@pytest.mark.backends("torch")
def test_gradients(path: Path, backend: Backend, dtype: str):
    """Of sum(y * cotangent)."""
    numbers = read(path)
    v = vars(as_arrays(backend, dtype, {n: numbers[f"sd.{n}"] for n in TENSORS} | {"u": numbers["u"]}))
    cotangent = backend.asarray(numbers["cotangent"], dtype)
    leaves = {name: v[name] for name in (*TENSORS, "u")}

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(applied(SimpleNamespace(**t)) * cotangent)

    for name, gradient in autodiff.gradient(backend, loss, leaves).items():
        wanted = numbers[f"grad.{name}"]
        error = np.abs(backend.to_numpy(gradient) - wanted).max() / np.abs(wanted).max()
        assert error <= 64 * budget(numbers, dtype), f"{name}: {error:.1e}"
