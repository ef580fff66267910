"""Diagonal plus low-rank systems against numbers of the original implementations: HiPPO in that form, and kernels."""

from __future__ import annotations

import re
from dataclasses import replace
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
from .tolerances import GOLDEN, assert_close, of_kind, phase_budget, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

S4, GRADIENT, ANNOTATED = "s4_kernel_*", "s4_kernel_grad_*", "annotated_s4_kernel_*"
FOUT = 1e-9  # its numbers hold 6e-11: the original sums its poles beside the imaginary axis through an FFT


# HiPPO ---------------------------------------------------------------------------------------------------------------


@files("hippo_nplr_*")
def test_hippo(path: Path, backend: Backend, dtype: str):
    """The phases of eigenvectors are free, so that only what does not depend on them is compared."""
    numbers, xp = read(path), backend.xp
    for measure in measures(numbers):
        system, V = low_rank(numbers, measure, backend, dtype)
        assert system.conj_pairs
        P, B, V_H = system.P, system.B, xp.conj(xp.matrix_transpose(V))
        p = 2 * xp.real(P @ xp.matrix_transpose(V))
        found = {
            "Lambda": system.poles,
            "P_real": p,
            "A_reconstructed": 2 * xp.real((V * system.poles) @ V_H) - xp.matrix_transpose(p) @ p,
            "B_reconstructed": 2 * xp.real(V @ B[:, None])[:, 0],
            "inv_absB2": xp.abs(B) ** 2,
            "inv_conjP_B": xp.conj(P) * B,
            "inv_PPstar_n": P[:, None, :] * xp.conj(P)[None, :, :],
        }
        for name, actual in found.items():
            wanted = numbers[f"{measure}_{name}"]
            assert_close(actual, wanted, backend, dtype, function="nplr", allowed=GOLDEN[dtype])
        one = np.eye(V.shape[-1]) + 0j
        assert_close(V_H @ V, one, backend, dtype, function="nplr", allowed=GOLDEN[dtype])


@files("hippo_nplr_*")
def test_impulse_response_of_hippo(path: Path, backend: Backend, dtype: str):
    """c^T expm(t A) B at many times, as the second tap of a kernel for impulses; the first is that at time 0."""
    numbers, t = read(path), read(path)["t"]
    later = backend.asarray(t[t > 0], dtype)
    for measure in measures(numbers):
        system, V = low_rank(numbers, measure, backend, dtype)
        c = backend.asarray(numbers["c"], of_kind(dtype, 1j * numbers["c"]))
        fields = {"C": (c @ V)[None, :]} | {n: getattr(system, n)[None, ...] for n in ("poles", "P", "Q", "B")}
        K = ssm_core.kernel(replace(system, **fields), 2, dt=later, method="dirac")
        wanted = numbers[f"{measure}_impulse"]
        pairs = [(K[:, 1], wanted[t > 0])]
        if (t == 0).any():
            pairs.append((K[:1, 0], wanted[t == 0]))
        norm = np.abs(t.max() * numbers[f"{measure}_A_reconstructed"]).sum(0).max()
        allowed = GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=norm**2)
        for actual, expected in pairs:
            assert_close(actual, expected, backend, dtype, function="kernel", allowed=allowed)


def measures(numbers: Numbers) -> list[str]:
    return sorted(n.removesuffix("_Lambda") for n in numbers if n.endswith("_Lambda"))


def low_rank(numbers: Numbers, measure: str, backend: Backend, dtype: str) -> Any:
    """The system and the eigenvectors, of the rank and size of the numbers."""
    rank, N = numbers[f"{measure}_P_real"].shape
    made = {"xp": backend.xp, "dtype": backend.dtype(of_kind(dtype, np.ones(1, complex))), "device": backend.device}
    return ssm_core.nplr(measure, N, rank=rank, **made)


# Kernels of S4 -------------------------------------------------------------------------------------------------------


