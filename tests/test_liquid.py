"""The liquid option of S5: its gate moves with the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssm_core
from conformance.cases.layers import LAYERS
from ssm_core.layers import S5

H, L = 3, 20


def layer_and_params(**options: Any) -> tuple[S5, dict[str, np.ndarray]]:
    layer = S5(H, d_state=8, liquid=True, dt_min=0.05, dt_max=0.5, activation=None, output=None, **options)
    return layer, {name: p.astype(np.float64) for name, p in layer.initial_parameters(1).items()}


def test_is_the_equation(xp: Any):
    layer, params = layer_and_params()
    r = np.random.default_rng(0)
    u, x, scale = r.normal(size=(2, L, H)), r.normal(size=(2, 4)) + 0j, r.uniform(0.5, 2, size=(2, L))
    given = {name: xp.asarray(p) for name, p in params.items()}
    y, state = layer.apply(
        given, xp.asarray(u), state=xp.asarray(x), step_scale=xp.asarray(scale), return_state=True, mode="scan"
    )
    wanted, last = LAYERS["S5"].run(layer.options(), params, u, x, step_scale=scale)
    np.testing.assert_allclose(np.asarray(y), wanted, atol=1e-12)
    np.testing.assert_allclose(np.asarray(state), last, atol=1e-12)


def test_steps_lengths_and_resets():
    layer, params = layer_and_params()
    u = np.random.default_rng(0).normal(size=(2, L, H))
    y, last = layer.apply(params, u, return_state=True)
    step, state = layer.stepper(params), layer.initial_state(params, 2)
    for k in range(L):
        y_k, state = step(u[:, k], state)
        np.testing.assert_allclose(y_k, y[:, k], atol=1e-12)
    np.testing.assert_allclose(state, last, atol=1e-12)
    _, at = layer.apply(params, u, return_state=True, lengths=np.asarray([7, L]))
    np.testing.assert_allclose(at[0], layer.apply(params, u[:1, :7], return_state=True)[1][0], atol=1e-12)
    reset = np.zeros((2, L), bool)
    reset[:, 9] = True
    np.testing.assert_allclose(layer.apply(params, u, reset=reset)[:, 9:], layer.apply(params, u[:, 9:]), atol=1e-12)


def test_gradients_in_torch():
    torch = pytest.importorskip("torch")
    layer, params = layer_and_params()
    tensors = {name: torch.from_numpy(p).requires_grad_() for name, p in params.items()}
    u = torch.randn(1, 5, H, dtype=torch.float64, requires_grad=True)

    def run(u: Any, *values: Any) -> Any:
        return layer.apply(dict(zip(tensors, values, strict=True)), u)

    assert torch.autograd.gradcheck(run, (u, *tensors.values()))


def test_what_a_liquid_layer_cannot_do():
    layer, params = layer_and_params()
    u = np.zeros((1, 4, H))
    with pytest.raises(ssm_core.OptionError, match="mode 'conv' cannot run it"):
        layer.apply(params, u, mode="conv")
    with pytest.raises(ssm_core.OptionError, match="unknown mode 'fft'"):
        layer.apply(params, u, mode="fft")
    with pytest.raises(ssm_core.OptionError, match="no kernel"):
        layer.kernel(params, 4)
    with pytest.raises(ssm_core.OptionError, match="forward in time only"):
        layer_and_params(bidirectional=True)
