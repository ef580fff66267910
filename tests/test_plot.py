"""Pictures: what is drawn is what the functions compute."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import ssm_core

plt = pytest.importorskip("matplotlib.pyplot", reason="pictures need matplotlib, which is not installed")

SYSTEM = ssm_core.Diagonal(np.asarray([-0.5 + 3j]), np.ones(1), np.ones(1), conj_pairs=True)


@pytest.fixture(autouse=True)
def figures():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def test_poles():
    drawn = ssm_core.plot.poles(SYSTEM).lines[-1]
    assert sorted(drawn.get_ydata()) == [-3.0, 3.0]
    circle, drawn = ssm_core.plot.poles(ssm_core.discretize(SYSTEM, 0.1), ax=plt.figure().gca()).lines
    np.testing.assert_allclose(np.hypot(*circle.get_data()), 1.0)
    np.testing.assert_allclose(np.hypot(*drawn.get_data()), np.exp(-0.05))


def test_kernel():
    ax = ssm_core.plot.kernel(SYSTEM, 20, dt=0.1, color="k")
    time, taps = ax.lines[0].get_data()
    np.testing.assert_allclose(time, 0.1 * np.arange(20))
    np.testing.assert_array_equal(taps, ssm_core.kernel(SYSTEM, 20, dt=0.1))


def test_bode():
    omega = np.logspace(-1, 1, 30)
    upper, lower = ssm_core.plot.bode(SYSTEM, omega)
    response = ssm_core.frequency_response(SYSTEM, omega)
    np.testing.assert_allclose(10 ** (upper.lines[0].get_ydata() / 20), np.abs(response))
    np.testing.assert_allclose(np.exp(1j * np.radians(lower.lines[0].get_ydata())), response / np.abs(response))
    again = ssm_core.plot.bode(SYSTEM, omega)  # into the same axes
    assert [*again] == [upper, lower]


def test_bode_of_several_is_refused():
    several = ssm_core.Diagonal(SYSTEM.poles[None].repeat(2, 0), np.ones((2, 1)), np.ones((2, 1)), conj_pairs=True)
    with pytest.raises(ssm_core.ShapeError, match=r"bode: the response has shape \(2, 3\)"):
        ssm_core.plot.bode(several, np.ones(3))


def test_memory():
    u = np.linspace(0.0, 1.0, 400)
    time, past = ssm_core.plot.memory(ssm_core.hippo_project(u, "legs", 8)[-1], "legs").lines[0].get_data()
    assert time[0] == 0
    np.testing.assert_allclose(past, 1 + time, atol=0.02)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ssm_core.MissingPackageError, match=r"plot.poles: matplotlib is not installed.*ssm-core\[plot\]"
    ):
        ssm_core.plot.poles(SYSTEM)
