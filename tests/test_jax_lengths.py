"""Programs of JAX for lengths that are symbols: jax.export."""

from __future__ import annotations

import numpy as np
import pytest
from small import NAMES, small

import ssm_core

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", NAMES)
def test_exported_for_any_length(name: str):
    """Equal to NumPy's at one of them, of two chunks and a part; the states too."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from jax import export

    definition = small(name)
    params = definition.initial_parameters()
    arrays = {key: jax.numpy.asarray(value) for key, value in params.items()}
    signal = jax.ShapeDtypeStruct((2, *export.symbolic_shape("L"), definition.d_model), np.float32)
    program = export.export(jax.jit(lambda u: jax.tree.leaves(definition.apply(arrays, u, return_state=True))))(signal)
    u = np.random.default_rng(0).standard_normal((2, 133, definition.d_model), dtype=np.float32)
    wanted = jax.tree.leaves(definition.apply(params, u, return_state=True))
    for found, right in zip(program.call(u), wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-4)


def test_whole_convolutions_are_refused_for_any_length():
    """JAX has no FFT of them, and layers without a state nothing else."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from jax import export

    definition = ssm_core.layers.Hyena(4)
    arrays = {key: jax.numpy.asarray(value) for key, value in definition.initial_parameters().items()}
    signal = jax.ShapeDtypeStruct((2, *export.symbolic_shape("L"), 4), np.float32)
    with pytest.raises(ssm_core.OptionError, match="no FFT of a length that an exported program does not know"):
        export.export(jax.jit(lambda u: definition.apply(arrays, u)))(signal)


def test_two_directions_of_a_rational_layer_for_any_length():
    """The taps of a kernel would fix the length: they are two runs then."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from jax import export

    definition = ssm_core.layers.RTF(4, d_state=4, bidirectional=True)
    params = definition.initial_parameters()
    arrays = {key: jax.numpy.asarray(value) for key, value in params.items()}
    signal = jax.ShapeDtypeStruct((2, *export.symbolic_shape("L"), 4), np.float32)
    program = export.export(jax.jit(lambda u: definition.apply(arrays, u)))(signal)
    for length in (2, 5, 133):
        u = np.random.default_rng(0).standard_normal((2, length, 4), dtype=np.float32)
        np.testing.assert_allclose(program.call(u), definition.apply(params, u), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["LRU", "LMU"])
def test_resets_of_any_batch_and_length(name: str):
    """The memory of chunks with resets is bounded by sizes that are known."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from jax import export

    definition = small(name)
    params = definition.initial_parameters()
    arrays = {key: jax.numpy.asarray(value) for key, value in params.items()}
    B, L = export.symbolic_shape("B, L")
    signal, marks = jax.ShapeDtypeStruct((B, L, 4), np.float32), jax.ShapeDtypeStruct((B, L), bool)
    program = export.export(jax.jit(lambda u, reset: definition.apply(arrays, u, reset=reset)))(signal, marks)
    rng = np.random.default_rng(0)
    u, reset = rng.standard_normal((3, 133, 4), dtype=np.float32), rng.random((3, 133)) < 0.1
    wanted = definition.apply(params, u, reset=reset)
    np.testing.assert_allclose(program.call(u, reset), wanted, rtol=1e-3, atol=1e-4)
