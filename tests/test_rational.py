"""Rational systems: against the difference equation, powers of the companion matrix, and each other's forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_compat.numpy as compat
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import ssm_core
from ssm_core import DPLR, Dense, Diagonal, Rational, discretize, kernel, to_rational
from ssm_core.systems.companion import companion
from ssm_core.time_invariant import rational, realization

SIZES = [(1, 1), (3, 1), (1, 4), (4, 2), (2, 6), (40, 3), (3, 40), (40, 45), (200, 40)]


def quotient(b: np.ndarray, a: np.ndarray, length: int) -> np.ndarray:
    """The difference equation, one step after another, over batches."""
    batch = np.broadcast_shapes(b.shape[:-1], a.shape[:-1])
    h = np.zeros((*batch, length), np.result_type(a, b))
    for k in range(length):
        h[..., k] = b[..., k] if k < b.shape[-1] else 0
        for j in range(1, min(k + 1, a.shape[-1])):
            h[..., k] -= a[..., j] * h[..., k - j]
        h[..., k] /= a[..., 0]
    return h


def coefficients(n: int, m: int, batch: Any = (), seed: int = 0, imaginary: bool = False) -> Any:
    """Numerator and denominator of a stable system that remembers some ten steps."""
    rng = np.random.default_rng(seed)
    b, tail = rng.normal(size=(*batch, n)), rng.normal(size=(*batch, m - 1))
    if imaginary:
        tail = tail + 1j * rng.normal(size=tail.shape)
    tail = 0.95 * tail / np.maximum(np.sum(np.abs(tail), axis=-1, keepdims=True), 1e-9)
    return b, np.concatenate([np.ones((*batch, 1)), tail], axis=-1)


# The impulse response ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_impulse_response(n: int, m: int, xp: Any):
    """At every length the first taps of the longest, which no later coefficient changes."""
    for imaginary in (False, True):
        b, a = coefficients(n, m, (2,), imaginary=imaginary)
        wanted = quotient(b, a, 700)
        for length in (1, 2, 3, 8, 61, 700):
            found = rational.impulse_response(xp.asarray(b), xp.asarray(a), length, xp)
            assert found.shape == (2, length)
            np.testing.assert_allclose(np.asarray(found), wanted[:, :length], atol=1e-13 * np.max(np.abs(b)))


def test_batch_axes_broadcast(xp: Any):
    b, a = coefficients(3, 4, (5, 1))[0], coefficients(3, 4, (2,))[1]
    found = rational.impulse_response(xp.asarray(b), xp.asarray(a), 9, xp)
    np.testing.assert_allclose(np.asarray(found), quotient(b, a, 9), atol=1e-13)
    empty = rational.impulse_response(xp.asarray(b[:0]), xp.asarray(a), 9, xp)
    assert empty.shape == (0, 2, 9)


def test_a_first_coefficient_that_is_not_one(xp: Any):
    b, a = coefficients(3, 4)
    arrays = xp.asarray(2.5 * b), xp.asarray(2.5 * a)
    np.testing.assert_allclose(np.asarray(rational.impulse_response(*arrays, 9, xp)), quotient(b, a, 9), atol=1e-13)
    np.testing.assert_allclose(np.asarray(companion(Rational(*arrays)).A)[0], -a[1:], atol=1e-14)


@pytest.mark.parametrize("order", [1, 8, 40])
@pytest.mark.parametrize("radius", [0.9999, 1.0, 1.001])
def test_long_memories(radius: float, order: int):
    """A pole near, on and beyond the circle, in float32 and float64; relative to the largest tap."""
    L = 4096
    rest = np.concatenate([[1.0], np.random.default_rng(0).normal(size=order - 1) / order**2])
    a = np.convolve([1.0, -radius], rest)
    for dtype, allowed in ((np.float64, 1e-10), (np.float32, 2e-7)):
        b, rounded = np.ones(2, dtype), a.astype(dtype)
        wanted = scipy.signal.lfilter(b.astype(float), rounded.astype(float), np.eye(1, L)[0])
        found = rational.impulse_response(b, rounded, L, compat)
        assert found.dtype == dtype
        assert np.max(np.abs(found - wanted)) <= allowed * np.max(np.abs(wanted))


@pytest.mark.parametrize("order", [4, 40])
def test_growing_responses(order: int):
    """Far outside of the circle, up to 1e20 and more."""
    rng = np.random.default_rng(1)
    a = np.convolve([1.0, -1.1], np.concatenate([[1.0], rng.normal(size=order - 1) / order]))
    wanted = scipy.signal.lfilter([1.0, 2.0], a, np.eye(1, 500)[0])
    found = rational.impulse_response(np.asarray([1.0, 2.0]), a, 500, compat)
    assert np.max(np.abs(wanted)) > 1e19
    assert np.max(np.abs(found - wanted)) <= 1e-11 * np.max(np.abs(wanted))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 45), st.integers(1, 45), st.integers(1, 200), st.integers(0, 2**20))
def test_the_quotient_times_the_denominator_is_the_numerator(n: int, m: int, length: int, seed: int):
    b, a = coefficients(n, m, seed=seed)
    h = rational.impulse_response(b, a, length, compat)
    wanted = np.zeros(length)
    wanted[: min(n, length)] = b[:length]
    np.testing.assert_allclose(np.convolve(a, h)[:length], wanted, atol=1e-12 * np.max(np.abs(b)))


@pytest.mark.parametrize(("n", "m", "length"), [(3, 4, 9), (36, 3, 12), (3, 36, 40), (3, 36, 300), (2, 1, 5)])
@pytest.mark.parametrize("imaginary", [False, True])
def test_derivatives(n: int, m: int, length: int, imaginary: bool):
    torch = pytest.importorskip("torch")
    b, a = (torch.tensor(x, requires_grad=True) for x in coefficients(n, m, imaginary=imaginary))
    xp = ssm_core._arrays.library.resolve("torch")
    assert torch.autograd.gradcheck(lambda b, a: rational.impulse_response(b, a, length, xp), (b, a))
    assert torch.autograd.gradcheck(lambda b, a: rational.aliased_response(b, a, length + 36, xp), (b, a))


# Aliasing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_aliased_response_is_the_sum_over_periods(n: int, m: int, xp: Any):
    b, a = coefficients(n, m, (2,))
    taps = quotient(b, a, 1505)
    for period in (1, 2, 7, 32):
        turns = -(-1500 // period)
        wanted = np.sum(taps[:, : turns * period].reshape(2, turns, period), axis=1)
        found = rational.aliased_response(xp.asarray(b), xp.asarray(a), period, xp)
        assert found.shape == (2, period)
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-11 * np.max(np.abs(wanted)))


# The companion form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_companion_form(n: int, m: int, batch: Any, xp: Any):
    b, a = coefficients(n, m, batch)
    system = companion(Rational(xp.asarray(b), xp.asarray(a), 0.5))
    assert system.discrete
    assert system.D == 0.5
    assert system.A.shape == (*batch, max(n, m - 1), max(n, m - 1))
    np.testing.assert_allclose(np.asarray(kernel(system, 50)), quotient(b, a, 50), atol=1e-12 * np.max(np.abs(b)))


def test_companion_states_are_the_last_values():
    b, a = coefficients(2, 4)
    system = companion(Rational(b, a))
    u = np.random.default_rng(0).normal(size=9)
    y, state = ssm_core.scan(system, u)
    w = scipy.signal.lfilter([1.0], a, u)
    np.testing.assert_allclose(state, w[:-4:-1], atol=1e-13)
    np.testing.assert_allclose(y, scipy.signal.lfilter(b, a, u), atol=1e-13)


def test_companion_form_of_shared_denominators():
    b, a = coefficients(3, 3, (4, 2))[0], coefficients(3, 3, (2,))[1]
    system = companion(Rational(b, a))
    assert (system.A.shape, system.C.shape) == ((1, 2, 3, 3), (4, 2, 3))
    np.testing.assert_allclose(kernel(system, 9), quotient(b, a, 9), atol=1e-13)


# Frequencies and poles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [None, 0.5, np.asarray([0.5, -1.0])])
def test_response(D: Any, xp: Any):
    b, a = coefficients(3, 5, (2,))
    omega = np.linspace(-3, 3, 7)
    system = Rational(xp.asarray(b), xp.asarray(a), xp.asarray(D) if isinstance(D, np.ndarray) else D)
    found = np.asarray(rational.rational_response(system, xp.asarray(np.exp(-1j * omega)), xp))
    for row in range(2):
        direct = 0 if D is None else np.broadcast_to(D, (2,))[row]
        np.testing.assert_allclose(found[row], scipy.signal.freqz(b[row], a[row], omega)[1] + direct, atol=1e-12)


def test_poles(xp: Any):
    a = np.stack([np.poly([0.5, -0.25, 0.125]), np.poly([0.5, 0.3 + 0.4j, 0.3 - 0.4j]).real])
    found = np.asarray(rational.rational_poles(Rational(xp.asarray(np.ones((2, 1))), xp.asarray(2 * a)), xp))
    assert np.iscomplexobj(found)
    np.testing.assert_allclose(np.sort_complex(found[0]), [-0.25, 0.125, 0.5], atol=1e-12)
    np.testing.assert_allclose(np.sort_complex(found[1]), [0.3 - 0.4j, 0.3 + 0.4j, 0.5], atol=1e-12)
    none = rational.rational_poles(Rational(xp.asarray(np.ones(3)), xp.asarray(np.ones(1))), xp)
    assert none.shape == (0,)


# From state spaces ---------------------------------------------------------------------------------------------------

SYSTEMS = {
    "pairs": reference.diagonal(5),
    "batched pairs": reference.diagonal(4, batch=(2, 3)),
    "unpaired": reference.diagonal(5, conj_pairs=False),
    "real": Diagonal(-np.linspace(0.2, 2, 4), np.ones(4), np.arange(4.0), 0.25),
    "real pairs": Diagonal(-np.asarray([0.2, 2.0]), np.ones(2), np.arange(2.0), conj_pairs=True),
    "dense": reference.dense(5),
    "batched dense": reference.dense(3, batch=(2,)),
    "complex dense": Dense(np.diag([-1.0, -2.0 + 1j]), np.ones(2), np.ones(2) + 0j),
    "one state": reference.dense(1),
    "no states": Diagonal(np.ones(0), np.ones(0), np.ones(0), 0.5),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_same_impulse_response(name: str, xp: Any):
    system = discretize(SYSTEMS[name], 0.5)
    found = to_rational(reference.arrays_of(replace(system, D=None), xp))
    K = kernel(system, 40)
    b, a = np.asarray(found.numerator), np.asarray(found.denominator)
    assert np.iscomplexobj(b) == np.iscomplexobj(a) == np.iscomplexobj(K)
    states = kernel_states(system)
    assert (b.shape[-1], a.shape[-1]) == (max(states, 1), states + 1)
    scale = 1e-10 * max(np.max(np.abs(K)), 1)
    np.testing.assert_allclose(quotient(b, a, 40), K, atol=scale)
    back = companion(found)
    np.testing.assert_allclose(np.asarray(kernel(back, 40)), K, atol=scale)


def kernel_states(system: Any) -> int:
    first = system.A if isinstance(system, Dense) else system.poles
    return first.shape[-1] * (2 if getattr(system, "conj_pairs", False) else 1)


def test_low_rank_parts():
    rng = np.random.default_rng(0)
    P, Q = 0.1 * rng.normal(size=(2, 1, 3))
    poles = 0.5 * np.exp(1j * np.asarray([0.3, 1.0, 2.0]))
    for conj_pairs in (False, True):
        system = DPLR(poles, P + 0j, Q + 0j, np.ones(3) + 0j, np.ones(3) + 0j, conj_pairs=conj_pairs, discrete=True)
        found = to_rational(system)
        h = rational.impulse_response(found.numerator, found.denominator, 30, compat)
        np.testing.assert_allclose(h, kernel(ssm_core.to_dense(system), 30), atol=1e-12)


def test_the_direct_term_and_rational_systems_pass():
    system = Diagonal(np.full(2, 0.5), np.ones(2), np.ones(2), 0.25, discrete=True)
    found = to_rational(system)
    assert found.D == 0.25
    again = to_rational(found)
    np.testing.assert_array_equal(again.numerator, found.numerator)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_precision_is_that_of_the_system(dtype: str):
    one = np.ones(2, dtype)
    for system in (Diagonal(one / 2, one, one, discrete=True), Dense(np.diag(one / 2), one, one, discrete=True)):
        found = to_rational(system)
        wanted = "float64" if dtype == "float64" else "float32"
        assert found.numerator.dtype == found.denominator.dtype == wanted
        np.testing.assert_allclose(found.denominator, [1, -1, 0.25])


@pytest.mark.parametrize("conj_pairs", [False, True])
def test_many_poles_on_a_ring(conj_pairs: bool):
    """1 - r^64 z^-64, whose factors in the order of their angles would lose all digits."""
    half = 0.99 * np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)[: 32 if conj_pairs else 64]
    wanted = np.eye(1, 65)[0] + 0.99**64 * np.eye(1, 65, 64)[0]
    np.testing.assert_allclose(realization.from_roots(half, conj_pairs, compat), wanted, atol=1e-11)


def test_derivatives_of_the_conversion():
    torch = pytest.importorskip("torch")
    half = discretize(reference.diagonal(3), 0.5)
    fields = tuple(torch.tensor(x, requires_grad=True) for x in (half.poles, half.B, half.C))

    def coefficients_of(*fields: Any) -> Any:
        found = to_rational(Diagonal(*fields, conj_pairs=True, discrete=True))
        return found.numerator, found.denominator

    assert torch.autograd.gradcheck(coefficients_of, fields)


@pytest.mark.parametrize(
    ("system", "error", "message"),
    [
        (SYSTEMS["pairs"], ssm_core.OptionError, "continuous system .*discretize"),
        (Diagonal(np.ones(2), np.ones((2, 3)), np.ones(2), discrete=True), ssm_core.ShapeError, r"B: \(2, 3\)"),
        (Diagonal(np.ones(2), np.ones(2), np.ones((4, 2)), discrete=True), ssm_core.ShapeError, r"C: \(4, 2\)"),
        (Diagonal(np.ones(2), np.ones(2), discrete=True), ssm_core.OptionError, "no output vector C"),
        (Diagonal(np.full(2, np.nan), np.ones(2), np.ones(2), discrete=True), ssm_core.DomainError, "poles holds NaN"),
        (3.0, ssm_core.DTypeError, "a float is no system"),
    ],
)
def test_refused(system: Any, error: type, message: str):
    with pytest.raises(error, match=f"^to_rational: .*{message}"):
        to_rational(system)


# The parametrization of RTF ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.floats(0, 3), st.floats(1e-3, 1e3), st.integers(0, 2**20))
def test_montel_makes_every_pole_stable(order: int, slack: float, size: float, seed: int):
    raw = size * np.random.default_rng(seed).normal(size=(3, order))
    tail = rational.montel(raw, slack, compat)
    assert np.all(np.sum(np.abs(tail), axis=-1) < 1)
    np.testing.assert_array_equal(np.sign(tail), np.sign(raw))
    a = np.concatenate([np.ones((3, 1)), tail], axis=-1)
    assert np.all(np.abs(rational.rational_poles(Rational(np.ones((3, 1)), a), compat)) < 1 + 1e-9)


def test_slack_of_every_denominator(xp: Any):
    found = np.asarray(rational.montel(xp.asarray(np.ones((2, 3))), xp.asarray(np.asarray([-1.0, 5.0])), xp))
    np.testing.assert_allclose(found, np.asarray([[1 / 4] * 3, [1 / 8] * 3]), rtol=1e-6)


def test_initializations():
    assert rational.initial_bound("zeros", 4) == 0
    assert rational.initial_bound("montel", 4) == 0.25
    assert rational.initial_bound("xavier", 4) == 0.5
    with pytest.raises(ssm_core.OptionError, match=r"unknown initialization 'he'. Known: 'zeros', 'xavier', 'montel'"):
        rational.initial_bound("he", 4)
    with pytest.raises(ssm_core.OptionError, match="order = 0"):
        rational.initial_bound("zeros", 0)
