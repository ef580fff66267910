"""S5 and LRU against numbers of the originals: outputs, steps, irregular steps and gradients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import layers

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, described, files, read
from .test_golden_s4 import FREE
from .tolerances import GOLDEN, assert_close, phase_budget, tolerance

pytestmark = pytest.mark.dtypes("float32", "float64")


@dataclass(frozen=True)
class Joint:
    """A layer with one system for all features, alone or within a block of norm, activation and residual."""

    path: Path
    numbers: Numbers

    def says(self, option: str, *in_name: str) -> str | None:
        """An option, by the description of the file where there is one, else by its name."""
        found = re.search(rf"{option}'?[=:] *'?(\w+)", described(self.path))
        return found[1] if found else next((name for name in in_name if name in self.path.stem), None)

    @property
    def block(self) -> bool:
        return any(name.startswith("params.seq.") for name in self.numbers)

    @property
    def prenorm(self) -> bool:
        return self.says("prenorm", "prenorm") in ("True", "prenorm")

    @property
    def tensors(self) -> Numbers:
        """The parameters, without the prefix of the inner layer."""
        return {inner_name(n): x for n, x in self.numbers.items() if n.startswith("params.")}

    @property
    def gate(self) -> str | None:
        """What the block does between the layer and the residual; LRU has only one."""
        if not self.block:
            return None
        if "params.seq.nu_log" in self.numbers:
            return "full_glu"
        named = {"fullglu": "full_glu", "halfglu1": "half_glu1", "halfglu2": "half_glu2", "gelu": "gelu"}
        found = self.says("activation", *named)
        return named.get(str(found), found)

    def outer(self) -> dict[str, Any]:
        """The options of our layer for it; every gate is one of its outputs."""
        return {
            None: FREE,
            "full_glu": {"activation": "gelu_tanh", "output": "glu"},
            "half_glu1": {"activation": "gelu_tanh", "output": "half_glu"},
            "half_glu2": {"activation": "gelu_tanh", "output": "half_glu2"},
            "gelu": {"activation": "gelu_tanh", "output": None},
        }[self.gate]


def inner_name(name: str) -> str:
    return name.removeprefix("params.").removeprefix("grad.").removeprefix("seq.")


def s5_layer(original: Joint) -> tuple[Any, float, float]:
    """Our layer, its rate, and the factor of C: all modes are halves of pairs where their number is odd."""
    numbers, t = original.numbers, original.tensors
    P, H = t["B"].shape[:2]
    pairs = original.says("conj_sym", "noconj") not in ("False", "noconj")
    odd = not pairs and P % 2 == 1
    layer = layers.S5(
        d_model=H, d_state=2 * P if pairs or odd else P, conj_sym=pairs or odd,
        clip_eigs=not np.array_equal(numbers["Lambda"].real, t["Lambda_re"]),
        discretization=original.says("discretization", "bilinear") or "zoh",
        bidirectional=numbers["C_tilde"].shape[1] == 2 * P, **original.outer(),
    )  # fmt: skip
    return layer, float(numbers.get("step_rescale", 1.0)), 0.5 if odd else 1.0


def s5_parameters(original: Joint, t: dict[str, Any], xp: Any) -> dict[str, Any]:
    P = t["Lambda_re"].shape[0]
    C = t["C"] if "C" in t else xp.concat([t["C1"], t["C2"]] if "C2" in t else [t["C1"]], axis=1)
    C = xp.stack([C[:, i : i + P, :] for i in range(0, C.shape[1], P)]) * s5_layer(original)[2]
    return {
        "log_dt": t["log_step"][:, 0], "A_re": t["Lambda_re"], "A_im": t["Lambda_im"], "B_re": t["B"][..., 0],
        "B_im": t["B"][..., 1], "C_re": C[..., 0], "C_im": C[..., 1], "D": t["D"][None, :],
    }  # fmt: skip


def lru_layer(original: Joint) -> tuple[Any, float, float]:
    N, H = original.tensors["B_re"].shape
    return layers.LRU(d_model=H, d_state=2 * N, **original.outer()), 1.0, 1.0


def lru_parameters(original: Joint, t: dict[str, Any], xp: Any) -> dict[str, Any]:
    rows = {name: t[name][None, ...] for name in ("C_re", "C_im", "D")}
    return rows | {name: t[name] for name in ("nu_log", "theta_log", "gamma_log", "B_re", "B_im")}


KINDS = {"s5": (s5_layer, s5_parameters), "lru": (lru_layer, lru_parameters)}
JOINT = ("s5_ssm_*", "s5_layer_*", "lru_core_*", "lru_layer_*")


def made(original: Joint, t: dict[str, Any], xp: Any) -> tuple[Any, float, dict[str, Any]]:
    """Our layer, its rate, and its parameters; the originals' kernels of linear maps are (in, out)."""
    make, parameters = KINDS[original.path.stem.partition("_")[0]]
    layer, rate, _ = make(original)
    params = parameters(original, t, xp)
    maps = {"glu": ("out1", "out2"), "half_glu": ("out2",), "half_glu2": ("out2",)}.get(layer.output, ())
    if maps:
        params["output_weight"] = xp.concat([xp.matrix_transpose(t[f"{m}.kernel"]) for m in maps], axis=0)
        params["output_bias"] = xp.concat([t[f"{m}.bias"] for m in maps], axis=0)
    return layer, rate, params


