"""Powers of poles, sums of them, and propagation by a diagonal system."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from ssm_core import discretize
from ssm_core.time_invariant import vandermonde
from ssm_core.time_invariant.vandermonde import DiagonalPropagator, Powers, power_sum

LOGARITHMS = np.asarray([[-0.1 + 0.5j, -0.02 - 1.0j, 0.01 + 0.0j]])
POLES = np.exp(LOGARITHMS)


@pytest.fixture(params=["logarithms", "doubling"])
def powers(request: pytest.FixtureRequest, xp: Any) -> Powers:
    logarithms = (xp.asarray(LOGARITHMS), None) if request.param == "logarithms" else None
    return Powers(xp.asarray(POLES), logarithms, xp)


@pytest.mark.parametrize("k", [0, 1, 2, 7, 8, 100])
def test_a_power(k: int, powers: Powers):
    np.testing.assert_allclose(np.asarray(powers(k)), POLES**k, rtol=1e-13)


def test_a_power_each(powers: Powers, xp: Any):
    k = np.asarray([[0], [1], [6], [11]])
    np.testing.assert_allclose(np.asarray(powers.at(xp.asarray(k), 11)), POLES**k, rtol=1e-13)


@pytest.mark.parametrize(("count", "stride", "start"), [(1, 1, 0), (5, 1, 0), (8, 1, 1), (7, 4, 0), (3, 16, 2)])
def test_a_table(count: int, stride: int, start: int, powers: Powers):
    k = start + stride * np.arange(count)
    table = powers.table(count, stride=stride, start=start)
    np.testing.assert_allclose(np.asarray(table), POLES[..., None] ** k, rtol=1e-13)


def test_axes_of_a_table(powers: Powers):
    table = powers[..., None, :].table(3)
    np.testing.assert_allclose(np.asarray(table), POLES[..., None, :, None] ** np.arange(3), rtol=1e-13)


def test_poles_of_zero_need_no_logarithm(xp: Any):
    powers = Powers(xp.zeros(2), None, xp)
    np.testing.assert_array_equal(np.asarray(powers(0)), [1, 1])
    np.testing.assert_array_equal(np.asarray(powers(3)), [0, 0])
    np.testing.assert_array_equal(np.asarray(powers.table(3)), [[1, 0, 0]] * 2)
    np.testing.assert_array_equal(np.asarray(powers.at(xp.asarray([0, 2]), 2)), [1, 0])


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 97, 100, 1024, 2**20, 2**20 + 1])
def test_two_levels_cover_the_length_and_are_balanced(length: int):
    A, T = vandermonde.split_length(length, np.ones(1))
    assert 0 <= A * T - length < T
    assert A <= 2 * T
    assert T <= 2 * A


@pytest.mark.parametrize("logarithms", [True, False])
def test_powers_of_unbatched_poles_each(logarithms: bool, xp: Any):
    """An exponent of one axis of size 1 is one for all poles, not a table."""
    w = np.asarray([-0.1 + 0.5j, -0.2 - 1.0j, -0.3])
    powers = Powers(xp.asarray(np.exp(w)), (xp.asarray(w), None) if logarithms else None, xp)
    found = powers.at(xp.asarray([5]), 8)
    assert found.shape == (3,)
    np.testing.assert_allclose(np.asarray(found), np.exp(5 * w), rtol=1e-13)


def test_long_powers_use_what_the_logarithms_lost():
    """A phase of thousands of radians: single precision loses 4e-4 of it by rounding the logarithm alone."""
    exact, k = np.asarray([-1e-6 + 0.1234567890123j]), 2**17  # k w is exact
    w = exact.astype(np.complex64)
    lost = (exact - w).astype(np.complex64)
    wanted = np.exp(k * exact)
    assert abs(np.exp(k * w.astype(complex)) / wanted - 1) > 1e-4
    np.testing.assert_allclose(Powers(np.exp(w), (w, lost), np)(k), wanted, rtol=2e-6)


@pytest.mark.parametrize("conj_pairs", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5, 16, 31])
def test_sum_of_powers(length: int, conj_pairs: bool, powers: Powers, xp: Any):
    c = np.asarray([[1.0 + 1j, 2.0, -0.5j]])
    wanted = np.sum(c[..., None] * POLES[..., None] ** np.arange(length), axis=-2)
    found = power_sum(xp.asarray(c), powers, length, conj_pairs=conj_pairs)
    np.testing.assert_allclose(np.asarray(found), wanted.real if conj_pairs else wanted, rtol=1e-12)
    assert found.dtype == (xp.float64 if conj_pairs else xp.complex128)


@pytest.mark.parametrize("conj_pairs", [False, True])
def test_sum_of_real_powers_stays_real(conj_pairs: bool, xp: Any):
    c, poles = xp.asarray([1.0, 2.0], dtype=xp.float32), xp.asarray([0.5, 0.25], dtype=xp.float32)
    y = power_sum(c, Powers(poles, None, xp), 3, conj_pairs=conj_pairs)
    assert y.dtype == xp.float32
    np.testing.assert_allclose(np.asarray(y), [3.0, 1.0, 0.375])


def test_long_sums_need_no_tensor_of_all_powers(monkeypatch: pytest.MonkeyPatch):
    sizes = []
    table = Powers.table
    monkeypatch.setattr(Powers, "table", lambda self, n, **k: sizes.append(n) or table(self, n, **k))
    power_sum(np.ones(2), Powers(np.asarray([0.5, 0.9]), None, np), 10_000, conj_pairs=False)
    assert sum(sizes) < 300


@pytest.mark.parametrize(("P", "M"), [(None, None), (2, None), (None, 3), (2, 3)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_propagation(batch: tuple[int, ...], P: int | None, M: int | None, xp: Any):
    for conj_pairs in (False, True):
        system = reference.diagonal(3, P=P, M=M, batch=batch, conj_pairs=conj_pairs)
        discrete = discretize(system, 0.1)
        for logarithms in (None, (xp.asarray(0.1 * system.poles), None)):
            propagator = DiagonalPropagator(reference.arrays_of(discrete, xp), logarithms, xp)
            reference.check_propagator(propagator, discrete, batch, xp)
