"""Weights of the original implementations: outputs equal to theirs, and messages for what does not fit."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.files import importers

Golden = Callable[[str], dict[str, np.ndarray]]


def tensors(numbers: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): x for name, x in numbers.items() if name.startswith(prefix)}


def close(actual: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, atol=1e-9 * np.abs(expected).max(), rtol=0)


BLOCKS = (
    "s4block_diag_H4_N8_L32", "s4block_diag_bilinear_C2_H3_N8_L40", "s4block_nplr_H4_N8_L32",
    "s4block_nplr_legt_rank2_H2_N8_L21", "s4conv_bidirectional_C2_diag_bilinear_H2_N6_L17",
    "s4conv_bidirectional_nplr_H3_N8_L24", "s4conv_bidirectional_diag_H2_N8_L20",
)  # fmt: skip


def imported(numbers: dict[str, np.ndarray], t: dict[str, np.ndarray], length: int = 0) -> Any:
    config = json.loads(str(numbers["config_json"]))
    known = {"nplr": "bilinear", "diag": config.get("disc", "zoh")}
    return importers.from_s4(
        t, length=length, discretization=known[config["mode"]], activation=config.get("activation", "gelu"),
        bidirectional=config.get("bidirectional", False),
    )  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_s4_blocks(name: str, golden: Golden):
    numbers = golden(name)
    layer, params = imported(numbers, tensors(numbers, "sd."))
    last = not json.loads(str(numbers["config_json"])).get("transposed", True)
    x = numbers["x"] if last else np.swapaxes(numbers["x"], 1, 2)
    y = layer.apply(params, x)
    close(y if last else np.swapaxes(y, 1, 2), numbers["y"])


@pytest.mark.parametrize("name", [name for name in BLOCKS if "nplr" in name])
def test_C_that_holds_a_length_becomes_the_true_C(name: str, golden: Golden):
    numbers = golden(name)
    t = tensors(numbers, "sd.")
    key = next(n for n in t if n.endswith("kernel.C"))
    length = numbers["K"].shape[-1]
    held = t | {key: np.stack([numbers["C_tilde"].real, numbers["C_tilde"].imag], axis=-1)}
    for given, options in ((held, {"length": length}), (held | {"kernel.l_kernel": np.asarray(length)}, {})):
        found = imported(numbers, given, **options)[1]
        wanted = imported(numbers, t)[1]
        for name_of in ("C_re", "C_im"):
            close(found[name_of], wanted[name_of])


def test_minimal_s4d(golden: Golden):
    numbers = golden("s4d_layer_minimal_H3_N16_L100")
    layer, params = importers.from_s4(tensors(numbers, "sd."))
    close(np.swapaxes(layer.apply(params, np.swapaxes(numbers["u"], 1, 2)), 1, 2), numbers["y"])


S5 = {
    "s5_ssm_zoh_H4_P8_L20": {"conj_sym": True},
    "s5_ssm_bilinear_bidir_H3_P8_L24": {"conj_sym": True, "bidirectional": True, "discretization": "bilinear"},
    "s5_ssm_zoh_noconj_clip_H3_P6_L16": {"conj_sym": False, "clip_eigs": True},
}


@pytest.mark.parametrize("name", S5)
def test_s5(name: str, golden: Golden):
    numbers = golden(name)
    t = tensors(numbers, "params.")
    layer, params = importers.from_s5(t, **S5[name])
    close(layer.apply(params, numbers["u"][None])[0], numbers["y"])
    as_complex = {"Lambda": t["Lambda_re"] + 1j * t["Lambda_im"]} | {
        n: x for n, x in t.items() if not n.startswith("Lambda")
    }
    if "C" in t:
        as_complex["C"] = t["C"][..., 0] + 1j * t["C"][..., 1]
    again = importers.from_s5({f"seq.{n}": x for n, x in as_complex.items()}, **S5[name])[1]
    for key, x in params.items():
        np.testing.assert_array_equal(again[key], x)


def test_lru(golden: Golden):
    numbers = golden("lru_core_N8_H4_L20")
    layer, params = importers.from_lru(tensors(numbers, "params."))
    close(layer.apply(params, numbers["u"][None])[0], numbers["y"])


def test_rtf_is_the_original_less_its_aliasing(golden: Golden):
    numbers = golden("rtf_montel_D2_N3_L16")
    layer, params = importers.from_rtf(tensors(numbers, "sd."))
    numerator, denominator = layer.coefficients(params, np)
    aliased = ssm_core.time_invariant.rational.aliased_response(numerator[0], denominator[0], 16, np)
    close(aliased, numbers["k_full"])
    np.testing.assert_allclose(layer.kernel(params, 16)[0], numbers["k_full"], atol=0.1)


def test_rtf2(golden: Golden):
    numbers = golden("rtf2_D3_N4_L24")
    layer, params = importers.from_rtf(tensors(numbers, "sd."), rtf2=True)
    close(layer.kernel(params, 24)[0], numbers["k_full"])
    close(layer.apply(params, numbers["u"]), numbers["y"])


def kernel_tensors(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"kernel.{name.removeprefix('raw_')}": x for name, x in numbers.items() if name.startswith("raw_")}


KERNELS = {
    "s4d_kernel_bilinear_untied_H2_N8_L40": {"discretization": "bilinear"},
    "s4d_kernel_bandlimit_H2_N12_L30": {"bandlimit": 0.4},
    "s4d_kernel_real_H2_N4_L24": {},
}


@pytest.mark.parametrize("name", KERNELS)
def test_options_of_the_original_kernels(name: str, golden: Golden):
    """A step for every state, a band limit, real poles: at other rates, in every mode and step by step too."""
    numbers = golden(name)
    options = {"softplus_dt": not np.allclose(np.exp(numbers["raw_inv_dt"]), numbers["dt"])} | KERNELS[name]
    layer, params = importers.from_s4(kernel_tensors(numbers), activation=None, **options)
    for key in (key for key in numbers if key == "K" or key.startswith("K_rate")):
        rate = float(key.removeprefix("K_rate") or 1) if key != "K" else 1.0
        for given in (rate, np.full(2, rate)):
            close(layer.kernel(params, numbers[key].shape[-1], rate=given), numbers[key])
    u, first = np.random.default_rng(0).normal(size=(2, 20, 2)), numbers["K"][..., :20]
    wanted = np.stack([ssm_core.convolve(np.swapaxes(u, 1, 2), K) for K in first], axis=1)  # (B, channels, H, L)
    step, state, steps = layer.stepper(params), layer.initial_state(params, 2), []
    for u_t in np.moveaxis(u, 1, 0):
        y, state = step(u_t, state)
        steps.append(y)
    for y in (*(layer.apply(params, u, mode=mode) for mode in ("conv", "chunk", "scan")), np.stack(steps, 1)):
        close(np.reshape(y, (2, 20, -1)), np.reshape(np.moveaxis(wanted, -1, 1), (2, 20, -1)))


MIXERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "mamba_block_h16_N4_L12": (importers.from_mamba, {}),
    "mambapy_block_d8_N4_L16": (importers.from_mamba, {}),
    "falcon_mamba_block_h16_N4_L10": (importers.from_mamba, {"norm_epsilon": 1e-6}),
    "mamba2_block_h16_H4_P8_N8_L14": (importers.from_mamba2, {}),
    "mamba2_block_groups_h16_H4_P8_N4_G2_L16": (importers.from_mamba2, {"n_groups": 2}),
    "mamba3_block_d16_N8_P8_L10": (importers.from_mamba3, {}),
    "mamba3_block_norm_d8_N6_P4_L9": (importers.from_mamba3, {"rope_fraction": 1.0}),
}


@pytest.mark.parametrize("name", MIXERS)
def test_blocks_of_mamba(name: str, golden: Golden):
    numbers, (from_mixer, options) = golden(name), MIXERS[name]
    layer, params = from_mixer(tensors(numbers, "sd."), **options)
    close(layer.apply(params, numbers["x"]), numbers["y"])


@pytest.mark.parametrize("names", [("dt", "B", "C"), ("dt", "b", "c")], ids=["mambapy", "jamba"])
def test_inner_norms(names: tuple[str, ...], golden: Golden):
    """A norm with weights equals the norm without them whose result is multiplied: here, folded into what follows."""
    t = tensors(golden("mambapy_block_d8_N4_L16"), "sd.")
    rng, x = np.random.default_rng(0), golden("mambapy_block_d8_N4_L16")["x"]
    w = {part: rng.uniform(0.5, 2, n) for part, n in zip(names, (1, 4, 4), strict=True)}
    layer, params = importers.from_mamba(t | {f"{part}_layernorm.weight": x for part, x in w.items()})
    assert (layer.norm_weights, layer.norm_epsilon) == (True, 1e-5)
    plain, others = importers.from_mamba(t | {"dt_proj.weight": t["dt_proj.weight"] * w["dt"]}, norm_epsilon=1e-5)
    ones = {f"{part}_norm_weight": np.ones(4) for part in "BC"} | {"dt_norm_weight": w["dt"]}
    np.testing.assert_allclose(layer.apply(params | ones, x), plain.apply(others, x), rtol=1e-12, atol=1e-14)
    h = ssm_core.special.silu(x @ params["in_proj_weight"][:16].T)[:, :1] * 0 + 1  # any features
    _, B, C = layer._selected(params, h)
    _, b, c = plain._selected(others, h)
    for found, wanted in ((B, b * w[names[1]]), (C, c * w[names[2]])):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


LAYERS_OF_ORIGINALS: dict[str, tuple[str, str, Callable[..., Any], dict[str, Any]]] = {
    "S4D": ("s4block_diag_H4_N8_L32", "sd.", importers.from_s4, {}),
    "minimal": ("s4d_layer_minimal_H3_N16_L100", "sd.", importers.from_s4, {}),
    "S4": ("s4block_nplr_H4_N8_L32", "sd.", importers.from_s4, {"length": 0}),
    "S5": ("s5_ssm_zoh_H4_P8_L20", "params.", importers.from_s5, {"conj_sym": True}),
    "LRU": ("lru_core_N8_H4_L20", "params.", importers.from_lru, {}),
    "RTF": ("rtf_montel_D2_N3_L16", "sd.", importers.from_rtf, {}),
    "Mamba": ("mamba_block_h16_N4_L12", "sd.", importers.from_mamba, {}),
    "Mamba2": ("mamba2_block_h16_H4_P8_N8_L14", "sd.", importers.from_mamba2, {}),
    "Mamba3": ("mamba3_block_norm_d8_N6_P4_L9", "sd.", importers.from_mamba3, {"rope_fraction": 1.0}),
}
each_original = pytest.mark.parametrize("kind", LAYERS_OF_ORIGINALS)


@each_original
def test_two_layers_are_never_mixed(kind: str, golden: Golden):
    """Whatever of the second one is missing, and in whichever order they come."""
    name, prefix, load, options = LAYERS_OF_ORIGINALS[kind]
    t = tensors(golden(name), prefix)
    load({f"layers.3.{n}": x for n, x in t.items()}, **options)
    second = {f"l1.{n}": x + 1 for n, x in t.items()}
    for kept in ([n] for n in second):
        for part in (kept, [n for n in second if n not in kept]):
            some = {n: second[n] for n in part}
            rest = {f"l0.{n}": x for n, x in t.items() if f"l1.{n}" not in some}
            for first in ({f"l0.{n}": x for n, x in t.items()}, rest, t):
                for both in ({**first, **some}, {**some, **first}):
                    with pytest.raises(ssm_core.SSMError, match=r"several layers|another layer"):
                        load(both, **options)


@each_original
def test_half_precision(kind: str, golden: Golden):
    torch = pytest.importorskip("torch")
    name, prefix, load, options = LAYERS_OF_ORIGINALS[kind]
    real = {n: x for n, x in tensors(golden(name), prefix).items() if not np.iscomplexobj(x)}
    t = {n: torch.from_numpy(x).to(torch.bfloat16) for n, x in real.items()}
    given = [t]
    if importlib.util.find_spec("ml_dtypes"):
        bfloat16 = importlib.import_module("ml_dtypes").bfloat16
        given.append({n: x.float().numpy().astype(bfloat16) for n, x in t.items()})
    wanted = load({n: x.float().numpy() for n, x in t.items()}, **options)[1]
    for half in given:
        for n, x in load(half, **options)[1].items():
            assert x.dtype == np.float32
            np.testing.assert_array_equal(x, wanted[n])


@each_original
def test_wrong_shapes_are_refused(kind: str, golden: Golden):
    """Of any tensor, by the library."""
    name, prefix, load, options = LAYERS_OF_ORIGINALS[kind]
    t = tensors(golden(name), prefix)
    for n, x in t.items():
        wrong = [x[None], x[..., None, None], np.repeat(x, 3, axis=0), np.repeat(x, 3, axis=-1), x[:0], x.ravel()[0]]
        wrong += [np.reshape(x, (-1,)), x[1:]]
        for bad in (x for x in wrong if np.shape(x) != t[n].shape):
            with contextlib.suppress(ssm_core.SSMError):  # else the same numbers in another form, or a whole layer
                layer, params = load(t | {n: np.asarray(bad)}, **options)
                layer.prepared(params)


def test_poles_are_given_once():
    t = {"Lambda_re": np.ones(2), "Lambda_im": np.ones(2), "B": np.ones((2, 3, 2)), "C": np.ones((3, 2, 2)),
         "D": np.ones(3), "log_step": np.ones((2, 1))}  # fmt: skip
    for more in ({"Lambda": np.ones(2) + 0j}, {"C1": t["C"]}, {"C1": t["C"], "C2": t["C"]}):
        with pytest.raises(ssm_core.OptionError, match="surplus"):
            importers.from_s5(t | more, conj_sym=True)


def test_what_does_not_fit_is_named(golden: Golden):
    t = tensors(golden("s4block_nplr_H4_N8_L32"), "sd.")
    with pytest.raises(ssm_core.OptionError, match=r"from_s4: without kernel\.l_kernel .*Pass length="):
        importers.from_s4(t)
    with pytest.raises(ssm_core.OptionError, match=r"missing \['kernel\.C'\], surplus \['kernel\.Q'\]"):
        importers.from_s4({n.replace("kernel.C", "kernel.Q"): x for n, x in t.items()}, length=0)
    with pytest.raises(ssm_core.ShapeError, match="output_bias of S4"):
        importers.from_s4(t | {"output_linear.0.bias": np.ones(3)}, length=0)
    with pytest.raises(ssm_core.DTypeError, match="from_lru: tensors is a list"):
        importers.from_lru([])
    with pytest.raises(ssm_core.DTypeError, match="from_s5: B is a str"):
        importers.from_s5({"B": "x"}, conj_sym=True)
    with pytest.raises(ssm_core.OptionError, match=r"from_rtf: .*missing \['h_0'\]"):
        importers.from_rtf({"ab": np.ones((2, 3))})
    with pytest.raises(ssm_core.ShapeError, match="from_rtf: ab has 3 rows"):
        importers.from_rtf({"ab": np.ones((3, 3)), "h_0": np.ones(3)})


NO_FLAGS = ("no", 1, None, [])


@pytest.mark.parametrize("value", NO_FLAGS)
@pytest.mark.parametrize(
    "option",
    [
        "from_s4 bidirectional",
        "from_s4 softplus_dt",
        "from_s5 bidirectional",
        "from_s5 conj_sym",
        "from_s5 clip_eigs",
        "from_rtf bidirectional",
        "from_rtf rtf2",
    ],
)
def test_flags_are_flags(option: str, value: Any):
    operation, _, name = option.partition(" ")
    needed = {"conj_sym": True} if operation == "from_s5" else {}
    with pytest.raises(ssm_core.OptionError, match=f"^{operation}: {name} = .* must be True or False"):
        getattr(importers, operation)({}, **{**needed, name: value})


@pytest.mark.parametrize("options", [{"length": "no"}, {"length": 0.5}, {"length": -1}, {"discretization": ""}])
def test_options_of_s4_that_mean_nothing(options: Any):
    tensors = {
        "kernel.log_dt": np.zeros(2), "kernel.log_A_real": np.zeros((2, 3)), "kernel.A_imag": np.ones((2, 3)),
        "kernel.C": np.ones((2, 3, 2)), "D": np.ones(2),
    }  # fmt: skip
    with pytest.raises(ssm_core.OptionError, match=r"from_s4: .*(length|discretization)"):
        importers.from_s4(tensors, **options)
