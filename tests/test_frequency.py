"""Frequency responses against SciPy and the transform of the kernel; poles against eigenvalues."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
import scipy.signal

from ssm_core import DPLR, Dense, Diagonal, Rational, discretize, frequency_response, kernel, poles
from ssm_core.systems.records import map_arrays

OMEGA = np.linspace(-3.0, 3.0, 8)
PORTS = [(None, None), (2, None), (None, 3), (2, 3)]


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("kind", [reference.diagonal, reference.dense])
@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_definition(batch: tuple[int, ...], P: int | None, M: int | None, kind: Any, discrete: bool, xp: Any):
    system = kind(3, P=P, M=M, batch=batch)
    system = discretize(system, 0.1) if discrete else system
    A, B, C = reference.matrices(system)
    pairs = [(A, B, C), (A.conj(), B.conj(), C.conj())] if isinstance(system, Diagonal) else [(A, B, C)]
    D = np.reshape(system.D, (*batch, M or 1, P or 1))
    wanted = []
    for w in OMEGA:
        z = np.eye(3) - A * np.exp(-1j * w) if discrete else 1j * w * np.eye(3) - A
        H = D + 0j
        for A_, B_, C_ in pairs:
            z = np.eye(3) - A_ * np.exp(-1j * w) if discrete else 1j * w * np.eye(3) - A_
            H = H + C_ @ np.linalg.solve(z, B_)
        wanted.append(H)
    wanted = np.stack(wanted, axis=-1)
    wanted = wanted if P else wanted[..., 0, :]
    wanted = wanted if M else wanted[..., 0, :, :] if P else wanted[..., 0, :]
    found = frequency_response(reference.arrays_of(system, xp), xp.asarray(OMEGA))
    assert found.shape == (*batch, *((M,) if M else ()), *((P,) if P else ()), len(OMEGA))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-10, atol=1e-12)


def test_continuous_scipy():
    system = reference.dense(4)
    given = (system.A, system.B[:, None], system.C[None], np.reshape(system.D, (1, 1)))
    _, wanted = scipy.signal.freqresp(given, OMEGA)
    np.testing.assert_allclose(frequency_response(system, OMEGA), wanted, rtol=1e-10)


def test_discrete_scipy():
    """freqz of the transfer function of SciPy's delayed form: C' = C Ab, D' = D + C Bb."""
    A, B, C = np.asarray([[0.5, 0.2], [-0.1, 0.7]]), np.asarray([1.0, 2.0]), np.asarray([1.0, -1.0])
    delayed = (A, B[:, None], (C @ A)[None], np.asarray([[0.25 + C @ B]]))
    numerator, denominator = scipy.signal.ss2tf(*delayed)
    _, wanted = scipy.signal.freqz(numerator[0], denominator, OMEGA)
    np.testing.assert_allclose(frequency_response((A, B, C, 0.25), OMEGA), wanted, rtol=1e-10)


@pytest.mark.parametrize("kind", [reference.diagonal, reference.dense])
def test_the_discrete_response_is_the_transform_of_the_kernel(kind: Any):
    system = discretize(kind(3), 0.5)
    L = 256
    K = kernel(system, L)
    K[..., 0] += system.D
    found = frequency_response(system, 2 * np.pi * np.fft.fftfreq(L))
    np.testing.assert_allclose(found, np.fft.fft(K), rtol=1e-6, atol=1e-8)


def test_the_bilinear_method_maps_frequencies():
    """H_discrete(w) = H(i (2/dt) tan(w/2)) with the same D, but for the delay-free input map of this library."""
    system, dt = reference.diagonal(3, D=False), 0.1
    w = np.asarray([0.1, 0.5, 2.0])
    found = frequency_response(discretize(system, dt, "bilinear"), w)
    analog = frequency_response(system, 2 / dt * np.tan(w / 2))
    np.testing.assert_allclose(found, analog * 2 / (1 + np.exp(-1j * w)), rtol=1e-10)


@pytest.mark.parametrize("D", [0.5, 2, np.asarray(0.5)])
def test_direct_terms_that_are_numbers(D: Any):
    system = reference.diagonal(3, D=False)
    found = frequency_response(replace(system, D=D), OMEGA)
    np.testing.assert_allclose(found, frequency_response(system, OMEGA) + D)


@pytest.mark.parametrize("kind", [reference.diagonal, reference.dense])
def test_no_frequencies(kind: Any, xp: Any):
    assert frequency_response(reference.arrays_of(kind(3, P=2), xp), xp.ones(0)).shape == (2, 0)


