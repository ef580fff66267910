"""The capability table is complete and tells the truth."""

from __future__ import annotations

import pytest

import ssm_core

from . import backends, capabilities
from .capabilities import ROWS, TWINS
from .cases import layers
from .cases.models import MODULES


def test_every_public_function_has_a_row():
    rows = {row.function for row in ROWS}
    assert set(ssm_core.__all__) - capabilities.NOT_COMPUTING <= rows
    assert {capabilities.function_of(name) for name in ssm_core.layers.LAYERS} <= rows
    public = {name for name, f in vars(ssm_core.special).items() if not name.startswith("_") and callable(f)}
    assert {row.function for row in ROWS if row.function.startswith("special.")} <= {f"special.{n}" for n in public}


def test_every_layer_brings_its_cases():
    models = {name for name, kind in ssm_core.layers.LAYERS.items() if issubclass(kind, ssm_core.models.Model)}
    assert set(ssm_core.layers.LAYERS) - models == set(layers.LAYERS), "a new layer needs a file in cases/layers"
    assert {kind for kind, _ in {**layers.MODULES, **MODULES}.values()} == {*layers.LAYERS, *models}
    assert set(layers.LAYERS) == {c.name for c in (*layers.TIME_INVARIANT, *layers.GATED, *layers.WHOLE)}


def test_no_row_is_surplus():
    known = {*ssm_core.__all__, *(capabilities.function_of(n) for n in ssm_core.layers.LAYERS)}
    assert {row.function for row in ROWS if not row.function.startswith("special.")} <= known
    assert known >= capabilities.NOT_COMPUTING
    assert not capabilities.NOT_COMPUTING & set(capabilities.BY_NAME)


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
def test_twins_are_those_of_the_backend(backend: backends.Backend):
    module = getattr(ssm_core.backends, backend.family)
    assert set(module.FUSED) == set(TWINS[backend.family])
    assert all(callable(getattr(module, name)) for name in module.FUSED)


def test_markdown_table_has_every_function_and_library():
    table = capabilities.support_table_markdown().splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert all(any(f"`{row.function}`" in line for line in table) for row in ROWS)
    assert "torch" in table[0]
    assert any("fused" in line for line in table)
