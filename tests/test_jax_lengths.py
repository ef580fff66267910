"""Programs of JAX for lengths that are symbols: jax.export."""

from __future__ import annotations

import numpy as np
import pytest
from small_layers import LAYERS, OPTIONS, WIDTH

from ssm_core import layers

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", LAYERS)
def test_exported_for_any_length(name: str):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from jax import export

    definition = getattr(layers, name)(WIDTH, **OPTIONS[name])
    params = {key: jax.numpy.asarray(value) for key, value in definition.initial_parameters().items()}
    signal = jax.ShapeDtypeStruct((2, *export.symbolic_shape("L"), WIDTH), np.float32)
    program = export.export(jax.jit(lambda u: definition.apply(params, u)))(signal)
    for length in (2, 64, 133):
        u = np.random.default_rng(length).standard_normal((2, length, WIDTH), dtype=np.float32)
        np.testing.assert_allclose(program.call(u), definition.apply(params, u), rtol=1e-3, atol=1e-4)
