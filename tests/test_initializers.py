"""Initial diagonal systems against golden numbers and against their own definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import ssm_core
from ssm_core.measures.initializers import NAMES, diagonal_init
from ssm_core.measures.matrices import hippo


@pytest.mark.parametrize("N", [4, 16, 32, 64])
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, N: int, golden: Any):
    numbers = golden(f"s4d_init_N{N}")
    options = {"B_clip": 2.0} if name == "legs" else {}
    plain, normalized = diagonal_init(name, N, **options), diagonal_init(name, N, normalize=True, **options)
    np.testing.assert_allclose(plain.poles, numbers[f"{name}_A"], rtol=1e-13)
    for system, wanted in ((plain, numbers[f"{name}_B"]), (normalized, numbers[f"{name}_B_normalized"])):
        # The sign of an eigenvector, and so of its entry of B, is a matter of convention.
        sign = np.sign((system.B * wanted.conj()).real) if name == "legs" else 1
        np.testing.assert_allclose(sign * system.B, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("B_init", ["constant", "alternating", "unit-cw", "unit-ccw"])
def test_golden_inputs(B_init: str, golden: Any):
    wanted = golden("s4d_init_N16")[f"Binit_{B_init}"]
    np.testing.assert_allclose(diagonal_init("lin", 16, B_init=B_init).B, wanted, atol=1e-15)
    np.testing.assert_allclose(diagonal_init("lin", 16, B_init=B_init, B_scale=3.0).B, 3 * wanted, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_poles_lie_left_and_below(name: str):
    system = diagonal_init(name, 32)
    assert system.poles.shape == system.B.shape == (16,)
    assert (system.poles.real < 0).all()
    assert (system.poles.imag <= 0).all()
    assert system.conj_pairs
    assert not system.discrete


@pytest.mark.parametrize("name", [name for name in NAMES if name != "real"])
def test_scales(name: str):
    plain, scaled = diagonal_init(name, 8), diagonal_init(name, 8, real_scale=3.0, imag_scale=0.5)
    np.testing.assert_allclose(scaled.poles.real, 3.0 * plain.poles.real)
    np.testing.assert_allclose(scaled.poles.imag, 0.5 * plain.poles.imag)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "real"])
def test_both_halves(name: str):
    half, full = diagonal_init(name, 8), diagonal_init(name, 8, conj_pairs=False)
    np.testing.assert_array_equal(full.poles, np.concatenate([half.poles, half.poles.conj()]))
    np.testing.assert_array_equal(full.B, np.concatenate([half.B, half.B.conj()]))
    assert not full.conj_pairs


def test_real_poles_without_pairs_are_real_numbers():
    system = diagonal_init("real", 5, conj_pairs=False)
    np.testing.assert_array_equal(system.poles, [-1.0, -2.0, -3.0, -4.0, -5.0])
    assert system.poles.dtype == system.B.dtype == np.float64


@pytest.mark.parametrize("conj_pairs", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_normalized_systems_answer_a_constant_with_variance_one(name: str, conj_pairs: bool):
    system = diagonal_init(name, 16, normalize=True, conj_pairs=conj_pairs)
    variance = np.sum(np.abs(system.B / system.poles) ** 2) * (2 if conj_pairs else 1)
    np.testing.assert_allclose(variance, 1.0)


def test_legs_is_the_normal_part_of_hippo():
    """b^T exp(tA) b = 2 Re sum |B_n|^2 exp(t poles_n), whatever the phases of the eigenvectors."""
    N, t = 16, 0.3
    system = diagonal_init("legs", N)
    A, _ = hippo("legsd", N)
    _, b = hippo("legs", N)
    found = 2 * np.sum(np.abs(system.B) ** 2 * np.exp(t * system.poles)).real
    np.testing.assert_allclose(found, b @ scipy.linalg.expm(t * A) @ b, rtol=1e-11)


def test_clip_is_an_option():
    exact, clipped = diagonal_init("legs", 16), diagonal_init("legs", 16, B_clip=2.0)
    assert np.abs(exact.B.imag).max() > 2
    np.testing.assert_array_equal(clipped.B, exact.B.real + 1j * np.clip(exact.B.imag, -2, 2))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
def test_any_namespace_and_dtype(dtype: str, xp: Any):
    double = dtype in ("float64", "complex128")
    pairs = diagonal_init("lin", 4, xp=xp, dtype=getattr(xp, dtype))
    assert pairs.poles.dtype == pairs.B.dtype == (xp.complex128 if double else xp.complex64)
    real = diagonal_init("real", 4, conj_pairs=False, xp=xp, dtype=getattr(xp, dtype))
    assert real.poles.dtype == real.B.dtype == (xp.float64 if double else xp.float32)


def test_namespace_by_name():
    torch = pytest.importorskip("torch")
    assert diagonal_init("legs", 4, xp="torch", dtype=torch.float32).poles.dtype == torch.complex64


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("s4d", {}, ssm_core.OptionError, r"unknown name 's4d'\. Known: 'legs', 'lin'"),
        (None, {}, ssm_core.OptionError, "unknown name None"),
        ("lin", {"B_init": "random"}, ssm_core.OptionError, r"unknown B_init 'random'\. Known: 'constant'"),
        ("lin", {"N": 5}, ssm_core.ShapeError, "N = 5 is odd, .* Use N=6"),
        ("real", {"N": 5}, ssm_core.ShapeError, "N = 5 is odd"),
        ("lin", {"N": 5, "conj_pairs": False}, ssm_core.ShapeError, "N = 5 is odd"),
        ("lin", {"N": 0}, ssm_core.ShapeError, "N = 0 is no number of states"),
        ("lin", {"N": 4.0}, ssm_core.DTypeError, "N = 4.0 is a float"),
        ("lin", {"real_scale": 0}, ssm_core.DomainError, "real_scale = 0 must be positive"),
        ("lin", {"real_scale": np.nan}, ssm_core.DomainError, "real_scale = nan must be"),
        ("lin", {"imag_scale": -1.0}, ssm_core.DomainError, "imag_scale = -1.0 must be at least 0"),
        ("lin", {"B_scale": np.inf}, ssm_core.DomainError, "B_scale = inf must be finite"),
        ("lin", {"B_scale": "1"}, ssm_core.DTypeError, "B_scale = '1' is a str"),
        ("legs", {"B_clip": 0.0}, ssm_core.DomainError, "B_clip = 0.0 must be positive"),
        ("lin", {"B_clip": 2.0}, ssm_core.OptionError, "'lin' has no B to clip .* Only 'legs' has"),
        ("legs", {"B_init": "alternating"}, ssm_core.OptionError, "'legs' has its own B"),
        ("real", {"real_scale": 2.0}, ssm_core.OptionError, "'real' has the poles -1, -2"),
        ("real", {"B_init": "unit-cw", "conj_pairs": False}, ssm_core.OptionError, "Use conj_pairs=True"),
        ("lin", {"normalize": 1}, ssm_core.OptionError, "normalize = 1 must be True or False"),
        ("lin", {"conj_pairs": "no"}, ssm_core.OptionError, "conj_pairs = 'no' must be True or False"),
        ("lin", {"dtype": np.int64}, ssm_core.DTypeError, "names no precision"),
        ("lin", {"dtype": np.float16}, ssm_core.DTypeError, "names no precision"),
    ],
)
def test_wrong_arguments_are_refused(name: Any, options: dict[str, Any], error: type, message: str):
    with pytest.raises(error, match=f"^diagonal_init: .*{message}"):
        diagonal_init(name, **{"N": 4, **options})
