"""S4D kernels against numbers of the original implementation: at other rates, from states, and their gradients."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import discretization, files, read
from .tolerances import GOLDEN, assert_close, phase_budget, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

ALL, DSS = "s4d_kernel_*", "s4d_kernel_dss_*"


@files(ALL, without=DSS)
def test_kernel_at_every_rate(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    found = {name: re.fullmatch(r"K(?:_rate([0-9.]+))?", name) for name in numbers}
    rates = {name: float(match[1] or 1) for name, match in found.items() if match}

    def kernels(v: SimpleNamespace) -> list[Any]:
        system = ssm_core.Diagonal(v.A[None, ...], v.B, v.C, conj_pairs=True)
        length, method = numbers["K"].shape[-1], discretization(path)
        return [ssm_core.kernel(system, length, dt=r * v.dt[None, ...], method=method) for r in rates.values()]

    for K, (name, rate) in zip(backend.run(kernels, arrays(numbers, backend, dtype)), rates.items(), strict=True):
        check(K, numbers, name, backend, dtype, "kernel", rate)


@files(DSS)
def test_kernel_of_dss(path: Path, backend: Backend, dtype: str):
    """K_l = Re sum_n C_n B_n (e^(dt A_n) - 1) r_n e^(l dt A_n): a discrete system with an input vector of its own."""
    numbers = read(path)
    A, B, dt = numbers["A"], numbers["B"], numbers["dt"]
    length = numbers["K"].shape[-1]
    x = (np.exp(length * dt * A) - 1) * A
    softmax = np.conj(x) / (np.abs(x) ** 2 + 1e-7)
    half = numbers | {"A": np.exp(dt * A), "B": B * np.expm1(dt * A) * softmax / 2}  # no factor 2 here
    v = arrays(half, backend, dtype)
    K = ssm_core.kernel(ssm_core.Diagonal(v.A[None, ...], v.B, v.C, conj_pairs=True, discrete=True), length)
    check(K, numbers, "K", backend, dtype, "kernel")


@files(ALL, where=lambda numbers: "state" in numbers)
def test_states_in_every_mode(path: Path, backend: Backend, dtype: str):
    """What a state adds to the output, and the state that an input leaves; the channels are outputs here."""
    numbers = read(path)
    modes = ("conv", "chunk", "scan")

    def runs(v: SimpleNamespace) -> list[Any]:
        system = ssm_core.Diagonal(v.A, v.B[0, ...], v.xp.permute_dims(v.C, (1, 0, 2)), conj_pairs=True)
        found = []
        for mode in modes:
            options: dict[str, Any] = {"dt": v.dt, "method": discretization(path), "initial": v.state, "mode": mode}
            y, _ = ssm_core.scan(system, v.silence, **options)
            found.append((v.xp.permute_dims(y, (0, 2, 1, 3)), ssm_core.scan(system, v.u, **options)[1]))
        return found

    v = arrays(numbers | {"silence": np.zeros(numbers["K_state"].shape[:1] + numbers["K"].shape[1:])}, backend, dtype)
    for y, state in backend.run(runs, v, steps=numbers["K"].shape[-1]):
        check(y, numbers, "K_state", backend, dtype, "scan")
        check(state, numbers, "next_state", backend, dtype, "scan")


@files(ALL, without=DSS, where=lambda numbers: numbers["dt"].shape[-1] == 1)
def test_kernel_of_the_layer(path: Path, backend: Backend, dtype: str):
    """Not where every state has a step of its own, which is an option of `kernel`, not of the layer."""
    numbers = read(path)
    layer, params = layer_of(numbers, discretization(path))

    def kernel(v: SimpleNamespace) -> Any:
        return layer.kernel({name: getattr(v, name) for name in params}, numbers["K"].shape[-1])

    K = backend.run(kernel, as_arrays(backend, dtype, params))
    check(K, numbers, "K", backend, dtype, "layers.S4D")


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files("s4d_kernel_grad_*")
def test_gradient_of_the_kernel(path: Path, backend: Backend, dtype: str):
    """Of sum(K * cotangent), with respect to the original's own parameters."""
    numbers = read(path)
    raw = {name: backend.asarray(x, dtype) for name, x in numbers.items() if name.startswith("raw_")}
    cotangent = backend.asarray(numbers["cotangent"], dtype)
    logarithmic = np.allclose(np.exp(numbers["raw_inv_dt"]), numbers["dt"])
    xp, method = backend.xp, discretization(path)

    def loss(raw: dict[str, Any]) -> Any:
        dt = xp.exp(raw["raw_inv_dt"]) if logarithmic else ssm_core.special.softplus(raw["raw_inv_dt"])
        A = -xp.exp(raw["raw_A_real"]) - 1j * raw["raw_A_imag"]
        B, C = (raw[name][..., 0] + 1j * raw[name][..., 1] for name in ("raw_B", "raw_C"))
        copies = numbers["dt"].shape[0] // A.shape[0]
        A, B = xp.tile(A, (copies, 1)), xp.tile(B, (1, numbers["dt"].shape[0] // B.shape[1], 1))
        system = ssm_core.Diagonal(A[None, ...], B, C, conj_pairs=True)
        K = ssm_core.kernel(system, cotangent.shape[-1], dt=dt[None, ...], method=method)
        return xp.sum(K * cotangent)

    gradients = autodiff.gradient(backend, loss, raw)
    for name in (n for n in numbers if n.startswith("grad.")):
        check(gradients[name.removeprefix("grad.")], numbers, name, backend, dtype, "kernel")


def arrays(numbers: dict[str, np.ndarray], backend: Backend, dtype: str) -> SimpleNamespace:
    """The effective parameters and signals; copy h mod S of A for channel h."""
    H = numbers["C"].shape[1]
    kept = {name: numbers[name] for name in ("B", "C", "dt", "state", "u", "silence") if name in numbers}
    return as_arrays(backend, dtype, kept | {"A": np.tile(numbers["A"], (H // len(numbers["A"]), 1))})


def layer_of(numbers: dict[str, np.ndarray], method: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Our layer with the effective parameters. The original's real system has a factor 2 that ours has not."""
    A, B, C = (numbers[name] for name in "ABC")
    real = not np.iscomplexobj(A)
    C = 2 * C if real else C
    B = B[0, : len(A)]  # stored for every channel
    params = {"log_dt": np.log(numbers["dt"][:, 0]), "log_A_re": np.log(-A.real), "B_re": B.real, "C_re": C.real}
    params |= {} if real else {"A_im": A.imag, "B_im": B.imag, "C_im": C.imag}
    layer = ssm_core.layers.S4D(
        d_model=C.shape[1], d_state=A.shape[-1] * (1 if real else 2), channels=C.shape[0], n_ssm=len(A), real=real,
        init="real" if real else "lin", discretization=method, skip=False, output=None, activation=None,
    )  # fmt: skip
    return layer, params


def check(
    actual: Any, numbers: dict[str, np.ndarray], name: str, backend: Backend, dtype: str, function: str, rate: float = 1
) -> None:
    """In float32 the parameters are rounded too, so that a phase w l may be off by some roundings of it."""
    length = numbers["K"].shape[-1]
    phase = phase_budget(rate * numbers["dt"] * numbers["A"], length)
    allowed = max(GOLDEN[dtype] if dtype == "float64" else 0.0, tolerance(dtype, terms=length, phase=8 * phase))
    assert_close(actual, numbers[name], backend, dtype, function=function, allowed=allowed)