def run_joint(original: Joint, t: dict[str, Any], u: Any, xp: Any, mode: str = "auto") -> Any:
    """Norm, layer, gate and residual as the block has them: (L, H) to (L, H)."""
    layer, rate, params = made(original, t, xp)
    if not original.block:
        return layer.apply(params, u[None, ...], rate=rate, mode=mode)[0, ...]
    norm = "norm" if "norm.scale" in t else "normalization"

    def normed(x: Any) -> Any:
        centered = x - xp.mean(x, axis=-1, keepdims=True)
        scale = xp.sqrt(xp.mean(centered**2, axis=-1, keepdims=True) + 1e-6)
        return centered / scale * t[f"{norm}.scale"] + t[f"{norm}.bias"]

    v = layer.apply(params, (normed(u) if original.prenorm else u)[None, ...], rate=rate, mode=mode)[0, ...]
    return u + v if original.prenorm else normed(u + v)


def joint_budget(original: Joint, dtype: str) -> float:
    if dtype == "float64":
        return GOLDEN[dtype]
    numbers = original.numbers
    w = numbers["dt"] * numbers["Lambda"] if "dt" in numbers else np.log(numbers["lambda"])
    L = len(numbers["u"])
    return tolerance(dtype, terms=L * w.size, phase=8 * phase_budget(w, L))


@files(*JOINT)
def test_output(path: Path, backend: Backend, dtype: str):
    original = Joint(path, read(path))
    names, layer = list(original.tensors), made_in_numpy(original)
    modes = ("auto",) if layer.bidirectional else ("conv", "chunk", "scan")

    def run(v: SimpleNamespace) -> list[Any]:
        t = {name: getattr(v, name) for name in names}
        return [run_joint(original, t, v.u, v.xp, mode) for mode in modes]

    for y in backend.run(run, as_arrays(backend, dtype, original.tensors | {"u": original.numbers["u"]})):
        allowed = joint_budget(original, dtype)
        assert_close(y, original.numbers["y"], backend, dtype, function=f"layers.{layer.name}", allowed=allowed)


