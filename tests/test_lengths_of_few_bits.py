"""Lengths of integers that cannot hold the length of what they are lengths of, or hold far larger ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssm_core import layers, models

SMALL = {"d_state": 4}
DEFINITIONS: dict[str, Any] = {
    "S4D": layers.S4D(4, **SMALL),
    "Mamba": layers.Mamba(4, **SMALL),
    "GLA": layers.GLA(4, heads=2),
    "SequenceModel": models.SequenceModel(4, 2, 4, 1, layer_options=SMALL),
    "MambaLM": models.MambaLM(7, 4, 1, SMALL),
}


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("library", ["numpy", "torch", "jax.numpy"])
def test_small_integers_are_lengths(library: str, name: str, dtype: str):
    to, definition = pytest.importorskip(library).asarray, DEFINITIONS[name]
    draws = np.random.default_rng(0)
    u = draws.integers(0, 7, (1, 300)) if name == "MambaLM" else draws.normal(size=(1, 300, 4)).astype(np.float32)
    params, lengths = {key: to(p) for key, p in definition.initial_parameters().items()}, to(np.asarray([100], dtype))
    found = definition.apply(params, to(u), lengths=lengths)
    alone = definition.apply(params, to(u[:, :100]))
    if name != "SequenceModel":
        found = found[:, :100]
    np.testing.assert_allclose(np.asarray(found), np.asarray(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize(("library", "dtype"), [("torch", "uint64"), ("torch", "uint32"), ("jax.numpy", "uint32")])
def test_large_lengths_without_a_sign_are_clipped(library: str, dtype: str, name: str):
    """Their highest bit is no sign."""
    to, definition = pytest.importorskip(library).asarray, DEFINITIONS[name]
    draws = np.random.default_rng(0)
    u = to(draws.integers(0, 7, (2, 6)) if name == "MambaLM" else draws.normal(size=(2, 6, 4)).astype(np.float32))
    params = {key: to(p) for key, p in definition.initial_parameters().items()}
    largest = np.iinfo(dtype).max
    found = definition.apply(params, u, lengths=to(np.asarray([largest, 3], dtype)))
    wanted = definition.apply(params, u, lengths=to(np.asarray([6, 3])))
    np.testing.assert_allclose(np.asarray(found[:1]), np.asarray(wanted[:1]), rtol=1e-4, atol=1e-5)
