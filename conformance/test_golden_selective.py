"""The selective scan against numbers of the original implementation: outputs, last states and gradients."""

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
from .tolerances import GOLDEN, assert_close, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

ALL = "selective_scan_*"
OURS = {"delta": "dt", "delta_bias": "dt_bias"}


def tensors(numbers: Numbers) -> dict[str, np.ndarray]:
    """The inputs by our names; complex rows of every step come interleaved, and as such too."""
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    found = {n: numbers.get(f"{n}_complex", numbers.get(n)) for n in names}
    return {OURS.get(n, n): x for n, x in found.items() if x is not None}


def softplus_of(path: Path, numbers: Numbers) -> bool:
    """Which the numbers tell: steps are positive with it."""
    plain = {"D": None, "z": None} | tensors(numbers)
    y = ssm_core.selective_scan(**plain, dt_softplus=True)
    return bool(np.allclose(y, numbers["out"], rtol=1e-6, atol=1e-6 * np.abs(numbers["out"]).max()))


def scan(t: dict[str, Any], softplus: bool) -> Any:
    return ssm_core.selective_scan(**t, dt_softplus=softplus, return_state=True)


def budget(numbers: Numbers, dtype: str) -> float:
    return GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=64 * numbers["u"].shape[-1])


@files(ALL)
def test_output_and_last_state(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    names, softplus = list(tensors(numbers)), softplus_of(path, numbers)

    def run(v: SimpleNamespace) -> Any:
        return scan({n: getattr(v, n) for n in names}, softplus)

    found = backend.run(run, as_arrays(backend, dtype, tensors(numbers)))
    for actual, name in zip(found, ("out", "last_state"), strict=True):
        allowed = budget(numbers, dtype)
        assert_close(actual, numbers[name], backend, dtype, function="selective_scan", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(ALL, where=lambda numbers: "cotangent" in numbers)
def test_gradients(path: Path, backend: Backend, dtype: str):
    """Of sum(out * cotangent); for complex tensors dL/dRe + i dL/dIm, the conjugate of JAX's."""
    numbers = read(path)
    softplus = softplus_of(path, numbers)
    v = vars(as_arrays(backend, dtype, tensors(numbers)))
    cotangent = backend.asarray(numbers["cotangent"], dtype)
    t = {name: v[name] for name in tensors(numbers)}
    gradients = autodiff.gradient(backend, lambda t: backend.xp.sum(scan(t, softplus)[0] * cotangent), t)
    for name, gradient in gradients.items():
        theirs = next((n for n, ours in OURS.items() if ours == name), name)
        wanted = numbers[f"grad.{theirs}"]
        if wanted.shape != tuple(gradient.shape):  # interleaved real and imaginary parts
            wanted = wanted[..., 0::2] + 1j * wanted[..., 1::2]
        found = backend.to_numpy(gradient)
        found = found.conj() if backend.family == "jax" and np.iscomplexobj(found) else found
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert error <= 8 * budget(numbers, dtype), f"{name}: {error:.1e}"