def test_no_states():
    for system in (reference.diagonal(0), reference.dense(0)):
        np.testing.assert_allclose(frequency_response(system, OMEGA), np.full(len(OMEGA), system.D))


@pytest.mark.parametrize(
    ("system", "omega", "wanted"),
    [
        ("float32", "float32", "complex64"),
        ("float64", "float32", "complex128"),
        ("float32", "float64", "complex128"),
        ("float16", "float32", "complex64"),
        ("float32", "float16", "complex64"),
    ],
)
def test_dtypes(system: str, omega: str, wanted: str):
    fields = [-np.ones(2, system), np.ones(2, system), np.ones(2, system)]
    given = np.ones(3, omega)
    assert frequency_response(Diagonal(*fields), given).dtype == wanted
    assert frequency_response(Dense(-np.eye(2, dtype=system), *fields[1:]), given).dtype == wanted


def in_order(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return np.take_along_axis(x, np.lexsort((x.imag.round(9), x.real.round(9)), axis=-1), axis=-1)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_poles_of_a_diagonal_system(batch: tuple[int, ...], xp: Any):
    for conj_pairs in (False, True):
        system = reference.diagonal(3, batch=batch, conj_pairs=conj_pairs)
        found = np.asarray(poles(reference.arrays_of(system, xp)))
        np.testing.assert_array_equal(found[..., :3], system.poles)
        if conj_pairs:
            np.testing.assert_array_equal(found[..., 3:], system.poles.conj())


@pytest.mark.parametrize("module", ["numpy", "array_api_strict", "torch", "jax.numpy"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_poles_of_a_dense_system(batch: tuple[int, ...], module: str):
    xp = pytest.importorskip(module)
    A = reference.dense(4, batch=batch).A.astype(np.float32)
    found = poles((xp.asarray(A), xp.ones((*batch, 4), dtype=xp.float32)))
    wanted = np.linalg.eigvals(A.astype(float))
    np.testing.assert_allclose(in_order(found), in_order(wanted), rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("module", ["array_api_strict", "torch", "jax.numpy"])
def test_poles_of_what_is_not_finite(bad: float, module: str):
    """NaN, and none in its neighbor; NumPy's arrays are read and refused."""
    xp = pytest.importorskip(module)
    A = np.stack([-np.eye(2, dtype=np.float32)] * 2)
    A[1, 0, 1] = bad
    found = np.asarray(poles((xp.asarray(A), xp.ones((2, 2), dtype=xp.float32))))
    np.testing.assert_array_equal(found[0], [-1, -1])
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("module", ["numpy", "array_api_strict", "torch", "jax.numpy"])
def test_poles_are_complex_also_where_they_are_real(module: str):
    xp = pytest.importorskip(module)
    one = xp.ones(2, dtype=xp.float32)
    for system in (Dense(-xp.eye(2, dtype=xp.float32), one), Diagonal(-one, one)):
        assert str(poles(system).dtype).endswith("complex64")


MET = {
    "an oscillator": (Diagonal(np.asarray([1j]), np.ones(1), np.ones(1), conj_pairs=True), [1.0, -1.0]),
    "an integrator": (Diagonal(np.ones(1), np.ones(1), np.ones(1), 2.0, discrete=True), [0.0]),
    "of low rank": (DPLR(np.ones(1), np.zeros((1, 1)), np.zeros((1, 1)), np.ones(1), np.ones(1), discrete=True), [0.0]),
    "a full matrix": (Dense(np.zeros((1, 1)), np.ones(1), np.ones(1), 2.0), [0.0]),
    "a quotient": (Rational(np.ones(1), np.asarray([1.0, -1.0]), 2.0), [0.0]),
}


@pytest.mark.parametrize("name", MET)
@pytest.mark.parametrize("module", ["numpy", "torch", "jax.numpy"])
def test_poles_that_are_met(name: str, module: str):
    """Infinity in every library, whatever it makes of a division by zero; the rest of the sweep is kept."""
    xp = pytest.importorskip(module)
    system, omega = MET[name]
    system = map_arrays(lambda x: x if isinstance(x, float) else xp.asarray(x), system)
    found = np.asarray(frequency_response(system, xp.asarray([*omega, 2.0])))
    assert np.isinf(found.real[:-1]).all()
    assert not np.isnan(found).any()
    assert np.isfinite(found[-1])


def test_a_pole_that_does_not_show_is_none():
    system = Diagonal(np.asarray([0.0, -1.0]), np.ones(2), np.asarray([0.0, 1.0]))
    np.testing.assert_allclose(frequency_response(system, np.asarray([0.0, 1.0])), [1, 1 / (1 + 1j)])
