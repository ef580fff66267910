"""Float32 against float64 from the same float32 parameters at 2^20 steps, relative to the largest value."""

from __future__ import annotations

import numpy as np

import ssm_core

from .jobs.common import error

LENGTH = 2**20


def measure() -> dict[str, float]:
    """Errors of the kernel and of the layer for every initialization of S4D."""
    errors = {}
    for init in ("lin", "inv", "inv2", "legs", "quad", "real"):
        layer = ssm_core.layers.S4D(4, init=init, real=init == "real")
        params = layer.initial_parameters(0)
        exact = {name: p.astype(np.float64) for name, p in params.items()}
        u = np.random.default_rng(1).standard_normal((1, LENGTH, 4)).astype(np.float32)
        errors[f"kernel {init}"] = error(layer.kernel(params, LENGTH), layer.kernel(exact, LENGTH))
        errors[f"layer {init}"] = error(layer.apply(params, u), layer.apply(exact, u.astype(np.float64)))
    return errors
