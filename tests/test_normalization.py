"""rms_norm: features of unit mean square, in groups, with a gate before or after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gated import close
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from ssm_core import rms_norm

settings.register_profile("ssm_core", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("ssm_core")

seeds = st.integers(0, 2**16)
shapes = st.lists(st.integers(1, 4), max_size=3).map(lambda lead: (*lead, 6))
groups = st.sampled_from([1, 2, 3, 6])


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@given(seeds, shapes, groups)
def test_every_group_has_a_mean_square_of_one(seed: int, shape: tuple[int, ...], groups: int):
    x = np.random.default_rng(seed).normal(size=shape)
    y = rms_norm(x, groups=groups, epsilon=0.0)
    close(np.mean(y.reshape(*shape[:-1], groups, -1) ** 2, axis=-1), np.ones((*shape[:-1], groups)))
    close(np.sign(y), np.sign(x))


@given(seeds, shapes, groups, st.floats(1e-3, 1e3))
def test_the_scale_of_the_input_does_not_matter(seed: int, shape: tuple[int, ...], groups: int, scale: float):
    x = np.random.default_rng(seed).normal(size=shape)
    close(rms_norm(scale * x, groups=groups, epsilon=0.0), rms_norm(x, groups=groups, epsilon=0.0))


@given(seeds, groups, st.booleans())
def test_groups_are_norms_side_by_side(seed: int, groups: int, gate_first: bool):
    r = np.random.default_rng(seed)
    x, weight, gate = r.normal(size=(3, 6)), r.normal(size=6), r.normal(size=(3, 6))
    y = rms_norm(x, weight, gate=gate, groups=groups, gate_first=gate_first)
    parts = [
        rms_norm(x[:, s], weight[s], gate=gate[:, s], gate_first=gate_first)
        for s in np.split(np.arange(6), groups)
    ]  # fmt: skip
    close(y, np.concatenate(parts, axis=-1))


@pytest.mark.parametrize("gate_first", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_is_the_formula(gate_first: bool, weighted: bool, xp: Any):
    r = np.random.default_rng(0)
    x, weight, gate = r.normal(size=(2, 5, 6)), r.normal(size=6) if weighted else np.ones(6), r.normal(size=(2, 5, 6))
    inner = x * silu(gate) if gate_first else x
    wanted = weight * inner / np.sqrt(np.mean(inner**2, axis=-1, keepdims=True) + 0.1)
    wanted = wanted if gate_first else wanted * silu(gate)
    given = xp.asarray(weight) if weighted else None
    close(rms_norm(xp.asarray(x), given, gate=xp.asarray(gate), epsilon=0.1, gate_first=gate_first), wanted)


def test_zeros_stay_zeros(xp: Any):
    close(rms_norm(xp.zeros((2, 4))), np.zeros((2, 4)))
    close(rms_norm(xp.zeros((0, 4))), np.zeros((0, 4)))
    close(rms_norm(xp.zeros((2, 0))), np.zeros((2, 0)))


def test_squares_that_half_precision_cannot_hold():
    """300^2 is beyond float16, and the square of 1e-5 is below it."""
    x = np.asarray([[300.0, 400.0], [1e-5, 2e-5]], np.float16)
    y = rms_norm(x, epsilon=0.0)
    assert y.dtype == np.float16
    wide = x.astype(float)
    np.testing.assert_allclose(y, wide / np.sqrt(np.mean(wide**2, axis=-1, keepdims=True)), rtol=1e-3)


def test_reversed_features_twice_are_those_before():
    r = np.random.default_rng(0)
    x, weight = r.normal(size=(3, 6)), r.normal(size=6)
    close(rms_norm(x[:, ::-1], weight[::-1], groups=2)[:, ::-1], rms_norm(x, weight, groups=2))


def test_gradients_in_torch():
    torch = pytest.importorskip("torch")
    values = [torch.randn(2, 6, dtype=torch.float64, requires_grad=True), torch.randn(6, dtype=torch.float64),
              torch.randn(2, 6, dtype=torch.float64, requires_grad=True)]  # fmt: skip

    def run(x: Any, weight: Any, gate: Any) -> Any:
        return rms_norm(x, weight, gate=gate, groups=2), rms_norm(x, weight, gate=gate, gate_first=False)

    assert torch.autograd.gradcheck(run, values)
    assert torch.autograd.gradgradcheck(run, values)


def test_values_are_not_checked_and_nan_stays_in_its_row():
    x = np.ones((2, 3))
    x[0, 0] = np.nan
    y = rms_norm(x)
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()
    with pytest.raises(ssm_core.OptionError, match="epsilon"):
        rms_norm(x, epsilon=float("nan"))
