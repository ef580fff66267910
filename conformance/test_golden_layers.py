"""Whole layers against numbers of the original S4 and S4D: outputs, steps, streaming and gradients.

`ours` maps the tensors of the originals to the parameters of our layer by differentiable functions, so gradients are
compared with respect to the originals' tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, discretization, files, read
from .tolerances import GOLDEN, assert_close, phase_budget, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")

LAYERS = ("s4d_layer_minimal_*", "s4block_diag_*", "s4conv_bidirectional*_diag_*", "s4conv_truncated_diag_*")
ACTIVATIONS = {"gelu": "gelu", "tanh": "tanh", "relu": "relu", "swish": "silu", "silu": "silu", "sigmoid": "sigmoid"}
IDENTITY = (None, "id", "identity", "linear")
# Options of the originals that say how the numbers were made, or what the tensors show anyway.
NOT_OPTIONS = {"cls", "batch", "L", "mode", "init", "dt_min", "dt_max", "n_ssm", "dropout", "deterministic"}


@dataclass(frozen=True)
class Original:
    """A layer of the originals: its tensors by their names, less the prefixes that its kind puts before them."""

    path: Path
    numbers: Numbers

    @property
    def config(self) -> dict[str, Any]:
        """The options; the minimal layer has no file of them, and is what its equation says."""
        if "config_json" in self.numbers:
            return dict(json.loads(str(self.numbers["config_json"])))
        return {"cls": "minimal", "d_model": self.tensors["kernel.C"].shape[0], "d_state": 2 * self.poles.shape[-1]}

    @property
    def tensors(self) -> Numbers:
        return {plain_name(n): x for n, x in self.numbers.items() if n.startswith("sd.")}

    @property
    def poles(self) -> np.ndarray:
        return self.numbers["A"]

    @property
    def u(self) -> np.ndarray:
        return self.numbers["u" if "u" in self.numbers else "x"]

    @property
    def length(self) -> int:
        return int(self.config.get("L", self.u.shape[-1]))

    @property
    def taps(self) -> int:
        """Of the kernel: shorter than the sequence where the original truncates it."""
        return min(self.length, self.config.get("l_max") or self.length)

    @property
    def channels_last(self) -> bool:
        return not self.config.get("transposed", True)

    def layer(self) -> Any:
        """Our layer with the same options."""
        c, kind = self.config, self.config["cls"]
        known = {"d_model", "d_state", "l_max", "disc", "channels", "bidirectional", "activation", "final_act"}
        unknown = set(c) - known - NOT_OPTIONS - {"transposed"}
        assert not unknown, f"{self.path.name} has options that this test does not know: {sorted(unknown)}"
        activation, final = c.get("activation", "gelu"), c.get("final_act", "glu")
        output = None if kind == "FFTConv" else {"glu": "glu"}.get(final, "linear")
        assert output != "linear" or final in IDENTITY, f"{self.path.name}: final_act {final!r} is not known"
        return ssm_core.layers.S4D(
            d_model=c["d_model"], d_state=c.get("d_state", 64), channels=c.get("channels", 1), n_ssm=self.copies,
            bidirectional=c.get("bidirectional", False), discretization=discretization(self.path, c),
            trainable_B="kernel.B" in self.tensors, output=output,
            activation=None if activation in IDENTITY else ACTIVATIONS[activation],
        )  # fmt: skip

    @property
    def copies(self) -> int:
        """S, where the tensors are those of independent copies."""
        return max(x.shape[-3 if n == "kernel.B" else -2] for n, x in self.tensors.items() if n in _PER_COPY)

    @property
    def logarithmic(self) -> bool:
        """Whether the tensor of steps holds logarithms; else it is the inverse of softplus."""
        return "kernel.log_dt" in self.tensors or np.allclose(
            np.exp(self.tensors["kernel.inv_dt"]), self.numbers["dt"], rtol=1e-9
        )


_PER_COPY = ("kernel.A_real", "kernel.A_imag", "kernel.log_A_real", "kernel.B")


def plain_name(name: str) -> str:
    return name.removeprefix("sd.").removeprefix("grad.").removeprefix("layer.")


def ours(original: Original, t: dict[str, Any], xp: Any) -> dict[str, Any]:
    """Our parameters from the original's tensors t."""
    shapes, S = {name: tuple(x.shape) for name, x in t.items()}, original.copies
    if "kernel.log_dt" in t:  # the minimal layer: Im(A) >= 0, B = 1, no axis of channels
        found = {"log_dt": t["kernel.log_dt"], "log_A_re": t["kernel.log_A_real"], "A_im": t["kernel.A_imag"]}
        C = t["kernel.C"][None, ...]
    else:
        dt = t["kernel.inv_dt"][:, 0]
        found = {
            "log_dt": dt if original.logarithmic else xp.log(ssm_core.special.softplus(dt)),
            "log_A_re": xp.tile(t["kernel.A_real"], (S // shapes["kernel.A_real"][0], 1)),
            "A_im": -xp.tile(t["kernel.A_imag"], (S // shapes["kernel.A_imag"][0], 1)),
        }
        B = xp.tile(t["kernel.B"][0, ...], (S // shapes["kernel.B"][1], 1, 1))
        found |= {"B_re": B[..., 0], "B_im": B[..., 1]}
        C = t["kernel.C"]
    found |= {"C_re": C[..., 0], "C_im": C[..., 1]}
    found["D"] = xp.reshape(t["D"], (-1, found["log_dt"].shape[0]))
    if "output_linear.0.weight" in t:
        weight = t["output_linear.0.weight"]
        found |= {
            "output_weight": xp.reshape(weight, tuple(weight.shape[:2])),
            "output_bias": t["output_linear.0.bias"],
        }
    return found


def apply(original: Original, t: dict[str, Any], u: Any, xp: Any) -> Any:
    """The output in the original's order of axes."""
    layer, params = original.layer(), ours(original, t, xp)
    order = (0, 1, 2) if original.channels_last else (0, 2, 1)
    if original.taps == original.length:
        return xp.permute_dims(layer.apply(params, xp.permute_dims(u, order)), order)
    # The layer has no truncation of its own: its kernel, cut to the taps.
    assert layer.channels == 1
    assert layer.output is None
    assert not layer.bidirectional
    K = layer.kernel(params, original.taps)
    v = ssm_core.convolve(u, K[0, ...]) + params["D"][0, :, None] * u
    return ssm_core.special.activation(layer.activation)(v)


def budget(original: Original, dtype: str) -> float:
    """In float32 the parameters are rounded too, so that a phase w l may be off by some roundings of it."""
    if dtype == "float64":
        return GOLDEN["float64"]
    dt, A = original.numbers["dt"].reshape(-1, 1), original.poles
    phase = phase_budget(dt * np.tile(A, (len(dt) // len(A), 1)), original.length)
    return tolerance(dtype, terms=original.length * original.poles.size, phase=8 * phase)


@files(*LAYERS)
def test_output_and_kernel(path: Path, backend: Backend, dtype: str):
    original = Original(path, read(path))
    names = list(original.tensors)

    def run(v: SimpleNamespace) -> tuple[Any, Any]:
        t = {name: getattr(v, name) for name in names}
        K = original.layer().kernel(ours(original, t, v.xp), original.taps)
        return apply(original, t, v.u, v.xp), K

    y, K = backend.run(run, as_arrays(backend, dtype, original.tensors | {"u": original.u}))
    allowed = budget(original, dtype)
    assert_close(y, original.numbers["y"], backend, dtype, function="layers.S4D", allowed=allowed)
    kernel = original.numbers["K"].reshape(backend.to_numpy(K).shape)
    assert_close(K, kernel, backend, dtype, function="layers.S4D", allowed=allowed)


@files(*LAYERS, where=lambda numbers: any(name.startswith("y_step_") for name in numbers))
def test_steps(path: Path, backend: Backend, dtype: str):
    original = Original(path, read(path))
    v = as_arrays(backend, dtype, original.tensors | {"u": original.u})
    layer, params = original.layer(), ours(original, {n: getattr(v, n) for n in original.tensors}, backend.xp)
    step, state, outputs = layer.stepper(params), layer.initial_state(params, original.u.shape[0]), []
    for k in range(original.length):
        y, state = step(v.u[:, k, :] if original.channels_last else v.u[..., k], state)
        outputs.append(y)
    found = backend.xp.stack(outputs, axis=1 if original.channels_last else -1)
    for name in (n for n in original.numbers if n.startswith(("y_step_", "final_state_"))):
        actual = found if name.startswith("y_step_") else state
        wanted = original.numbers[name]
        assert_close(actual, wanted, backend, dtype, function="layers.S4D", allowed=budget(original, dtype))


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(*LAYERS, where=lambda numbers: any(name.startswith("grad.") for name in numbers))
def test_gradients(path: Path, backend: Backend, dtype: str):
    """Of sum(y * cotangent)."""
    original = Original(path, read(path))
    v = vars(as_arrays(backend, dtype, original.tensors | {"u": original.u}))
    cotangent = backend.asarray(original.numbers["cotangent"], dtype)

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(apply(original, t, t["u"], backend.xp) * cotangent)

    gradients = autodiff.gradient(backend, loss, {name: v[name] for name in (*original.tensors, "u")})
    gradients["x"] = gradients["u"]
    for name in (n for n in original.numbers if n.startswith("grad.")):
        actual, wanted = gradients[plain_name(name)], original.numbers[name]
        assert_close(actual, wanted, backend, dtype, function="layers.S4D", allowed=8 * budget(original, dtype))


@files("s4conv_stream_diag_*")
@pytest.mark.parametrize("mode", ["auto", "conv", "chunk", "scan"])
def test_streaming(path: Path, mode: str, backend: Backend, dtype: str):
    """The whole sequence from a state, and in two parts, through the layer without activation and output map."""
    numbers = read(path)
    A, B, C = numbers["A"], numbers["B"][0], numbers["C"]
    layer = ssm_core.layers.S4D(
        d_model=C.shape[1], d_state=2 * A.shape[-1], channels=C.shape[0], discretization=discretization(path),
        activation=None, output=None,
    )  # fmt: skip
    params = {
        "log_dt": np.log(numbers["dt"][:, 0]), "log_A_re": np.log(-A.real), "A_im": A.imag, "B_re": B.real,
        "B_im": B.imag, "C_re": C.real, "C_im": C.imag, "D": numbers["D"],
    }  # fmt: skip
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
        assert_close(actual, numbers[name], backend, dtype, function="layers.S4D", allowed=allowed)
