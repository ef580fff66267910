"""Definitions by their names: how weight files, models and modules find them."""

from __future__ import annotations

from typing import Any, TypeVar

from .._arrays.errors import OptionError, unknown
from .layer import Layer

LAYERS: dict[str, type[Any]] = {}
Definition = TypeVar("Definition", bound=type[Any])


def registered(cls: Definition) -> Definition:
    """Decorate a definition so that it can be made by its name."""
    LAYERS[cls.__name__] = cls
    return cls


def make(name: str, options: dict[str, Any]) -> Layer:
    """The layer of that name with these options."""
    if not isinstance(name, str) or name not in LAYERS:
        raise unknown("layers.make", "layer", name, sorted(LAYERS))
    if not isinstance(options, dict):
        raise OptionError(f"layers.make: options = {options!r} must be a dict.")
    try:
        made: Layer = LAYERS[name](**options)
    except TypeError as error:
        raise OptionError(
            f"layers.make: {name} {str(error).rpartition('__init__() ')[2]} (options: {sorted(options)})."
        ) from error
    return made
