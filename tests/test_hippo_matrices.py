"""HiPPO matrices against golden numbers and against the functions whose coefficients they track."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.special

import ssm_core
from ssm_core.measures.matrices import MEASURES, hippo
from ssm_core.measures.nplr import normal_modes

FOURIER = ("fout", "fourier_decay", "fourier2", "foud")


def arguments(key: str) -> tuple[str, dict[str, float]]:
    """('glagt', {'alpha': 0.0, 'beta': 0.01}) from 'glagt_alpha0.0_beta0.01_A'."""
    name = key.rpartition("_")[0]
    options = {option: float(value) for option, value in re.findall(r"_(alpha|beta)([\d.]+)", name)}
    return re.sub(r"_(alpha|beta)[\d.]+|_hippocode", "", name), options


@pytest.mark.parametrize("N", [4, 8, 16, 32, 64])
def test_golden(N: int, golden: Any):
    numbers = golden(f"hippo_transition_N{N}")
    for key, wanted in numbers.items():
        measure, options = arguments(key)
        A, B = hippo(measure, N, **options)
        found = {"A": A, "B": B}[key[-1]] * (2 if "hippocode" in key else 1)
        np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-14, err_msg=key)
    assert {arguments(key)[0] for key in numbers} == set(MEASURES)


def impulse(measure: str, N: int, t: float, **options: float) -> np.ndarray:
    A, B = hippo(measure, N, **options)
    return scipy.linalg.expm(A * t) @ B


def polynomials(measure: str, n: np.ndarray, t: float) -> np.ndarray:
    """exp(tA) B of the measures that have it in closed form for every N."""
    if measure == "legs":
        return np.sqrt(2 * n + 1) * np.exp(-t) * scipy.special.eval_legendre(n, 2 * np.exp(-t) - 1)
    if measure == "lagt":
        return np.exp(-t / 2) * scipy.special.eval_laguerre(n, t)
    if measure == "tlagt":
        return 0.3 * np.exp(-0.65 * t) * scipy.special.eval_laguerre(n, t)
    alpha, beta = 0.4, 0.3
    gammas = scipy.special.gamma(1 + alpha) * scipy.special.gamma(1 - alpha)
    unit = scipy.special.eval_genlaguerre(n, alpha, t) / np.sqrt(scipy.special.binom(n + alpha, n))
    return beta ** ((1 - alpha) / 2) / np.sqrt(gammas) * np.exp(-(1 + beta) / 2 * t) * unit


@pytest.mark.parametrize("t", [0.0, 0.1, 1.5])
@pytest.mark.parametrize("measure", ["legs", "lagt", "tlagt", "glagt"])
def test_impulse_response_is_the_basis(measure: str, t: float):
    options = {"tlagt": {"beta": 0.3}, "glagt": {"alpha": 0.4, "beta": 0.3}}.get(measure, {})
    found = impulse(measure, 12, t, **options)
    np.testing.assert_allclose(found, polynomials(measure, np.arange(12), t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("measure", "window"), [("legt", 2), ("lmu", 1), ("fout", 2), ("fourier2", 1)])
def test_windows_forget(measure: str, window: float):
    """The answer is large inside the window and next to nothing outside."""
    inside, outside = (np.abs(impulse(measure, 64, t * window)[:4]).max() for t in (0.3, 1.3))
    assert inside > 0.5
    assert outside < 0.02


def test_legendre_window_is_the_legendre_polynomials():
    n, t = np.arange(4), 0.7
    wanted = np.sqrt(2 * n + 1) / 2 * scipy.special.eval_legendre(n, 1 - t)
    np.testing.assert_allclose(impulse("legt", 64, t)[:4], wanted, atol=0.03)


def test_foud_is_the_fading_fourier_basis():
    m, t = np.arange(1, 5), 0.7
    wave = np.sqrt(2) * np.stack([np.cos(2 * np.pi * m * t), np.sin(2 * np.pi * m * t)], axis=-1).ravel()
    basis = np.concatenate([[1, 0], wave])
    np.testing.assert_allclose(impulse("foud", 10, t), np.exp(-t / 2) * basis, atol=1e-13)


@pytest.mark.parametrize("N", [2, 4, 64, 256])
def test_normal_modes_of_legs(N: int):
    A, B = hippo("legs", N)
    normal = A + np.outer(B, B) / 2
    poles, V = normal_modes(normal)
    assert poles.shape == (N // 2,)
    np.testing.assert_allclose(poles.real, -0.5, rtol=1e-13)  # the mean of a diagonal of rounded squares
    assert (poles.imag < 0).all()
    assert (np.diff(poles.imag) > 0).all()
    np.testing.assert_allclose(2 * ((V * poles) @ V.conj().T).real, normal, atol=1e-13 * np.abs(normal).max())
    np.testing.assert_allclose(V.conj().T @ V, np.eye(N // 2), atol=1e-13)
    assert (V[0].real > 0).all()
    np.testing.assert_allclose(V[0].imag, 0, atol=1e-16)


@pytest.mark.parametrize("measure", MEASURES)
def test_any_namespace_and_dtype(measure: str, xp: Any):
    A, B = hippo(measure, 6, xp=xp)
    assert (A.shape, B.shape, A.dtype, B.dtype) == ((6, 6), (6,), xp.float64, xp.float64)
    np.testing.assert_array_equal(np.asarray(A), hippo(measure, 6)[0])
    A, B = hippo(measure, 6, xp=xp, dtype=xp.float32)
    assert A.dtype == B.dtype == xp.float32


def test_smallest_sizes():
    for measure in MEASURES:
        N = 2 if measure in FOURIER else 1
        A, B = hippo(measure, N)
        assert A.shape == (N, N)
        assert np.isfinite(A).all()
        assert np.isfinite(B).all()


def test_namespace_by_name():
    torch = pytest.importorskip("torch")
    A, _ = hippo("legs", 4, xp="torch", dtype=torch.float32)
    assert A.dtype == torch.float32


@pytest.mark.parametrize("measure", ["leg", "", None, 3, ["legs"]])
def test_unknown_measures_are_refused(measure: Any):
    with pytest.raises(ssm_core.OptionError, match=r"unknown measure .*\. Known: 'legs', 'legsd', "):
        hippo(measure, 4)


@pytest.mark.parametrize("N", [0, -3])
def test_no_states_are_refused(N: int):
    with pytest.raises(ssm_core.ShapeError, match=f"hippo: N = {N} "):
        hippo("legs", N)


@pytest.mark.parametrize("N", [4.0, "4", None, True, np.ones(1)])
def test_sizes_that_are_no_integers_are_refused(N: Any):
    with pytest.raises(ssm_core.DTypeError, match="must be an integer"):
        hippo("legs", N)


@pytest.mark.parametrize("measure", FOURIER)
def test_odd_sizes_of_fourier_measures_are_refused(measure: str):
    with pytest.raises(ssm_core.ShapeError, match=f"N = 5 is odd, but measure '{measure}' .* Use N=6"):
        hippo(measure, 5)


@pytest.mark.parametrize(
    ("measure", "options", "message"),
    [
        ("legs", {"alpha": 0.0}, "measure 'legs' has no alpha .*'glagt' has"),
        ("legs", {"beta": 1.0}, "measure 'legs' has no beta .*'tlagt' or 'glagt' has"),
        ("tlagt", {"alpha": 0.5}, "measure 'tlagt' has no alpha"),
    ],
)
def test_options_of_other_measures_are_refused(measure: str, options: dict[str, float], message: str):
    with pytest.raises(ssm_core.OptionError, match=message):
        hippo(measure, 4, **options)


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", 1.0), ("alpha", -1), ("alpha", np.nan), ("beta", 0), ("beta", -1.0)]
)
def test_options_out_of_their_domain_are_refused(option: str, value: float):
    with pytest.raises(ssm_core.DomainError, match=f"{option} = {value!r} must lie strictly between"):
        hippo("glagt", 4, **{option: value})


def test_options_that_are_no_numbers_are_refused():
    with pytest.raises(ssm_core.DTypeError, match="beta = '1' is a str"):
        hippo("tlagt", 4, beta="1")


@pytest.mark.parametrize("dtype", [np.int32, "float32", bool])
def test_dtypes_that_do_not_float_are_refused(dtype: Any):
    with pytest.raises(ssm_core.DTypeError, match="is no floating dtype"):
        hippo("legs", 4, dtype=dtype)
