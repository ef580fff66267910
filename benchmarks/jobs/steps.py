"""One step of an S4D layer, batch 1, 256 channels, 64 states.

The stepper against `layer.step`, which discretizes every time, and against the library's own calls of such a step with
nothing around them, which is the floor: poles x + B u, 2 Re C x + D u, GELU, the output map, GLU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import ssm_core

from ..harness import Case, Job
from .common import D_STATE, H

BARE = "the calls alone"


def numbers() -> dict[str, np.ndarray]:
    """Of the shapes of a step."""
    rng = np.random.default_rng(0)
    poles = np.exp(-0.1 + 1j * rng.uniform(0, np.pi, (H, D_STATE // 2))).astype(np.complex64)
    shapes = {"u": (1, H), "B": (H, D_STATE), "C": (H, D_STATE), "D": (H,), "weight": (2 * H, H), "bias": (2 * H,)}
    real = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    real["weight"] /= H
    return {**real, "poles": poles, "state": np.zeros((1, *poles.shape), np.complex64)}


def with_numpy() -> Case:
    layer, n = ssm_core.layers.S4D(H, d_state=D_STATE), numbers()
    params = layer.initial_parameters(0)
    step, state = layer.stepper(params), layer.initial_state(params, 1)
    gelu = ssm_core.special.activation("gelu")

    def bare() -> Any:
        x = n["poles"] * n["state"]
        pairs = x.view(np.float32)
        pairs += n["B"] * n["u"][..., None]
        v = gelu(np.vecdot(n["C"], pairs) + n["D"] * n["u"])
        y = n["weight"] @ v[0] + n["bias"]
        return y[:H] / (1 + np.exp(-y[H:])), x

    others = {"layer.step": lambda: layer.step(params, n["u"], state), BARE: bare}
    return Case("stepper numpy", lambda: step(n["u"], state), others, wanted="wanted: ours under 60 us", inner=300)


def with_torch() -> Case:
    import torch
    from torch.nn.functional import gelu, glu, linear

    torch.manual_seed(0)
    layer, n = ssm_core.adapters.torch.S4D(H, d_state=D_STATE), {k: torch.as_tensor(x) for k, x in numbers().items()}
    B, C = (n[name].reshape(H, -1, 2) for name in "BC")
    with torch.no_grad():
        step, state = layer.stepper(), layer.initial_state(1)

    def bare() -> Any:
        x = torch.addcmul(torch.view_as_real(n["poles"] * n["state"]), B, n["u"][..., None, None])
        v = gelu(torch.addcmul((C * x).sum((-2, -1)), n["D"], n["u"]))
        return glu(linear(v, n["weight"], n["bias"])), torch.view_as_complex(x)

    works = {"layer.step": lambda: layer.step(n["u"], state), BARE: bare}
    others = {name: torch.no_grad()(work) for name, work in works.items()}
    ours = torch.no_grad()(lambda: step(n["u"], state))
    return Case("stepper torch", ours, others, wanted="wanted: ours under 60 us", inner=300)


def with_jax() -> Case:
    """Compiled, all of them."""
    import jax
    import jax.numpy as jnp

    layer, n = ssm_core.layers.S4D(H, d_state=D_STATE), {k: jnp.asarray(x) for k, x in numbers().items()}
    params = layer.initial_parameters(0, xp="jax")
    state = layer.initial_state(params, 1)
    held, each = jax.jit(layer.stepper(params)), jax.jit(layer.step)
    B, C = (n[name][:, ::2] + 1j * n[name][:, 1::2] for name in "BC")

    @jax.jit
    def bare(u: Any, state: Any) -> Any:
        x = n["poles"] * state + B * u[..., None]
        v = jax.nn.gelu(2 * jnp.real(jnp.einsum("hn,bhn->bh", C, x)) + n["D"] * u, approximate=False)
        return jax.nn.glu(v @ n["weight"].T + n["bias"]), x

    others = {
        "layer.step": lambda: jax.block_until_ready(each(params, n["u"], state)),
        BARE: lambda: jax.block_until_ready(bare(n["u"], state)),
    }
    ours = lambda: jax.block_until_ready(held(n["u"], state))  # noqa: E731
    return Case("stepper jax", ours, others, wanted="wanted: ours under 40 us", inner=300)


JOBS = {
    "stepper-numpy": Job(with_numpy, "numpy"),
    "stepper-torch": Job(with_torch),
    "stepper-jax": Job(with_jax, "jax"),
}
