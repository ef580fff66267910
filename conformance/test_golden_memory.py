"""HiPPO as an online memory against numbers of the original implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core

from .backends import Backend
from .golden_files import files, read
from .tolerances import GOLDEN, assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

METHODS = {"forward": "euler", "backward": "backward_euler"}
LEGS, LMU = "hippo_legs_timevarying_*", "hippo_legt_lmu_*"


def method_of(path: Path) -> str:
    """The last word of the name before its sizes."""
    name = path.stem.split("_")[3]
    return METHODS.get(name, name)


def signal(numbers: dict[str, np.ndarray], backend: Backend, dtype: str) -> Any:
    return backend.asarray(numbers["f"].T, dtype)


@files(LEGS)
def test_legs(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    c = ssm_core.hippo_project(signal(numbers, backend, dtype), "legs", numbers["c"].shape[-1], method=method_of(path))
    check_coefficients(c, numbers, backend, dtype)
    s = np.linspace(0, 1, len(numbers["eval_matrix"]))  # from the oldest to the newest
    check_reconstruction(c, "legs", 1 - s, numbers, backend, dtype)


@files(LEGS)
def test_legs_at_given_times(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    times = backend.asarray(0.25 * np.arange(1, len(numbers["f"]) + 1), dtype)
    u, N = signal(numbers, backend, dtype), numbers["c"].shape[-1]
    c = ssm_core.hippo_project(u, "legs", N, times=times, method=method_of(path))
    check_coefficients(c, numbers, backend, dtype)


@files(LMU)
def test_lmu(path: Path, backend: Backend, dtype: str):
    numbers, method = read(path), method_of(path)
    u, N, dt = signal(numbers, backend, dtype), numbers["c"].shape[-1], float(numbers["dt"])
    c = ssm_core.hippo_project(u, "lmu", N, dt=dt, method=method)
    check_coefficients(c, numbers, backend, dtype)
    v = dt * np.arange(len(numbers["eval_matrix"]))  # from the oldest to the newest
    check_reconstruction(c, "lmu", 1 - v, numbers, backend, dtype)


@files(LMU)
def test_lmu_at_given_times(path: Path, backend: Backend, dtype: str):
    numbers, method = read(path), method_of(path)
    u, N, dt = signal(numbers, backend, dtype), numbers["c"].shape[-1], float(numbers["dt"])
    times = backend.asarray(np.arange(len(numbers["f"])), dtype)
    c = ssm_core.hippo_project(u, "lmu", N, times=times, window=1 / dt, method=method)
    check_coefficients(c, numbers, backend, dtype)


def check_coefficients(c: Any, numbers: dict[str, np.ndarray], backend: Backend, dtype: str) -> None:
    wanted = np.moveaxis(numbers["c"], 1, 0)
    assert_close(c, wanted, backend, dtype, function="hippo_project", allowed=GOLDEN[dtype])


def check_reconstruction(
    c: Any, measure: str, points: np.ndarray, numbers: dict[str, np.ndarray], backend: Backend, dtype: str
) -> None:
    """From the last coefficients, and the functions themselves."""
    s = backend.asarray(points, dtype)
    units = backend.asarray(np.eye(c.shape[-1]), dtype)
    found = ssm_core.hippo_reconstruct(c[:, -1, :], measure, s), ssm_core.hippo_reconstruct(units, measure, s)
    for actual, wanted in zip(found, (numbers["reconstruction_final"], numbers["eval_matrix"].T), strict=True):
        assert_close(actual, wanted, backend, dtype, function="hippo_reconstruct", allowed=GOLDEN[dtype])
