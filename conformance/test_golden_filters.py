"""H3, Hyena and S4ND against numbers of the originals: outputs, steps, filters and gradients.

As in `test_golden_layers`, the tensors of the originals become parameters of our layers by differentiable functions, so
that gradients are compared with respect to the originals' tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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

Imported = tuple[Any, dict[str, Any]]


def budget(numbers: Numbers, dtype: str) -> float:
    return GOLDEN["float64"] if dtype == "float64" else tolerance(dtype, terms=64 * numbers["x"].size)


def h3(c: dict[str, Any], t: dict[str, Any]) -> Imported:
    rule, init = c.get("disc", "bilinear"), c.get("measure", "diag-lin").removeprefix("diag-")
    layer = layers.H3(c["d_model"], d_state=c["d_state"], head_dim=c["head_dim"], discretization=rule, init=init)
    renamed = {"inv_A_real": "log_A_re", "A_imag": "A_im", "log_dt": "log_dt"}
    found = {f"{n}_proj_{part}": t[f"{n}_proj.{part}"] for n in "qkv" for part in ("weight", "bias")}
    found |= {f"output_{part}": t[f"output_linear.{part}"] for part in ("weight", "bias")}
    found |= {ours: t[f"kernel.kernel.{theirs}"] for theirs, ours in renamed.items()}
    found |= {"ssm_k_B": t["ssm_k_kernel.kernel.B"], "ssm_k_C": t["ssm_k_kernel.kernel.C"][0, ...]}
    C, B = t["kernel.kernel.C"][0, ...], t["kernel.kernel.B"]
    found |= {"C_re": C[..., 0], "C_im": C[..., 1], "B_re": B[..., 0], "B_im": B[..., 1]}
    return layer, found | {"ssm_k_D": t["ssm_k_D"], "D": t["D"]}


def hyena(c: dict[str, Any], t: dict[str, Any]) -> Imported:
    layer = layers.Hyena(**c, trained_embedding=True)
    network = "filter_fn.implicit_filter."
    found = {f"{n}_proj_{part}": t[f"{n}_proj.{part}"] for n in ("in", "out") for part in ("weight", "bias")}
    found |= {"short_filter_weight": t["short_filter.weight"][:, 0, :], "short_filter_bias": t["short_filter.bias"]}
    found |= {"filter_z": t["filter_fn.pos_emb.z"][0, ...], "filter_bias": t["filter_fn.bias"]}
    for i in range(layer.num_inner_mlps + 1):
        found |= {f"filter_{i}_{part}": t[f"{network}{2 * i}.{part}"] for part in ("weight", "bias")}
    found["filter_out_weight"] = t[f"{network}{2 * layer.num_inner_mlps + 2}.weight"]
    return layer, found | {"filter_freq": t[f"{network}1.freq"][0, ...]}


def s4nd(c: dict[str, Any], t: dict[str, Any]) -> Imported:
    kind = {"diag": "S4D", "nplr": "S4"}[c["mode"]]
    layer = layers.S4ND(
        c["d_model"], dims=c.get("dim", 2), d_state=c["d_state"], layer=kind, layer_options={"n_ssm": c["n_ssm"]},
        rank=c.get("trank", 1), channels=c.get("channels", 1), bidirectional=c["bidirectional"],
        bandlimit=c.get("bandlimit"), activation=c.get("activation"), output=c.get("final_act"),
    )  # fmt: skip
    found = {"D": t["D"]}
    for a in range(layer.dims):
        own = {name.removeprefix(f"kernel.{a}."): x for name, x in t.items() if name.startswith(f"kernel.{a}.")}
        axis = {"log_dt": own["inv_dt"][:, 0], "log_A_re": own["A_real"], "A_im": -own["A_imag"]}
        for name in "BCP" if kind == "S4" else "BC":
            x = own[name] if name == "C" else own[name][0, ...]
            x = x[None, ...] if name == "P" else x  # (copies, rank, N), of one each
            axis |= {f"{name}_re": x[..., 0], f"{name}_im": x[..., 1]}
        found |= {f"axis_{a}_{name}": x for name, x in axis.items()}
    if "output_linear.0.weight" in t:
        found |= {f"output_{part}": t[f"output_linear.0.{part}"] for part in ("weight", "bias")}
    return layer, found


FAMILIES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Imported]] = {"h3": h3, "hyena": hyena, "s4nd": s4nd}
OURS = ("h3_*", "hyena_*", "s4nd_*")


def config_of(numbers: Numbers) -> dict[str, Any]:
    return dict(json.loads(str(numbers["config_json"])))


def tensors_of(numbers: Numbers) -> Numbers:
    return {name.removeprefix("sd."): x for name, x in numbers.items() if name.startswith("sd.")}


def applied(path: Path, numbers: Numbers, t: dict[str, Any], x: Any, xp: Any) -> Any:
    """The output in the original's order of axes: S4ND has its channels before the others."""
    family = path.stem.partition("_")[0]
    config = config_of(numbers)
    layer, params = FAMILIES[family](config, t)
    if family != "s4nd":
        return layer.apply(params, x)
    order = tuple(range(x.ndim))
    y = layer.apply(params, xp.permute_dims(x, (0, *order[2:], 1)), rate=config["rate"])
    return xp.permute_dims(y, (0, order[-1], *order[1:-1]))