@files(S4, without=GRADIENT)
def test_kernel_at_every_rate_and_length(path: Path, backend: Backend, dtype: str):
    """The original keeps C (I - Ab^L) and changes C with the rate; we keep C, and are given what it takes."""
    numbers = read(path)
    L, found = numbers["K"].shape[-1], {}
    for name in numbers:
        match = re.fullmatch(r"K(?:_(rate|short|doubled)([0-9.]+))?", name)
        if match:
            rate = float(match[2]) if match[1] == "rate" else 1.0
            found[name] = rate, C_of_rate(numbers, rate) if match[1] == "rate" else numbers["C"]
    inputs = effective(numbers) | {f"C {name}": C for name, (_, C) in found.items()}

    def kernels(v: SimpleNamespace) -> list[Any]:
        made = []
        for name, (rate, _) in found.items():
            system = system_of(v, getattr(v, f"C {name}"))
            length = L if name == "K" else numbers[name].shape[-1]
            K = ssm_core.kernel(system, length, dt=rate * v.dt, method="bilinear")
            made.append(v.xp.permute_dims(K, (1, 0, 2)))
        return made

    for K, (name, (rate, _)) in zip(
        backend.run(kernels, as_arrays(backend, dtype, inputs)), found.items(), strict=True
    ):
        check(K, numbers[name], numbers, path, backend, dtype, "kernel", rate)


@files(S4, without=GRADIENT)
def test_discrete_matrices(path: Path, backend: Backend, dtype: str):
    """The DPLR form of the discrete system, written out as a full matrix."""
    numbers = read(path)

    def parts(v: SimpleNamespace) -> list[Any]:
        found = ssm_core.discretize(system_of(v, v.C), v.dt, "bilinear")
        return [found.poles, found.P, found.Q, found.B]

    found = [backend.to_numpy(x) for x in backend.run(parts, as_arrays(backend, dtype, effective(numbers)))]
    poles, P, Q, B = (np.concatenate([x, x.conj()], axis=-1) for x in found)
    A = poles[..., None] * np.eye(poles.shape[-1]) - np.swapaxes(P, -1, -2) @ Q.conj()
    heads = len(numbers["Abar"])
    allowed = max(GOLDEN[dtype], tolerance(dtype, terms=poles.size))
    for actual, wanted in ((A, numbers["Abar"]), (B, numbers["Bbar"])):
        assert np.abs(actual[:heads] - wanted).max() <= allowed * np.abs(wanted).max()


@files(S4, without=GRADIENT, where=lambda numbers: "state" in numbers)
@pytest.mark.parametrize("mode", ["conv", "chunk", "scan"])
def test_states_in_every_mode(path: Path, mode: str, backend: Backend, dtype: str):
    """What a state adds to the output, and the state that an input leaves; the channels are outputs here."""
    numbers = read(path)
    inputs = {n: numbers[n] for n in ("state", "u")} | {"silence": np.zeros_like(numbers["K_state"][:, 0])}

    def runs(v: SimpleNamespace) -> Any:
        options: dict[str, Any] = {"dt": v.dt, "method": "bilinear", "initial": v.state, "mode": mode}
        y, _ = ssm_core.scan(system_of(v, v.C), v.silence, **options)
        return v.xp.permute_dims(y, (0, 2, 1, 3)), ssm_core.scan(system_of(v, v.C), v.u, **options)[1]

    y, state = backend.run(runs, as_arrays(backend, dtype, effective(numbers) | inputs))
    check(y, numbers["K_state"], numbers, path, backend, dtype, "scan")
    check(state, numbers["next_state"], numbers, path, backend, dtype, "scan")


