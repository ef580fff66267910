"""Layers of the S4 family against numbers of the originals: S4, and SSM, S4D and DSS of annotated-s4.

As in `test_golden_layers`, the tensors of the originals become parameters of our layers by differentiable functions, so
that gradients are compared with respect to the originals' tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import layers
from ssm_core.functions.special import activation, softplus

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .test_golden_dplr import corrected
from .test_golden_layers import ACTIVATIONS, IDENTITY, NOT_OPTIONS, Original, plain_name
from .tolerances import GOLDEN, assert_close, phase_budget, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")


# S4 ------------------------------------------------------------------------------------------------------------------

S4 = ("s4block_nplr_*", "s4conv_bidirectional*_nplr_*", "s4conv_truncated_nplr_*")
FREE = {"activation": None, "output": None}


class LowRank(Original):
    """A layer of the original S4 with a DPLR matrix; its C in a file is the true one."""

    def layer(self) -> Any:
        c, kind = self.config, self.config["cls"]
        known = {"d_model", "d_state", "l_max", "disc", "channels", "bidirectional", "activation", "final_act", "rank"}
        unknown = set(c) - known - NOT_OPTIONS - {"transposed", "P_scale", "dt_transform"}
        assert not unknown, f"{self.path.name} has options that this test does not know: {sorted(unknown)}"
        assert c.get("disc", "bilinear") == "bilinear"
        plain, final = c.get("activation", "gelu"), c.get("final_act", "glu")
        output = None if kind == "FFTConv" else {"glu": "glu"}.get(final, "linear")
        assert output != "linear" or final in IDENTITY, f"{self.path.name}: final_act {final!r} is not known"
        return layers.S4(
            d_model=c["d_model"], d_state=c.get("d_state", 64), rank=self.tensors["kernel.P"].shape[0],
            channels=c.get("channels", 1), n_ssm=self.copies, bidirectional=c.get("bidirectional", False),
            activation=None if plain in IDENTITY else ACTIVATIONS[plain], output=output,
        )  # fmt: skip

    @property
    def copies(self) -> int:
        return max(self.tensors[n].shape[-3 if n in ("kernel.B", "kernel.P") else -2] for n in _PER_COPY)


_PER_COPY = ("kernel.A_real", "kernel.A_imag", "kernel.B", "kernel.P")


def s4_parameters(original: LowRank, t: dict[str, Any], xp: Any, *, corrected_length: int | None = None) -> Any:
    """Our parameters; with a length, C is C~ = C (I - Ab^L) of it."""
    S, dt = original.copies, t["kernel.inv_dt"][:, 0]

    def copies(x: Any, axis: int) -> Any:
        times = [1] * x.ndim
        times[axis] = S // x.shape[axis]
        return xp.tile(x, tuple(times))

    B, P = copies(t["kernel.B"], 1)[0, ...], xp.permute_dims(copies(t["kernel.P"], 1), (1, 0, 2, 3))
    found = {
        "log_dt": dt if original.logarithmic else xp.log(softplus(dt)),
        "log_A_re": copies(t["kernel.A_real"], 0), "A_im": -copies(t["kernel.A_imag"], 0),
        "B_re": B[..., 0], "B_im": B[..., 1], "P_re": P[..., 0], "P_im": P[..., 1],
        "C_re": t["kernel.C"][..., 0], "C_im": t["kernel.C"][..., 1],
    }  # fmt: skip
    H = found["log_dt"].shape[0]
    found["D"] = xp.reshape(t["D"], (-1, H))
    if "output_linear.0.weight" in t:
        weight = t["output_linear.0.weight"]
        found |= {
            "output_weight": xp.reshape(weight, tuple(weight.shape[:2])),
            "output_bias": t["output_linear.0.bias"],
        }
    if corrected_length is not None:
        system, dt = original.layer().system(found, xp)
        system = ssm_core.DPLR(
            system.poles, system.P, system.Q, system.B, xp.permute_dims(system.C, (1, 0, 2)), conj_pairs=True
        )
        rows = corrected(system, dt, corrected_length, xp).C  # (H, rows, (2 Re C, -2 Im C))
        n = system.poles.shape[-1]
        C = xp.permute_dims(rows, (1, 0, 2)) / 2
        found |= {"C_re": C[..., :n], "C_im": -C[..., n:]}
    return found


def apply_s4(original: LowRank, params: dict[str, Any], u: Any, xp: Any) -> Any:
    """The output in the original's order of axes."""
    layer, order = original.layer(), (0, 1, 2) if original.channels_last else (0, 2, 1)
    if original.taps == original.length:
        return xp.permute_dims(layer.apply(params, xp.permute_dims(u, order)), order)
    # The layer has no truncation of its own: its kernel, cut to the taps.
    assert layer.channels == 1
    assert layer.output is None
    assert not layer.bidirectional
    u = u if not original.channels_last else xp.permute_dims(u, order)
    v = ssm_core.convolve(u, layer.kernel(params, original.taps)[0, ...]) + params["D"][0, :, None] * u
    v = activation(layer.activation)(v)
    return xp.permute_dims(v, order) if original.channels_last else v


