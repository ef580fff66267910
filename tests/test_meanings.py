"""One meaning in every function: D as a number, poles on the axis, no states, rates of impulses, two directions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import DPLR, Dense, Diagonal, discretize, frequency_response, kernel, layers, scan, to_dense

EYE = np.eye(2)
PLAIN = {"activation": None, "output": None, "skip": False}


def test_a_number_as_direct_term_is_that_many_identities(xp: Any):
    system = Dense(xp.asarray(0.5 * EYE), xp.asarray(EYE), xp.asarray(EYE), 2.0, discrete=True)
    full = replace(system, D=xp.asarray(2 * EYE))
    omega, u = xp.asarray(np.asarray([0.3, 1.0])), xp.asarray(np.ones((2, 3)))
    for f in (lambda s: frequency_response(s, omega), lambda s: scan(s, u)[0]):
        np.testing.assert_allclose(np.asarray(f(system)), np.asarray(f(full)), atol=1e-14)
    wide = Dense(0.5 * EYE, EYE, np.ones((3, 2)), 2.0, discrete=True)
    for f in (lambda s: frequency_response(s, np.ones(1)), lambda s: scan(s, np.ones((2, 3))), ssm_core.to_scipy):
        with pytest.raises(ssm_core.ShapeError, match=r"D = 2\.0 is one number"):
            f(wide)
    for number in (np.int64(2), np.float64(2), np.float32(2)):
        np.testing.assert_allclose(np.asarray(scan(replace(system, D=number), u)[0]), np.asarray(scan(full, u)[0]))
    with pytest.raises(ssm_core.ShapeError, match="D must end with"):
        scan(replace(system, A=0.5 * EYE, B=EYE, C=EYE, D=np.ones((2, 1))), np.ones((2, 5)))


def test_responses_near_poles_of_the_diagonal_part():
    for measure in ("legt", "legs"):
        system = replace(ssm_core.nplr(measure, 8)[0], C=np.ones(4) + 0j)
        omega = np.concatenate([np.abs(system.poles.imag), [0.5]])
        wanted = frequency_response(to_dense(system), omega)
        np.testing.assert_allclose(frequency_response(system, omega), wanted, rtol=1e-9)


def test_responses_at_a_pole(xp: Any):
    one, zero = xp.asarray(np.ones(1)), xp.asarray(np.zeros((1, 1)))
    omega = xp.asarray(np.asarray([0.0, 1.0]))
    found = np.asarray(frequency_response(Dense(zero, one, one), omega))
    assert np.isinf(np.abs(found[0]))
    np.testing.assert_allclose(found[1], -1j, atol=1e-14)


def test_systems_of_no_states(xp: Any):
    none, matrix = xp.asarray(np.zeros(0)), xp.asarray(np.zeros((0, 0)))
    u, omega = xp.asarray(np.ones(3)), xp.asarray(np.ones(2))
    for system in (Dense(matrix, none, none, 2.0), Diagonal(none, none, none, 2.0)):
        gain = discretize(system, 0.1)
        for mode in ("conv", "chunk", "scan"):
            np.testing.assert_allclose(np.asarray(scan(gain, u, mode=mode)[0]), 2.0)
        np.testing.assert_allclose(np.asarray(scan(ssm_core.to_rational(gain), u)[0]), 2.0)
        np.testing.assert_allclose(np.asarray(frequency_response(gain, omega)), 2.0)
        assert not np.any(np.asarray(kernel(gain, 3)))
        assert ssm_core.poles(gain).shape == (0,)
        assert float(ssm_core.step(gain, u[0], none)[0]) == 2
        assert ssm_core.to_scipy(gain).D == [[2.0]]
        assert ssm_core.to_diagonal(gain)[1].shape == (0, 0)


@pytest.mark.parametrize("layer", [
    layers.DSS(2, length=400, **PLAIN),
    layers.S4D(2, discretization="dirac", **PLAIN),
    layers.S5(2, d_state=4, discretization="dirac", **PLAIN),
    layers.LMU(2, d_state=4, theta=100, discretization="dirac", **PLAIN),
], ids=lambda layer: layer.name)  # fmt: skip
def test_a_slow_signal_keeps_its_size_at_another_rate(layer: Any):
    """The same gain for impulses half as many: kernel, run, steps and irregular steps."""
    params = {k: v.astype(float) for k, v in layer.initial_parameters(0).items()}
    u = np.repeat(np.sin(0.03 * np.arange(1, 401))[None, :, None], 2, -1)
    coarse = layer.apply(params, u[:, 1::2], rate=2.0)
    fine = layer.apply(params, u)[:, 1::2]
    assert abs(np.sum(fine * coarse) / np.sum(fine * fine) - 1) < 0.1
    if layer.name != "LMU":
        scale = np.full((1, 200), 2.0)
        np.testing.assert_allclose(layer.apply(params, u[:, 1::2], step_scale=scale), coarse, atol=1e-9)
    step, state = layer.stepper(params, rate=2.0), layer.initial_state(params, 1)
    for k in range(3):
        y, state = step(u[:, 2 * k + 1], state)
        np.testing.assert_allclose(y[0], coarse[0, k], atol=1e-9)


@pytest.mark.parametrize("name", ["S5", "LRU", "LinOSS"])
def test_kernels_in_two_directions(name: str):
    layer = getattr(layers, name)(3, d_state=4, bidirectional=True, **PLAIN)
    params = {k: v.astype(float) for k, v in layer.initial_parameters(0).items()}
    u, K = np.random.default_rng(0).normal(size=(1, 20, 3)), layer.kernel(params, 20)
    assert K.shape == (6, 3, 20)

    def both(o: int, i: int) -> np.ndarray:
        past, future = np.convolve(u[0, :, i], K[o, i])[:20], np.convolve(u[0, ::-1, i], K[3 + o, i])[:20]
        return past + future[::-1]

    wanted = np.stack([sum(both(o, i) for i in range(3)) for o in range(3)], axis=-1)
    np.testing.assert_allclose(layer.apply(params, u)[0], wanted, atol=1e-12)


def test_long_oscillations_in_single_precision():
    layer = layers.LinOSS(2, d_state=4, **PLAIN)
    params = layer.initial_parameters(0)
    u = np.random.default_rng(0).normal(size=(1, 20000, 2)).astype(np.float32)
    wanted = layer.apply({k: v.astype(float) for k, v in params.items()}, u.astype(float))
    for options in ({}, {"mode": "chunk"}):
        y = layer.apply(params, u, **options)
        assert y.dtype == np.float32
        assert np.max(np.abs(y - wanted)) < 3e-6 * np.max(np.abs(wanted))


def test_states_without_pairs_may_be_odd():
    poles = layers.S5(2, d_state=7, conj_sym=False).initial_parameters(0)
    np.testing.assert_allclose(np.sort(poles["A_im"]) + np.sort(poles["A_im"])[::-1], 0, atol=1e-5)
    with pytest.raises(ssm_core.OptionError, match="conj_sym=False"):
        layers.S5(2, d_state=7)


def test_irregular_steps_of_a_dense_system_name_the_way():
    with pytest.raises(ssm_core.OptionError, match=r"to_diagonal\(system\)"):
        scan(Dense(-EYE, np.ones(2), np.ones(2)), np.ones(3), dt=0.1, step_scale=np.ones(3))


def test_lists_and_integers_go_to_scipy():
    assert ssm_core.to_scipy(([[1]], [2], [3])).B == [[2.0]]
    assert ssm_core.to_scipy(Dense(np.asarray([[1]]), np.asarray([2]), [3], discrete=True), dt=0.5).dt == 0.5


def test_sampling_times_survive():
    pytest.importorskip("control")
    one = np.ones(1)
    assert ssm_core.to_control(Diagonal(0.5 * one, one, one, discrete=True), dt=1e-6).dt == 1e-6
    with pytest.raises(ssm_core.OptionError, match="no sampling time"):
        ssm_core.to_control(Diagonal(-one, one, one), dt=1e-6)
    with pytest.raises(ssm_core.DomainError, match="dt"):
        ssm_core.to_scipy(DPLR(one + 0j, one[None] + 0j, one[None] + 0j, one, one, discrete=True), dt=-1.0)