@files("s5_ssm_*", "lru_core_*")
def test_steps(path: Path, backend: Backend, dtype: str):
    original = Joint(path, read(path))
    if made_in_numpy(original).bidirectional:
        return
    v = as_arrays(backend, dtype, original.tensors | {"u": original.numbers["u"]})
    layer, rate, params = made(original, {name: getattr(v, name) for name in original.tensors}, backend.xp)
    step, state, outputs = layer.stepper(params, rate=rate), layer.initial_state(params, 1), []
    for k in range(len(original.numbers["u"])):
        y, state = step(v.u[k : k + 1, :], state)
        outputs.append(y)
    found, allowed = backend.xp.concat(outputs, axis=0), joint_budget(original, dtype)
    assert_close(found, original.numbers["y"], backend, dtype, function=f"layers.{layer.name}", allowed=allowed)


@files(*JOINT)
def test_effective_parameters(path: Path, backend: Backend, dtype: str):
    """Poles, B and C of the system that our layer makes of the original's tensors."""
    original = Joint(path, read(path))
    numbers, t = original.numbers, original.tensors

    def system(v: SimpleNamespace) -> list[Any]:
        layer, _, params = made(original, {name: getattr(v, name) for name in t}, v.xp)
        found, _ = layer.system({p.name: params[p.name] for p in layer.parameters()}, v.xp)
        return [found.poles, found.B, found.C]

    poles, B, C = backend.run(system, as_arrays(backend, dtype, t))
    wanted = ("lambda", "B_norm", "C") if "lambda" in numbers else ("Lambda", "B_tilde", "C_tilde")
    N, layer = len(numbers[wanted[0]]), made_in_numpy(original)
    halves = layer.name == "LRU" or not layer.conj_sym
    rows = np.stack([numbers[wanted[2]][:, i : i + N] for i in range(0, numbers[wanted[2]].shape[1], N)])
    if not halves and layer.name == "S5":
        rows = rows * s5_layer(original)[2]
    pairs = ((poles, numbers[wanted[0]]), (B, numbers[wanted[1]]), (C, rows / 2 if halves else rows))
    for actual, expected in pairs:
        assert_close(actual, expected, backend, dtype, function=f"layers.{layer.name}", allowed=GOLDEN[dtype])


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(*JOINT, where=lambda numbers: any(name.startswith("grad.") for name in numbers))
def test_gradients(path: Path, backend: Backend, dtype: str):
    """Of sum(y * cotangent), in the layout of the original's tensors."""
    original = Joint(path, read(path))
    v = vars(as_arrays(backend, dtype, original.tensors | {"u": original.numbers["u"]}))
    cotangent, xp = backend.asarray(original.numbers["cotangent"], dtype), backend.xp

    def loss(t: dict[str, Any]) -> Any:
        return xp.sum(run_joint(original, t, t["u"], xp) * cotangent)

    gradients = autodiff.gradient(backend, loss, {name: v[name] for name in (*original.tensors, "u")})
    function, allowed = f"layers.{made_in_numpy(original).name}", 8 * joint_budget(original, dtype)
    for name in (n for n in original.numbers if n.startswith("grad.")):
        actual, wanted = gradients[inner_name(name)], original.numbers[name]
        assert_close(actual, wanted, backend, dtype, function=function, allowed=allowed)


def made_in_numpy(original: Joint) -> Any:
    return KINDS[original.path.stem.partition("_")[0]][0](original)[0]


@files("s5_irregular_*")
@pytest.mark.parametrize("mode", ["chunk", "scan"])
def test_steps_of_their_own_lengths(path: Path, mode: str, backend: Backend, dtype: str):
    """All modes and Re(): halves of pairs with C/2; a step for every state and a scale for every time."""
    numbers = read(path)
    method = "bilinear" if "bilinear" in path.stem else "zoh"
    inputs = {"poles": numbers["Lambda"], "B": numbers["B"], "C": numbers["C"] / 2, "D": numbers["D"]}
    inputs |= {"dt": numbers["dt"], "u": numbers["u"].T, "scale": numbers["step_scale"], "x0": numbers.get("x0")}

    def run(v: SimpleNamespace) -> Any:
        D = v.D[:, None] * v.xp.eye(v.D.shape[0], dtype=v.D.dtype)
        system = ssm_core.Diagonal(v.poles, v.B, v.C, D, conj_pairs=True)
        return ssm_core.scan(system, v.u, dt=v.dt, method=method, initial=v.x0, step_scale=v.scale, mode=mode)

    y, state = backend.run(run, as_arrays(backend, dtype, inputs))
    allowed = irregular_budget(numbers, dtype)
    assert_close(y, numbers["y"].T, backend, dtype, function="scan", allowed=allowed)
    assert_close(state, numbers["last_state"], backend, dtype, function="scan", allowed=allowed)


