"""A small layer of every kind that has a state, for tests that go through all of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ssm_core import layers, models

NAMES = [name for name, kind in layers.LAYERS.items() if kind.streaming and not issubclass(kind, models.Model)]
SIZES = {"d_state": 4, "heads": 2, "head_dim": 4, "length": 8, "window": 3}


def options_of(name: str) -> dict[str, Any]:
    """Small sizes, of those options that the layer has."""
    known = {f.name for f in fields(layers.LAYERS[name])}
    return {option: n for option, n in SIZES.items() if option in known}


def small(name: str, d_model: int = 4, **options: Any) -> Any:
    return layers.LAYERS[name](d_model, **options_of(name), **options)
