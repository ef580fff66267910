"""Weights of the original implementations: outputs equal to theirs, and messages for what does not fit."""

from __future__ import annotations

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
