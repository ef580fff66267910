"""HiPPO matrices, initial systems and discretizations against numbers of the original implementations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core

from .backends import Backend
from .golden_files import files, read
from .tolerances import GOLDEN, assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

NAME = re.compile(r"(?P<measure>\w+?)(?P<options>(_(alpha|beta)[0-9.]+)*)(?P<doubled>_hippocode)?_A")
METHODS = {"forward_euler": "euler", "annotated_bilinear": "bilinear"}


def made(backend: Backend, dtype: str) -> dict[str, Any]:
    return {"xp": backend.xp, "dtype": backend.dtype(dtype), "device": backend.device}


@files("hippo_transition_*")
def test_hippo(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    for name in (n for n in numbers if n.endswith("_A")):
        found = NAME.fullmatch(name)
        assert found, name
        options = {k: float(v) for k, v in re.findall(r"(alpha|beta)([0-9.]+)", found["options"])}
        A, B = ssm_core.hippo(found["measure"], numbers[name].shape[0], **options, **made(backend, dtype))
        factor = 2 if found["doubled"] else 1
        for actual, wanted in ((A, numbers[name]), (B, numbers[name.removesuffix("_A") + "_B"])):
            check(actual, wanted / factor, backend, dtype, "hippo")


@files("s4d_init_*")
def test_initial_systems(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    scales = {name: float(numbers[name]) for name in ("real_scale", "imag_scale")}
    B_scale = float(numbers["B_scale"])
    for name in (n.removesuffix("_A") for n in numbers if n.endswith("_A")):
        N = 2 * len(numbers[f"{name}_A"])
        options: dict[str, Any] = {"B_scale": B_scale} | ({} if name == "real" else scales)
        options |= {"B_clip": 2.0} if name == "legs" else {}
        for suffix, normalize in (("B", False), ("B_normalized", True)):
            system = ssm_core.diagonal_init(name, N, normalize=normalize, **options, **made(backend, dtype))
            wanted = numbers[f"{name}_{suffix}"]
            if name == "legs":  # the sign of an eigenvector, and of its entry of B, is a matter of convention
                wanted = wanted * np.sign((backend.to_numpy(system.B) * wanted.conj()).real)
            check(system.poles, numbers[f"{name}_A"], backend, dtype, "diagonal_init")
            check(system.B, wanted, backend, dtype, "diagonal_init")


@files("s4d_init_*")
def test_initial_inputs(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    for name in (n.removeprefix("Binit_") for n in numbers if n.startswith("Binit_")):
        wanted = numbers[f"Binit_{name}"]
        options = {"B_init": name, "B_scale": float(numbers["B_scale"])}
        system = ssm_core.diagonal_init("lin", 2 * len(wanted), **options, **made(backend, dtype))
        check(system.B, wanted, backend, dtype, "diagonal_init")


@files("disc_dense_*")
def test_dense_discretization(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    A, B, dt = (backend.asarray(numbers[name], dtype) for name in ("A", "B", "dt"))
    for name in (n.removesuffix("_Abar") for n in numbers if n.endswith("_Abar")):
        method = name.removeprefix("scipy_")
        options = {}
        if method.startswith("gbt_"):
            method, alpha = method.split("_")
            options["alpha"] = float(alpha)
        system = ssm_core.Dense(A[None, ...], B[None, ...])
        found = ssm_core.discretize(system, dt, METHODS.get(method, method), **options)
        found_A, found_B = (found.A, found.B) if method != "foh" else delayed_foh(found, backend)
        check(found_A, numbers[f"{name}_Abar"], backend, dtype, "discretize")
        check(found_B, numbers[f"{name}_Bbar"], backend, dtype, "discretize")


def delayed_foh(system: Any, backend: Backend) -> tuple[Any, Any]:
    """SciPy's form of foh, whose states s = x - B u have forgotten the input before: B' = B_prev + A B."""
    N = system.A.shape[-1] - 1
    A, before, now = system.A[..., :N, :N], system.A[..., :N, N], system.B[..., :N]
    return A, before + backend.xp.matmul(A, now[..., None])[..., 0]


@files("disc_diag_*")
def test_diagonal_discretization(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    kinds = {"A": "complex128", "B": "complex128", "B_mimo": "complex128", "dt": "float64", "dt_per_state": "float64"}
    if dtype == "float32":
        kinds = {name: {"complex128": "complex64", "float64": "float32"}[kind] for name, kind in kinds.items()}
    v = {name: backend.asarray(numbers[name], kind) for name, kind in kinds.items()}
    for name in (n.removesuffix("_Abar") for n in numbers if n.endswith("_Abar")):
        source, _, method = name.partition("_")
        if source == "s5":  # several inputs, a step for every state
            system, dt = ssm_core.Diagonal(v["A"], v["B_mimo"]), v["dt_per_state"]
        else:
            system, dt = ssm_core.Diagonal(v["A"][None, :], v["B"][None, :]), v["dt"]
        found = ssm_core.discretize(system, dt, method)
        check(found.poles, numbers[f"{name}_Abar"], backend, dtype, "discretize")
        check(found.B, numbers[f"{name}_Bbar"], backend, dtype, "discretize")


def check(actual: Any, wanted: np.ndarray, backend: Backend, dtype: str, function: str) -> None:
    assert_close(actual, wanted, backend, dtype, function=function, allowed=GOLDEN[dtype])
