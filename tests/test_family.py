"""The layers of the S4 family on plain arrays: how they start, and how they are special cases of one another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import layers, nplr
from ssm_core.layers import DSS, LMU, LRU, S4, S4D, S5, SSM, DLinOSS, LinOSS

H = 4
STEPS = {"dt_min": 0.05, "dt_max": 0.5}
SMALL: dict[str, Any] = {
    "S4": S4(H, d_state=6, **STEPS),
    "SSM": SSM(H, d_state=3, **STEPS),
    "LMU": LMU(H, d_state=3, theta=10),
    "DSS": DSS(H, length=12, d_state=6, **STEPS),
    "S5": S5(H, d_state=6, **STEPS),
    "LRU": LRU(H, d_state=6),
    "LinOSS": LinOSS(H, d_state=3),
}


def double(layer: Any, seed: int = 0) -> dict[str, np.ndarray]:
    return layer.initial_parameters(seed, dtype=np.float64)


def signal(length: int = 23, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, length, H))


def close(x: Any, y: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


# How they start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("init", "rank"), [("legs", 1), ("legt", 2), ("fout", 1), ("legsd", 0), ("legs", 3)])
def test_s4_starts_with_hippo(init: str, rank: int):
    layer = S4(H, d_state=8, init=init, rank=rank or None, n_ssm=2)
    found, dt = layer.system(double(layer), np)
    wanted, _ = nplr(init, 8, rank=rank)
    assert found.P.shape == (H, rank, 4)
    close(found.poles.imag, np.broadcast_to(wanted.poles.imag, (H, 4)))
    close(found.poles.real, np.minimum(np.broadcast_to(wanted.poles.real, (H, 4)), -1e-4))
    close(found.P, np.broadcast_to(wanted.P, (H, rank, 4)))
    close(found.B, np.broadcast_to(wanted.B, (H, 4)))
    assert ((dt >= 1e-3) & (dt <= 1e-1)).all()


@pytest.mark.parametrize("init", ["legs", "fout", "lmu"])
def test_ssm_starts_with_hippo(init: str):
    layer = SSM(H, d_state=4, init=init)
    A, B = ssm_core.hippo(init, 4)
    params = double(layer)
    close(params["A"], np.broadcast_to(A, (H, 4, 4)))
    close(params["B"], np.broadcast_to(B, (H, 4)))


def test_dss_starts_above_the_real_axis():
    params = double(SMALL["DSS"])
    assert params["A_re"].shape == (1, 3)
    assert (params["A_im"] > 0).all()
    close(params["A_re"], np.full((1, 3), -0.5))


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("conj_sym", [True, False])
def test_s5_starts_with_copies_of_the_normal_part_of_legs(conj_sym: bool, blocks: int):
    layer = S5(H, d_state=16, blocks=blocks, conj_sym=conj_sym)
    params = double(layer)
    poles = (params["A_re"] + 1j * params["A_im"]).reshape(blocks, -1)
    wanted = nplr("legs", 16 // blocks)[0].poles
    wanted = wanted if conj_sym else np.concatenate([wanted, wanted.conj()])
    for block in poles:
        close(np.sort_complex(block), np.sort_complex(wanted))


def test_lru_starts_on_a_ring():
    layer = LRU(H, d_state=200, r_min=0.7, r_max=0.9, max_phase=0.5)
    system, dt = layer.system(double(layer), np)
    assert dt is None
    radius, phase = np.abs(system.poles), np.angle(system.poles)
    assert ((radius >= 0.7) & (radius <= 0.9)).all()
    assert ((phase >= 0) & (phase <= 0.5)).all()
    close(np.sort(radius**2), 0.49 + 0.32 * (np.arange(100) + 0.5) / 100)
    close(np.exp(double(layer)["gamma_log"]), np.sqrt(1 - np.sort(radius) ** 2))


def test_lru_keeps_within_the_unit_circle():
    layer = LRU(H, d_state=40)
    wild = {n: p + 3 * np.random.default_rng(0).normal(size=p.shape) for n, p in double(layer).items()}
    assert (np.abs(layer.system(wild, np)[0].poles) <= 1).all()


# Special cases of one another ----------------------------------------------------------------------------------------


def test_s4_without_a_low_rank_part_is_s4d():
    low_rank, diagonal = (cls(H, d_state=6, discretization="bilinear", **STEPS) for cls in (S4, S4D))
    params = double(low_rank)
    params |= {name: 0 * params[name] for name in ("P_re", "P_im")}
    same = {name: params[name] for name in double(diagonal)}
    for mode in ("conv", "chunk", "scan"):
        close(low_rank.apply(params, signal(), mode=mode), diagonal.apply(same, signal(), mode=mode))


@pytest.mark.parametrize("discretization", ["bilinear", "zoh"])
def test_s4_is_ssm_in_another_basis(discretization: str):
    """c of the original states becomes C = c V: HiPPO with full matrices and in DPLR form."""
    options = {"discretization": discretization, **STEPS}
    full, low_rank = SSM(H, d_state=6, **options), S4(H, d_state=6, **options)
    params = double(full)
    C = params["C"] @ nplr("legs", 6)[1]
    same = double(low_rank) | {"C_re": C.real, "C_im": C.imag}
    same |= {name: params[name] for name in ("log_dt", "D", "output_weight", "output_bias")}
    close(low_rank.apply(same, signal()), full.apply(params, signal()))


def test_lmu_is_ssm_with_fixed_matrices():
    fixed, free = LMU(H, d_state=4, theta=8), SSM(H, d_state=4, init="lmu", discretization="zoh")
    params = double(fixed)
    same = double(free) | params | {"log_dt": np.full(H, -math.log(8))}
    close(fixed.apply(params, signal()), free.apply(same, signal()))


def test_lmu_remembers_its_window():
    """The states are Legendre coefficients of the last theta steps: a slow signal comes back from them."""
    theta, N = 200, 8
    layer = LMU(1, d_state=N, theta=theta)
    t = np.arange(600)
    u = np.sin(2 * math.pi * t / 300)[None, :, None]
    _, state = layer.apply(double(layer), u, return_state=True)
    ages = np.asarray([0.1, 0.5, 0.9])
    found = ssm_core.hippo_reconstruct(state[0, 0], "lmu", ages)
    seen = [np.interp(599 - theta * age, t, u[0, :, 0]) for age in ages]
    flipped = [np.interp(599 - theta * (1 - age), t, u[0, :, 0]) for age in ages]
    assert min(np.abs(found - seen).max(), np.abs(found - flipped).max()) < 0.02


def test_s5_of_all_modes_is_that_of_pairs():
    pairs, every = S5(H, d_state=6, **STEPS), S5(H, d_state=6, conj_sym=False, **STEPS)
    params = double(pairs)
    same = {n: params[n] for n in ("D", "output_weight", "output_bias")}
    for name in ("A", "B", "C"):
        axis = -1 if name == "C" else 0
        same[f"{name}_re"] = np.concatenate([params[f"{name}_re"]] * 2, axis=axis)
        same[f"{name}_im"] = np.concatenate([params[f"{name}_im"], -params[f"{name}_im"]], axis=axis)
    same["log_dt"] = np.concatenate([params["log_dt"]] * 2)
    close(every.apply(same, signal()), pairs.apply(params, signal()))


def test_clipped_poles_decay():
    layer = S5(H, d_state=6, clip_eigs=True, max_real=0.2)
    params = double(layer)
    params["A_re"] = np.asarray([0.5, -0.1, -3.0])
    close(layer.system(params, np)[0].poles.real, [-0.2, -0.2, -3.0])


@pytest.mark.parametrize("real", [-0.5, 0.0, 0.4])
def test_dss_is_a_softmax_over_its_length(real: float):
    """Within the length no entry of the softmax exceeds one, whether modes decay, stay or grow."""
    layer = DSS(1, length=30, d_state=2, skip=False, activation=None, output=None, epsilon=0.0, n_ssm=None, **STEPS)
    params = double(layer) | {"A_re": np.full((1, 1), real), "A_im": np.full((1, 1), 2.0)}
    dt, A = np.exp(params["log_dt"][0]), real + 2j
    W = params["W_re"][0, 0, 0] + 1j * params["W_im"][0, 0, 0]
    terms = np.exp(dt * A * np.arange(30))
    close(layer.kernel(params, 30)[0, 0], (W / A * terms / terms.sum()).real)


def test_dss_of_long_growing_modes_is_finite_in_single_precision():
    layer = DSS(H, length=4096, d_state=8)
    params = layer.initial_parameters()
    params["A_re"] = np.full_like(params["A_re"], 0.15)  # e^(61) at the most
    K = layer.kernel(params, 4096)
    assert K.dtype == np.float32
    assert np.isfinite(K).all()
    assert np.abs(K).max() < 100


@pytest.mark.parametrize(("scheme", "holds"), [("imex", True), ("im", False)])
def test_linoss_keeps_or_loses_energy(scheme: str, holds: bool):
    """Free oscillations: imex neither grows nor decays, im decays."""
    layer = LinOSS(1, d_state=1, scheme=scheme, skip=False, activation=None, output=None)
    params = double(layer) | {"A_diag": np.ones(1), "steps": np.zeros(1)}
    state = np.asarray([[[0.0, 1.0], [0.0, 0.0]]])
    _, last = layer.apply(params, np.zeros((1, 500, 1)), state=state, return_state=True)
    size = np.abs(last).max()
    assert 0.3 < size < 3 if holds else size < 1e-10


@pytest.mark.parametrize("length", [100, 1000])
def test_d_linoss_near_the_angle_pi_is_as_precise_as_elsewhere(length: int):
    """There two poles all but meet, and rounded entries of a step move them by the root of what was rounded."""
    layer = DLinOSS(2, d_state=1, activation=None, output=None, skip=False)
    radius, angle, dt = 0.9999, 3.141, 0.5
    A = (radius**2 - 2 * radius * np.cos(angle) + 1) / (dt * radius) ** 2
    moving = {"A_diag": [A], "G_diag": [(radius**-2 - 1) / dt], "steps": [0.0]}
    params = layer.initial_parameters(seed=0) | {name: np.asarray(v, np.float32) for name, v in moving.items()}
    u = np.random.default_rng(0).normal(size=(1, length, 2)).astype(np.float32)
    exact = layer.apply({name: x.astype(np.float64) for name, x in params.items()}, u.astype(np.float64))
    np.testing.assert_allclose(layer.apply(params, u), exact, rtol=0, atol=3e-6 * np.abs(exact).max())


def test_linoss_takes_negative_stiffness_for_none():
    layer = SMALL["LinOSS"]
    params = double(layer)
    none = params | {"A_diag": np.zeros(3)}
    close(layer.apply(params | {"A_diag": -np.ones(3)}, signal()), layer.apply(none, signal()))


@pytest.mark.parametrize("name", ["S5", "LRU", "LinOSS"])
def test_both_directions_hold_the_current_sample(name: str):
    """Over one step the two directions are the same state, read by two rows of C."""
    options = {k: v for k, v in SMALL[name].options().items() if k != "bidirectional"}
    both, one = (layers.make(name, options | {"bidirectional": b}) for b in (True, False))
    params = double(both)
    joined = params | {n: params[n].sum(0, keepdims=True) for n in ("C_re", "C_im")}
    close(both.apply(params, signal(1)), one.apply(joined, signal(1)))


@pytest.mark.parametrize("output", ["half_glu", "half_glu2"])
def test_half_glu_gates_what_it_passes_on(output: str):
    """After its activation, or before."""
    layer = S5(H, d_state=4, output=output, activation="tanh", **STEPS)
    params = double(layer)
    bare = S5(H, d_state=4, output=None, activation="tanh", **STEPS)
    v = bare.apply({n: params[n] for n in double(bare)}, signal())
    gate = 1 / (1 + np.exp(-(v @ params["output_weight"].T + params["output_bias"])))
    passed = v if output == "half_glu" else np.arctanh(v)
    close(layer.apply(params, signal()), passed * gate)
