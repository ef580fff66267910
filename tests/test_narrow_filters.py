"""Narrow filters, whose companion matrices have powers that no rounding survives: all modes are the recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal

import ssm_core
from ssm_core import Rational, from_scipy, kernel, scan, scan_summary, to_dense, to_rational
from ssm_core.layers import RTF
from ssm_core.time_invariant.transient import powers_grow

U = np.random.default_rng(0).normal(size=(2, 1200))
FILTERS = {
    "low 4": scipy.signal.butter(4, 0.01),
    "low 6": scipy.signal.butter(6, 0.01),
    "band 3": scipy.signal.butter(3, [0.01, 0.02], "band"),
    "elliptic": scipy.signal.ellip(6, 0.1, 60, 0.02),
}


def error(found: Any, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(np.asarray(found) - wanted)) / np.max(np.abs(wanted)))


@pytest.mark.parametrize("name", FILTERS)
def test_every_mode_is_the_recurrence(name: str, xp: Any):
    b, a = FILTERS[name]
    system, wanted = Rational(xp.asarray(b), xp.asarray(a)), scipy.signal.lfilter(b, a, U)
    u, calm = xp.asarray(U), xp.asarray(np.zeros((1, 1200), bool))
    for mode in ("conv", "chunk", "scan", "auto"):
        y, state = scan(system, u, mode=mode)
        assert error(y, wanted) < 1e-5
        half, middle = scan(system, u[..., :500], mode=mode)
        rest, last = scan(system, u[..., 500:], initial=middle, mode=mode)
        assert error(np.concatenate([np.asarray(half), np.asarray(rest)], axis=-1), wanted) < 1e-5
        assert error(last, np.asarray(state)) < 1e-4
    assert error(scan(system, u, reset=calm)[0], wanted) < 1e-5
    assert error(kernel(system, 900), scipy.signal.lfilter(b, a, np.eye(1, 900)[0])) < 1e-5


def test_resets_and_lengths_of_a_batch():
    b, a = FILTERS["low 4"]
    reset, lengths = np.zeros((2, 1200), bool), np.asarray([700, 1200])
    reset[0, 300], reset[1, [5, 6, 700]] = True, True
    found, state = scan(Rational(b, a), U, reset=reset, lengths=lengths, mode="chunk")
    wanted, last = scan(Rational(b, a), U, reset=reset, lengths=lengths, mode="scan")
    assert error(found[0, :700], wanted[0, :700]) < 1e-8
    assert error(found[1], wanted[1]) < 1e-8
    assert error(state, last) < 1e-8


def test_many_poles():
    rng = np.random.default_rng(0)
    half = 0.99 * np.exp(1j * rng.uniform(0, np.pi, 32))
    a, b = np.real(np.poly(np.concatenate([half, half.conj()]))), rng.normal(size=64)
    for mode in ("conv", "chunk"):
        assert error(scan(Rational(b, a), U, mode=mode)[0], scipy.signal.lfilter(b, a, U)) < 1e-7
    a = np.pad(a, (0, 80))
    assert error(kernel(Rational(b, a), 1200), scipy.signal.lfilter(b, a, np.eye(1, 1200)[0])) < 1e-7


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_with_poles_near_the_circle(dtype: str):
    """Order 4, float32 coefficients as they are: float32 rounds the outputs alone."""
    layer = RTF(2, d_state=4, activation=None, output=None)
    params = layer.initial_parameters(seed=0)
    a = np.poly([0.98 * np.exp(0.1j), 0.98 * np.exp(-0.1j), 0.97, 0.96]).real[1:]
    params = {name: x.astype(dtype) for name, x in (params | {"a": np.tile(a, (1, 2, 1))}).items()}
    numerator, denominator = (np.asarray(x[0], float) for x in layer.coefficients(params, np))
    u = np.random.default_rng(1).normal(size=(1, 600, 2)).astype(dtype)
    wanted = np.stack([scipy.signal.lfilter(numerator[h], denominator[h], u[0, :, h]) for h in range(2)], axis=-1)
    for options in ({}, {"mode": "chunk"}, {"mode": "scan"}, {"reset": np.zeros((1, 600), bool)}):
        y = layer.apply(params, u, **options)
        assert y.dtype == dtype
        assert error(y[0], wanted) < (1e-6 if dtype == "float32" else 1e-9)


def test_gradients_agree_with_those_of_the_steps():
    torch = pytest.importorskip("torch")
    b, a = (torch.tensor(x, requires_grad=True) for x in FILTERS["low 4"])
    u = torch.as_tensor(U[:, :200])

    def slopes(mode: str) -> np.ndarray:
        y, state = scan(Rational(b, a), u, mode=mode)
        loss = y.square().sum() + 1e-12 * state.square().sum()
        return torch.cat(torch.autograd.grad(loss, (b, a))).numpy()

    assert error(slopes("chunk"), slopes("scan")) < 1e-5
    assert error(slopes("conv"), slopes("scan")) < 1e-5


def test_under_jit():
    jax = pytest.importorskip("jax")
    b, a = FILTERS["low 4"]
    with jax.enable_x64(True):
        found = jax.jit(lambda b, a: kernel(Rational(b, a), 900))(b, a)
        assert error(found, scipy.signal.lfilter(b, a, np.eye(1, 900)[0])) < 1e-7


def test_transfer_functions_of_scipy():
    b, a = FILTERS["low 6"]
    system = from_scipy(scipy.signal.dlti(b, a, dt=1.0))
    assert isinstance(system, Rational)
    assert error(scan(system, U)[0], scipy.signal.lfilter(b, a, U)) < 1e-5
    zeros, poles, gain = scipy.signal.tf2zpk([1.0, 0.5], [1.0, -0.9, 0.3])
    found = from_scipy(scipy.signal.dlti(zeros, poles, gain, dt=1.0))
    assert error(scan(found, U)[0], scipy.signal.lfilter([0, 1.0, 0.5], [1.0, -0.9, 0.3], U)) < 1e-12


def test_stable_filters_are_not_called_unstable():
    sections = scipy.signal.butter(7, 0.01, output="sos")
    wanted = scipy.signal.sosfilt(sections, np.eye(1, 4000)[0])
    assert error(kernel(Rational(*scipy.signal.butter(7, 0.01)), 4000), wanted) < 1e-3
    with pytest.raises(ssm_core.DomainError, match="the system is unstable"):
        kernel(Rational(np.ones(1), np.asarray([1.0, -2.0])), 4000)


@pytest.mark.parametrize(
    "filter", [scipy.signal.butter(8, 0.01), scipy.signal.ellip(8, 0.1, 60, 0.01), scipy.signal.cheby1(10, 0.5, 0.02)]
)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_double_precision_cannot_hold_is_refused_on_every_cpu(filter: Any, library: str):
    """Their coefficients in double precision are those of another filter: a hundredth of its largest tap away."""
    xp = pytest.importorskip(library)
    system, u = Rational(*map(xp.asarray, filter)), xp.asarray(U)
    for call in (kernel, scan, scan_summary):
        signal = 4000 if call is kernel else u
        with pytest.raises(ssm_core.DomainError, match=r"ill-conditioned: they magnify roundings \d\..e\+1\d") as info:
            call(system, signal)
        assert "unstable" not in str(info.value)


def test_single_precision_alone_is_refused_too():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(False):
        b, a = (jax.numpy.asarray(x, "float32") for x in FILTERS["low 4"])
        with pytest.raises(ssm_core.DomainError, match=r"ill-conditioned.*jax_enable_x64"):
            kernel(Rational(b, a), 900)


def test_conversions_that_keep_their_digits_or_are_refused():
    def sampled(n: int, dtype: str) -> Any:
        start = ssm_core.diagonal_init("lin", n)
        fields = (x.astype(dtype) for x in (start.poles, start.B, np.ones(n // 2)))
        return ssm_core.discretize(ssm_core.Diagonal(*fields, conj_pairs=True), 0.01)

    system = sampled(8, "complex128")
    assert error(kernel(to_rational(system), 200), kernel(system, 200)) < 1e-3
    for n, dtype in ((16, "complex128"), (8, "complex64")):
        with pytest.raises(ssm_core.DomainError, match=r"^to_rational: .*ill-conditioned.*Keep the state space"):
            to_rational(sampled(n, dtype))


@pytest.mark.parametrize("name", ["low 4", "low 6", "band 3"])
def test_dense_forms_take_no_powers_that_grow(name: str, xp: Any):
    b, a = FILTERS[name]
    dense, wanted = to_dense(Rational(xp.asarray(b), xp.asarray(a))), scipy.signal.lfilter(b, a, U)
    u, N = xp.asarray(U), dense.A.shape[-1]
    for mode in ("conv", "chunk", "scan", "auto"):
        y, state = scan(dense, u, mode=mode)
        assert error(y, wanted) < 1e-5
        rest, last = scan(dense, u[..., 700:], initial=scan(dense, u[..., :700], mode=mode)[1], mode=mode)
        assert error(rest, wanted[..., 700:]) < 1e-5
        assert error(last, np.asarray(state)) < 1e-4
    assert error(kernel(dense, 900), scipy.signal.lfilter(b, a, np.eye(1, 900)[0])) < 1e-5
    first = xp.asarray(np.random.default_rng(1).normal(size=(2, N)))
    through = scan_summary(dense, u).after(first)
    assert error(through, np.asarray(scan(dense, u, initial=first, mode="scan")[1])) < 1e-5


def test_state_spaces_of_other_packages():
    b, a = FILTERS["low 6"]
    system = from_scipy(scipy.signal.TransferFunction(b, a, dt=1).to_ss())
    assert error(scan(system, U, mode="conv")[0], scipy.signal.lfilter(b, a, U)) < 1e-5


def test_dense_forms_beyond_double_precision_are_refused():
    dense = to_dense(Rational(*scipy.signal.butter(9, 0.01)))
    for call in (lambda: kernel(dense, 1000), lambda: scan(dense, U), lambda: scan_summary(dense, U)):
        with pytest.raises(
            ssm_core.DomainError, match=r"ill-conditioned: they magnify roundings \d\..e\+1[345]"
        ) as info:
            call()
        assert "unstable" not in str(info.value)


@pytest.mark.parametrize("unit", [1.0, 1e9])
def test_growth_does_not_depend_on_units(unit: float):
    legs, scale = ssm_core.discretize(ssm_core.hippo("legs", 16), 0.01), unit ** np.linspace(0, 1, 16)
    assert not powers_grow(legs.A * scale[:, None] / scale, 4096)
    assert powers_grow(to_dense(Rational(*FILTERS["low 4"])).A, 4096)


def test_long_denominators_of_narrow_filters():
    b, a = FILTERS["low 6"]
    a = np.convolve(a, np.concatenate([[1.0], np.zeros(599), [-0.5]]))
    assert error(kernel(Rational(b, a), 2000), scipy.signal.lfilter(b, a, np.eye(1, 2000)[0])) < 1e-5