@files("s5_liquid_*")
def test_gates_that_the_input_moves(path: Path, backend: Backend, dtype: str):
    """x_t = (Ab_t + Bb_t u_t) x_(t-1) + Bb_t u_t, entry by entry: a linear scan of discretized systems."""
    numbers = read(path)
    method = "bilinear" if "bilinear" in path.stem else "zoh"
    inputs = {name: numbers[name] for name in ("Lambda", "B", "C", "D", "u")} | {"x0": numbers.get("x0")}
    inputs |= {"dt": numbers["step_scale"][:, None] * numbers["dt"]}

    def run(v: SimpleNamespace) -> Any:
        found = ssm_core.discretize(ssm_core.Diagonal(v.Lambda[None, :], v.B[None, ...]), v.dt, method)
        driven = v.xp.sum(found.B * v.u[:, None, :], axis=-1)
        states = ssm_core.linear_scan(found.poles + driven, driven, axis=0, initial=v.x0)
        y = v.xp.real(v.xp.sum(v.C * states[:, None, :], axis=-1)) + v.D * v.u
        return y, states[-1, ...]

    y, state = backend.run(run, as_arrays(backend, dtype, inputs))
    allowed = irregular_budget(numbers, dtype)
    assert_close(y, numbers["y"], backend, dtype, function="linear_scan", allowed=allowed)
    assert_close(state, numbers["last_state"], backend, dtype, function="linear_scan", allowed=allowed)


@files("s5_irregular_*", "s5_liquid_*")
def test_irregular_steps_of_the_layer(path: Path, backend: Backend, dtype: str):
    """All modes are halves of pairs with C/2, so that their number may be odd."""
    numbers = read(path)
    P, H = numbers["B"].shape
    layer = layers.S5(
        d_model=H, d_state=2 * P, discretization="bilinear" if "bilinear" in path.stem else "zoh",
        liquid="liquid" in path.stem, **FREE,
    )  # fmt: skip
    params = {"log_dt": np.log(numbers["dt"]), "D": numbers["D"][None]}
    for name, x in (("A", numbers["Lambda"]), ("B", numbers["B"]), ("C", numbers["C"][None] / 2)):
        params |= {f"{name}_re": x.real, f"{name}_im": x.imag}
    inputs = params | {"u": numbers["u"], "scale": numbers["step_scale"], "x0": numbers.get("x0")}

    def run(v: SimpleNamespace) -> Any:
        given = {name: getattr(v, name) for name in params}
        state = None if v.x0 is None else v.x0[None, :]
        options = {"state": state, "step_scale": v.scale[None, :], "return_state": True, "mode": "scan"}
        y, state = layer.apply(given, v.u[None, ...], **options)
        return y[0, ...], state[0, ...]

    y, state = backend.run(run, as_arrays(backend, dtype, inputs))
    allowed = irregular_budget(numbers, dtype)
    assert_close(y, numbers["y"], backend, dtype, function="layers.S5", allowed=allowed)
    assert_close(state, numbers["last_state"], backend, dtype, function="layers.S5", allowed=allowed)


def irregular_budget(numbers: Numbers, dtype: str) -> float:
    if dtype == "float64":
        return GOLDEN[dtype]
    L, w = len(numbers["u"]), numbers["step_scale"].max() * numbers["dt"] * numbers["Lambda"]
    return tolerance(dtype, terms=L * w.size, phase=8 * phase_budget(w, L))