@files(*OURS)
def test_output(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    tensors = tensors_of(numbers)

    def run(v: SimpleNamespace) -> Any:
        return applied(path, numbers, {name: getattr(v, name) for name in tensors}, v.x, v.xp)

    y = backend.run(run, as_arrays(backend, dtype, tensors | {"x": numbers["x"]}))
    function = f"layers.{FAMILIES[path.stem.partition('_')[0]](config_of(numbers), tensors)[0].name}"
    assert_close(y, numbers["y"], backend, dtype, function=function, allowed=budget(numbers, dtype))


@files("h3_*", where=lambda numbers: "y_step" in numbers)
@pytest.mark.backends("numpy", "torch")
def test_steps_of_h3(path: Path, backend: Backend, dtype: str):
    """The diagonal system's state is theirs; they hold the shift's, and here are the keys that it is made of."""
    numbers = read(path)
    v = vars(as_arrays(backend, dtype, tensors_of(numbers) | {"x": numbers["x"]}))
    layer, params = h3(config_of(numbers), v)
    step, state, outputs = layer.stepper(params), layer.initial_state(params, 2), []
    for k in range(numbers["x"].shape[1]):
        y, state = step(v["x"][:, k, :], state)
        outputs.append(y)
    allowed = budget(numbers, dtype)
    found = backend.xp.stack(outputs, axis=1)
    assert_close(found, numbers["y_step"], backend, dtype, function="layers.H3", allowed=allowed)
    x = numbers["final_state"]
    parts = np.concatenate([x.real, x.imag], axis=-1)
    assert_close(state[1], parts, backend, dtype, function="layers.H3", allowed=allowed)


@files("hyena_*")
@pytest.mark.backends("numpy")
def test_filters_and_embedding_of_hyena(path: Path, backend: Backend, dtype: str):
    """And the embedding that its first parameters have."""
    numbers = read(path)
    layer, params = hyena(config_of(numbers), tensors_of(numbers))
    h = layer.kernel(params, numbers["filter"].shape[0])
    wanted = numbers["filter"].reshape(-1, layer.d_model, layer.order - 1).transpose(2, 1, 0)
    np.testing.assert_allclose(h, wanted, rtol=1e-9, atol=1e-12)
    first = layer.initial_parameters(dtype=np.float64)["filter_z"]
    np.testing.assert_allclose(first, numbers["first_z"], rtol=1e-9, atol=1e-12)


@files(*OURS)
@pytest.mark.backends("torch")
def test_gradients(path: Path, backend: Backend, dtype: str):
    """Of sum(y * cotangent)."""
    numbers = read(path)
    v = vars(as_arrays(backend, dtype, tensors_of(numbers) | {"x": numbers["x"]}))
    cotangent = backend.asarray(numbers["cotangent"], dtype)

    def loss(t: dict[str, Any]) -> Any:
        return backend.xp.sum(applied(path, numbers, t, t["x"], backend.xp) * cotangent)

    found = autodiff.gradient(backend, loss, {name: v[name] for name in (*tensors_of(numbers), "x")})
    wanted = {name.removeprefix("grad."): x for name, x in numbers.items() if name.startswith("grad.")}
    assert wanted
    for name, expected in wanted.items():
        error = np.abs(backend.to_numpy(found[name]) - expected).max() / np.abs(expected).max()
        assert error <= 8 * budget(numbers, dtype), f"{name}: {error:.1e}"