def s4_budget(original: LowRank, dtype: str) -> float:
    if dtype == "float64":
        return GOLDEN[dtype]
    dt, A = original.numbers["dt"].reshape(-1, 1), original.poles
    phase = phase_budget(dt * np.tile(A, (len(dt) // len(A), 1)), original.length)
    return tolerance(dtype, terms=original.length * original.poles.size, phase=8 * phase)


@files(*S4)
def test_output_and_kernel_of_s4(path: Path, backend: Backend, dtype: str):
    original = LowRank(path, read(path))

    def run(v: SimpleNamespace) -> tuple[Any, Any]:
        params = s4_parameters(original, {name: getattr(v, name) for name in original.tensors}, v.xp)
        return apply_s4(original, params, v.u, v.xp), original.layer().kernel(params, original.taps)

    found = backend.run(run, as_arrays(backend, dtype, original.tensors | {"u": original.u}))
    allowed = s4_budget(original, dtype)
    for actual, name in zip(found, ("y", "K"), strict=True):
        assert_close(actual, original.numbers[name], backend, dtype, function="layers.S4", allowed=allowed)


@files(*S4, where=lambda numbers: any(name.startswith("y_step_") for name in numbers))
def test_steps_of_s4(path: Path, backend: Backend, dtype: str):
    """The states of the full system are those of the half and their conjugates."""
    original = LowRank(path, read(path))
    v = as_arrays(backend, dtype, original.tensors | {"u": original.u})
    layer, xp = original.layer(), backend.xp
    params = s4_parameters(original, {n: getattr(v, n) for n in original.tensors}, xp)
    u = v.u if original.channels_last else xp.permute_dims(v.u, (0, 2, 1))
    found, state = stepped(layer, params, u, xp)
    found = found if original.channels_last else xp.permute_dims(found, (0, 2, 1))
    N, allowed = layer.n_states, s4_budget(original, dtype)
    for name in (n for n in original.numbers if n.startswith("y_step_")):
        assert_close(found, original.numbers[name], backend, dtype, function="layers.S4", allowed=allowed)
    for name in (n for n in original.numbers if n.startswith("final_state_")):
        wanted = original.numbers[name]
        assert_close(state, wanted[..., :N], backend, dtype, function="layers.S4", allowed=allowed)
        if wanted.shape[-1] == 2 * N:
            assert_close(xp.conj(state), wanted[..., N:], backend, dtype, function="layers.S4", allowed=allowed)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(*S4, where=lambda numbers: any(name.startswith("grad.") for name in numbers))
def test_gradients_of_s4(path: Path, backend: Backend, dtype: str):
    """Of sum(y * cotangent); the original's C is C~ by then."""
    original = LowRank(path, read(path))
    Ct = original.numbers["C_tilde"]
    tensors = original.tensors | {"kernel.C": np.stack([Ct.real, Ct.imag], axis=-1)}
    v = vars(as_arrays(backend, dtype, tensors | {"u": original.u}))
    cotangent, xp = backend.asarray(original.numbers["cotangent"], dtype), backend.xp
    L = original.config.get("l_max") or original.length

    def loss(t: dict[str, Any]) -> Any:
        params = s4_parameters(original, t, xp, corrected_length=L)
        return xp.sum(apply_s4(original, params, t["u"], xp) * cotangent)

    gradients = autodiff.gradient(backend, loss, {name: v[name] for name in (*tensors, "u")})
    gradients["x"] = gradients["u"]
    for name in (n for n in original.numbers if n.startswith("grad.")):
        actual, wanted = gradients[plain_name(name)], original.numbers[name]
        assert_close(actual, wanted, backend, dtype, function="layers.S4", allowed=8 * s4_budget(original, dtype))


@files("s4conv_stream_nplr_*")
@pytest.mark.parametrize("mode", ["auto", "conv", "chunk", "scan"])
def test_streaming_of_s4(path: Path, mode: str, backend: Backend, dtype: str):
    """The whole sequence from a state, and in two parts, through the layer without activation and output map."""
    numbers = read(path)
    A, B, C, P = numbers["A"], numbers["B"][0], numbers["C"], np.swapaxes(numbers["P"], 0, 1)
    S = len(A)
    layer = layers.S4(
        d_model=C.shape[1], d_state=2 * A.shape[-1], rank=P.shape[1], channels=C.shape[0], n_ssm=S, **FREE
    )  # fmt: skip
    params = {"log_dt": np.log(numbers["dt"][:, 0]), "log_A_re": np.log(-A.real), "A_im": A.imag, "D": numbers["D"]}
    for name, x in (("B", B[:S]), ("C", C), ("P", P[:S])):
        params |= {f"{name}_re": x.real, f"{name}_im": x.imag}
    cut = int(numbers["cut"])

    def run(v: SimpleNamespace) -> list[Any]:
        given = {name: getattr(v, name) for name in params}
        u = v.xp.permute_dims(v.x, (0, 2, 1))

        def part(u: Any, state: Any) -> Any:
            y, state = layer.apply(given, u, state=state, return_state=True, mode=mode)
            return v.xp.permute_dims(y, (0, 2, 1)), state

        y1, state1 = part(u[:, :cut, :], v.state0)
        return [*part(u, v.state0), y1, state1, *part(u[:, cut:, :], state1)]

    inputs = params | {"x": numbers["x"], "state0": numbers["state0"]}
    names = ("y", "final_state", "y_part1", "state_part1", "y_part2", "state_part2")
    allowed = GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=numbers["x"].size, phase=64)
    for actual, name in zip(backend.run(run, as_arrays(backend, dtype, inputs)), names, strict=True):
        assert_close(actual, numbers[name], backend, dtype, function="layers.S4", allowed=allowed)


def stepped(layer: Any, params: dict[str, Any], u: Any, xp: Any) -> tuple[Any, Any]:
    """(B, L, H) one step after another, and the last state."""
    step, state, outputs = layer.stepper(params), layer.initial_state(params, u.shape[0]), []
    for k in range(u.shape[1]):
        y, state = step(u[:, k, :], state)
        outputs.append(y)
    return xp.stack(outputs, axis=1), state


# The annotated S4 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Annotated:
    """A layer of annotated-s4: features are axis 1 of every parameter, all modes are stored, and the output is Re()."""

    numbers: Numbers

    def __getitem__(self, name: str) -> np.ndarray:
        """A parameter with its features first."""
        return np.moveaxis(self.numbers[f"params.{name}"], 1, 0)

    def poles(self, name: str) -> np.ndarray:
        return np.minimum(self[f"{name}_re"], -1e-4) + 1j * self[f"{name}_im"]

    @property
    def outer(self) -> Numbers:
        """The parameters that all of them have."""
        return {"log_dt": self["log_step"][:, 0], "D": self["D"].T}

    @property
    def u(self) -> np.ndarray:
        return self.numbers["u"]


def annotated_ssm(a: Annotated) -> list[tuple[Any, Numbers, tuple[str, ...]]]:
    """(layer, parameters, names of the outputs that it has)"""
    A = a["A"]
    layer = layers.SSM(d_model=len(A), d_state=A.shape[-1], **FREE)
    params = a.outer | {"A": A, "B": a["B"][..., 0], "C": np.swapaxes(a["C"], 0, 1)}
    return [(layer, params, ("y", "y_recurrent"))]


def annotated_s4d(a: Annotated) -> list[tuple[Any, Numbers, tuple[str, ...]]]:
    """Re(C x) = 2 Re(C/2 x), so that every mode is half a pair."""
    A, C = a.poles("A"), (a["C"][..., 0] + 1j * a["C"][..., 1])[None] / 2
    layer = layers.S4D(d_model=len(A), d_state=2 * A.shape[-1], trainable_B=False, **FREE)
    params = a.outer | {"log_A_re": np.log(-A.real), "A_im": A.imag, "C_re": C.real, "C_im": C.imag}
    return [(layer, params, ("y", "y_recurrent"))]


def annotated_dss(a: Annotated) -> list[tuple[Any, Numbers, tuple[str, ...]]]:
    """Its recurrent form has no epsilon."""
    A, W = a["Lambda_re"] + 1j * a["Lambda_im"], np.moveaxis(a["W"], 1, 0)
    options = {"d_model": len(A), "length": len(a.u), "d_state": 2 * A.shape[-1], "n_ssm": None, **FREE}
    params = a.outer | {"A_re": A.real, "A_im": A.imag, "W_re": W[..., 0], "W_im": W[..., 1]}
    return [
        (layers.DSS(epsilon=1e-7, **options), params, ("y",)),
        (layers.DSS(epsilon=0.0, **options), params, ("y_recurrent",)),
    ]


ANNOTATED: dict[str, Callable[[Annotated], list[tuple[Any, Numbers, tuple[str, ...]]]]] = {
    "ssm": annotated_ssm,
    "s4d": annotated_s4d,
    "dss": annotated_dss,
}


@files(*(f"annotated_layer_{name}_*" for name in ANNOTATED))
def test_annotated_layers(path: Path, backend: Backend, dtype: str):
    """In every mode and step by step."""
    a = Annotated(read(path))
    for layer, params, names in ANNOTATED[path.stem.split("_")[2]](a):

        def run(v: SimpleNamespace, layer: Any = layer, params: Any = params) -> list[Any]:
            given, u = {name: getattr(v, name) for name in params}, v.u[None, ...]
            ys = [layer.apply(given, u, mode=mode) for mode in ("conv", "chunk", "scan")]
            return [y[0, ...] for y in (*ys, stepped(layer, given, u, v.xp)[0])]

        A = params["A"] if "A" in params else params["A_im"]
        w = np.abs(np.exp(params["log_dt"])[:, None] * A.reshape(len(params["log_dt"]), -1)).max()
        allowed = GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=a.u.size, phase=8 * w * len(a.u))
        for y in backend.run(run, as_arrays(backend, dtype, params | {"u": a.u})):
            for name in names:
                assert_close(y, a.numbers[name], backend, dtype, function=f"layers.{layer.name}", allowed=allowed)


@files("annotated_layer_s4_*")
@pytest.mark.parametrize("mode", ["conv", "chunk", "scan"])
def test_annotated_s4_layer(path: Path, mode: str, backend: Backend, dtype: str):
    """Not expressed by the layer, whose poles come in pairs: complex systems, one a feature, of which Re() is taken."""
    a = Annotated(read(path))
    A, P, B, dt = a.poles("Lambda"), a["P"], a["B"], np.exp(a["log_step"][:, 0])
    z = dt[:, None, None] / 2 * (A[..., None] * np.eye(A.shape[-1]) - P[:, :, None] * P.conj()[:, None, :])
    one = np.eye(A.shape[-1])
    Ab = np.linalg.solve(one - z, one + z)
    Ct = (a["C"][..., 0] - 1j * a["C"][..., 1])[:, None, :]  # conjugated, and C~ from the start
    C = (Ct @ np.linalg.inv(one - np.linalg.matrix_power(Ab, len(a.u))))[:, 0]

    def run(v: SimpleNamespace) -> Any:
        P = v.P[:, None, :]
        y, _ = ssm_core.scan(ssm_core.DPLR(v.A, P, P, v.B, v.C), v.u, dt=v.dt, method="bilinear", mode=mode)
        return v.xp.real(y) + v.D[:, None] * v.u

    inputs = {"A": A, "P": P, "B": B, "C": C, "D": a["D"][:, 0], "dt": dt, "u": a.u.T}
    y = backend.run(run, as_arrays(backend, dtype, inputs))
    phase = 8 * phase_budget(dt[:, None] * A, len(a.u))
    allowed = GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=a.u.size * A.size, phase=phase)
    for name in ("y", "y_recurrent"):
        assert_close(y, a.numbers[name].T, backend, dtype, function="scan", allowed=allowed)


