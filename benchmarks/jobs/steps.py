"""One step of an S4D layer, batch 1, 256 channels, 64 states: the stepper against discretizing at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

import ssm_core

from ..harness import Case, Job
from .common import D_STATE, H


def with_numpy() -> Case:
    layer = ssm_core.layers.S4D(H, d_state=D_STATE)
    params = layer.initial_parameters(0)
    step, state = layer.stepper(params), layer.initial_state(params, 1)
    u = np.random.default_rng(0).standard_normal((1, H)).astype(np.float32)
    others = {"layer.step": lambda: layer.step(params, u, state)}
    return Case("stepper numpy", lambda: step(u, state), others, wanted="wanted: ours under 60 us", inner=300)


def with_torch() -> Case:
    import torch

    layer, u = ssm_core.adapters.torch.S4D(H, d_state=D_STATE), torch.randn(1, H)
    with torch.no_grad():
        step, state = layer.stepper(), layer.initial_state(1)
    others = {"layer.step": torch.no_grad()(lambda: layer.step(u, state))}
    ours = torch.no_grad()(lambda: step(u, state))
    return Case("stepper torch", ours, others, wanted="wanted: ours under 60 us", inner=300)


def with_jax() -> Case:
    """Compiled, the stepper and the step."""
    import jax
    import jax.numpy as jnp

    layer = ssm_core.layers.S4D(H, d_state=D_STATE)
    params = layer.initial_parameters(0, xp="jax")
    u, state = jnp.ones((1, H), jnp.float32), layer.initial_state(params, 1)
    held, each = jax.jit(layer.stepper(params)), jax.jit(layer.step)

    def ours() -> Any:
        return jax.block_until_ready(held(u, state))

    others = {"layer.step": lambda: jax.block_until_ready(each(params, u, state))}
    return Case("stepper jax", ours, others, wanted="wanted: ours under 40 us", inner=300)


JOBS = {
    "stepper-numpy": Job(with_numpy, "numpy"),
    "stepper-torch": Job(with_torch),
    "stepper-jax": Job(with_jax, "jax"),
}