@files(S4, without=GRADIENT)
def test_kernel_of_the_layer(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    A, B, C, P, dt = (numbers[n] for n in ("A", "B", "C", "P", "dt"))
    assert dt.shape[-1] == 1, "a step for every state is an option of `kernel`, not of the layer"
    S, N = A.shape
    params = {"log_dt": np.log(dt[:, 0]), "log_A_re": np.log(-A.real), "A_im": A.imag}
    for name, x in (("B", B[0, :S]), ("P", np.swapaxes(P, 0, 1)[:S]), ("C", C)):
        params |= {f"{name}_re": x.real, f"{name}_im": x.imag}
    layer = ssm_core.layers.S4(
        d_model=C.shape[1], d_state=2 * N, rank=P.shape[0], channels=C.shape[0], n_ssm=S, skip=False, output=None,
        activation=None,
    )  # fmt: skip

    def kernel(v: SimpleNamespace) -> Any:
        return layer.kernel({name: getattr(v, name) for name in params}, numbers["K"].shape[-1])

    K = backend.run(kernel, as_arrays(backend, dtype, params))
    check(K, numbers["K"], numbers, path, backend, dtype, "layers.S4")


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(GRADIENT)
def test_gradient_of_the_kernel(path: Path, backend: Backend, dtype: str):
    """Of sum(K * cotangent), with respect to the original's own parameters, whose C is C~ = C (I - Ab^L)."""
    numbers, xp = read(path), backend.xp
    raw = {name: backend.asarray(x, dtype) for name, x in numbers.items() if name.startswith("raw_")}
    cotangent = backend.asarray(numbers["cotangent"], dtype)
    logarithmic = np.allclose(np.exp(numbers["raw_inv_dt"]), numbers["dt"])
    H, L = numbers["dt"].shape[0], numbers["K"].shape[-1]

    def loss(raw: dict[str, Any]) -> Any:
        dt = xp.exp(raw["raw_inv_dt"]) if logarithmic else ssm_core.special.softplus(raw["raw_inv_dt"])
        A = -xp.exp(raw["raw_A_real"]) - 1j * raw["raw_A_imag"]
        B, C, P = (raw[name][..., 0] + 1j * raw[name][..., 1] for name in ("raw_B", "raw_C", "raw_P"))
        A, B, P = (
            xp.tile(A, (H // A.shape[0], 1)),
            xp.tile(B, (1, H // B.shape[1], 1)),
            xp.tile(P, (1, H // P.shape[1], 1)),
        )
        dt = dt[:, 0] if dt.shape[-1] == 1 else dt
        system = system_of(SimpleNamespace(xp=xp, A=A, P=P, B=B), C)
        return xp.sum(xp.permute_dims(kernel_of_corrected(system, dt, L, xp), (1, 0, 2)) * cotangent)

    gradients = autodiff.gradient(backend, loss, raw)
    for name in (n for n in numbers if n.startswith("grad.")):
        found = gradients[name.removeprefix("grad.")]
        allowed = 8 * budget(numbers, path, dtype)
        assert_close(found, numbers[name], backend, dtype, function="kernel", allowed=allowed)


def effective(numbers: Numbers) -> Numbers:
    """The effective parameters; copy h mod S of A for channel h, the steps tied or one for every state."""
    H, dt = numbers["C"].shape[1], numbers["dt"]
    found = {name: numbers[name] for name in ("B", "C", "P")}
    return found | {
        "A": np.tile(numbers["A"], (H // len(numbers["A"]), 1)),
        "dt": dt[:, 0] if dt.shape[-1] == 1 else dt,
    }


def system_of(v: SimpleNamespace, C: Any) -> Any:
    """The systems of all channels, with the original's channels as outputs: K (H, channels, L)."""
    P = v.xp.permute_dims(v.P, (1, 0, 2))
    return ssm_core.DPLR(v.A, P, P, v.B[0, ...], v.xp.permute_dims(C, (1, 0, 2)), conj_pairs=True)


def corrected(system: Any, dt: Any, L: int, xp: Any) -> Any:
    """The discrete system, dense and real, with C = C~ (I - Ab^L)^-1 instead of C~ (..., channels, N)."""
    dense = ssm_core.to_dense(ssm_core.discretize(system, dt, "bilinear"))
    left = xp.eye(dense.A.shape[-1], dtype=dense.A.dtype) - xp.linalg.matrix_power(dense.A, L)
    C = xp.matrix_transpose(xp.linalg.solve(xp.matrix_transpose(left), xp.matrix_transpose(dense.C)))
    return replace(dense, C=C)


def kernel_of_corrected(system: Any, dt: Any, L: int, xp: Any) -> Any:
    return ssm_core.kernel(corrected(system, dt, L, xp), L)


def C_of_rate(numbers: Numbers, rate: float) -> np.ndarray:
    """C~ (I - Ab_r^(L/r))^-1: the C that the original has at another rate, in NumPy."""
    A, P, dt = (effective(numbers)[name] for name in ("A", "P", "dt"))
    length = round(numbers["K"].shape[-1] / rate)
    n, found = A.shape[-1], []
    for h in range(len(A)):
        full, p = np.concatenate([A[h], A[h].conj()]), np.concatenate([P[:, h], P[:, h].conj()], axis=-1)
        step = np.resize(dt[h], n)
        z = rate * np.concatenate([step, step])[:, None] * (np.diag(full) - p.T @ p.conj())
        Ab = np.linalg.solve(np.eye(2 * n) - z / 2, np.eye(2 * n) + z / 2)
        Ct = np.concatenate([numbers["C_tilde"][:, h], numbers["C_tilde"][:, h].conj()], axis=-1)
        found.append((Ct @ np.linalg.inv(np.eye(2 * n) - np.linalg.matrix_power(Ab, length)))[:, :n])
    return np.stack(found, axis=1)


def check(
    actual: Any, wanted: np.ndarray, numbers: Numbers, path: Path, backend: Backend, dtype: str, function: str,
    rate: float = 1,
) -> None:  # fmt: skip
    assert_close(actual, wanted, backend, dtype, function=function, allowed=budget(numbers, path, dtype, rate))


def budget(numbers: Numbers, path: Path, dtype: str, rate: float = 1) -> float:
    """In float32 the parameters are rounded too, so that a phase w l may be off by some roundings of it."""
    if dtype == "float64":
        return FOUT if "fout" in path.stem else GOLDEN[dtype]
    length = numbers["K"].shape[-1]
    A = np.tile(numbers["A"], (len(numbers["dt"]) // len(numbers["A"]), 1))
    return tolerance(dtype, terms=length * A.shape[-1], phase=8 * phase_budget(rate * numbers["dt"] * A, length))


# Kernels of the annotated S4 -----------------------------------------------------------------------------------------


@files(ANNOTATED)
def test_kernel_of_all_modes(path: Path, backend: Backend, dtype: str):
    """Re(C Ab^l Bb) of a complex system, P and Q apart; its parameter is C~, conjugated."""
    numbers = read(path)
    L, dt = len(numbers["K"]), float(numbers["step"])
    wanted_C = numbers["Ct"].conj() @ np.linalg.inv(
        np.eye(len(numbers["B"])) - np.linalg.matrix_power(numbers["Abar"], L)
    )
    np.testing.assert_allclose(wanted_C, numbers["Cbar"], rtol=1e-9, atol=1e-9 * np.abs(wanted_C).max())
    inputs = {name: numbers[name] for name in ("Lambda", "P", "Q", "B")} | {"C": wanted_C}

    def parts(v: SimpleNamespace) -> list[Any]:
        system = ssm_core.DPLR(v.Lambda, v.P[None, :], v.Q[None, :], v.B, v.C)
        dense = ssm_core.to_dense(ssm_core.discretize(system, dt, "bilinear"))
        return [v.xp.real(ssm_core.kernel(system, L, dt=dt, method="bilinear")), dense.A, dense.B]

    phase = 8 * phase_budget(dt * numbers["Lambda"], L)
    allowed = GOLDEN[dtype] if dtype == "float64" else tolerance(dtype, terms=L * len(numbers["B"]), phase=phase)
    found = backend.run(parts, as_arrays(backend, dtype, inputs))
    for actual, name, function in zip(found, ("K", "Abar", "Bbar"), ("kernel", "to_dense", "discretize"), strict=True):
        assert_close(actual, numbers[name], backend, dtype, function=function, allowed=allowed)
