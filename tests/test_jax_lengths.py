"""Programs of JAX for lengths that are symbols: jax.export."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssm_core import layers

OPTIONS: dict[str, dict[str, Any]] = {"DSS": {"length": 8}, "Mamba2": {"head_dim": 4}, "Mamba3": {"head_dim": 4}}
LAYERS = ("S4D", "S4", "DSS", "SSM", "LMU", "S5", "LRU", "LinOSS", "RTF", "Mamba", "Mamba2", "Mamba3")


@pytest.mark.parametrize("name", LAYERS)
def test_exported_for_any_length(name: str):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from jax import export

    definition = getattr(layers, name)(4, d_state=4, **OPTIONS.get(name, {}))
    params = {key: jax.numpy.asarray(value) for key, value in definition.initial_parameters().items()}
    signal = jax.ShapeDtypeStruct((2, *export.symbolic_shape("L"), 4), np.float32)
    program = export.export(jax.jit(lambda u: definition.apply(params, u)))(signal)
    for length in (2, 64, 133):
        u = np.random.default_rng(length).standard_normal((2, length, 4), dtype=np.float32)
        np.testing.assert_allclose(program.call(u), definition.apply(params, u), rtol=1e-3, atol=1e-4)