@files("annotated_s4d_dss_kernel_*")
def test_annotated_kernels(path: Path, backend: Backend, dtype: str):
    """S4D with all modes, and DSS with its softmax; its recurrent form has no epsilon."""
    numbers = read(path)
    A, Lam, W, dt = (numbers[name] for name in ("A", "Lam", "W", "step"))
    L = len(numbers["K_dss"])
    options = {"d_model": 1, "length": L, "d_state": 2 * len(Lam), **FREE, "skip": False}
    params = {"log_dt": np.log(dt)[None], "A_re": Lam.real[None], "A_im": Lam.imag[None]}
    params |= {"W_re": W.real[None, None], "W_im": W.imag[None, None]}

    def run(v: SimpleNamespace) -> list[Any]:
        K = ssm_core.kernel(ssm_core.Diagonal(v.A, v.one, v.C, conj_pairs=True), L, dt=float(dt))
        given = {name: getattr(v, name) for name in params}
        system, _ = layers.DSS(epsilon=0.0, **options).system(given, v.xp)
        return [K, K, layers.DSS(**options).kernel(given, L)[0, 0, :], system.B[0, :]]

    inputs = params | {"A": A, "C": numbers["C"] / 2, "one": np.ones(len(A))}
    found = backend.run(run, as_arrays(backend, dtype, inputs))
    phase = 8 * phase_budget(dt * np.concatenate([A, Lam]), L)
    allowed = GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=L * len(A), phase=phase)
    for actual, name in zip(found, ("K_s4d", "K_s4d_zoh", "K_dss", "dss_Bbar"), strict=True):
        function = "kernel" if "s4d" in name else "layers.DSS"
        assert_close(actual, numbers[name], backend, dtype, function=function, allowed=allowed)
