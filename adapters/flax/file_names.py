"""Names and layouts of parameters in weight files, which are those of PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ssm_core._arrays.errors import OptionError

# Native submodules whose parameters have another name, and maybe another layout, in weight files.
_FILE_NAMES: dict[tuple[type, str], tuple[str, tuple[int, ...] | None]] = {
    (nnx.Linear, "kernel"): ("weight", (1, 0)),
    (nnx.LayerNorm, "scale"): ("weight", None),
    (nnx.RMSNorm, "scale"): ("weight", None),
    (nnx.Embed, "embedding"): ("weight", None),
}


def file_arrays(model: Any) -> dict[str, jax.Array]:
    """The parameters of a module by the names and in the layouts of weight files."""
    return {name: _swapped(value[...], axes) for name, value, axes in _parameters(model)}


def load_arrays(model: Any, tensors: dict[str, Any], dtype: Any) -> None:
    """Set every parameter to the tensor of its name in weight files."""
    set_arrays(model, lambda name: jnp.asarray(tensors[name], dtype))


def set_arrays(model: Any, array_of: Callable[[str], jax.Array]) -> None:
    """Set every parameter to the array of its name in weight files, the largest first: its copies need memory too."""
    for name, value, axes in sorted(_parameters(model), key=lambda found: -math.prod(found[1].shape)):
        value.set_value(_swapped(array_of(name), axes))  # the swap of axes is its own inverse


def _parameters(model: Any) -> list[tuple[str, Any, tuple[int, ...] | None]]:
    """(name in files, value, axes in files) of every parameter of the definition, read as an attribute."""
    return [(p.name, *_located(model, p.name)) for p in model.definition.parameters()]


def _located(model: Any, name: str) -> tuple[Any, tuple[int, ...] | None]:
    *path, stored = name.split(".")
    part: Any = reduce(_child, path, model)
    known = (
        (f, axes) for (kind, f), (theirs, axes) in _FILE_NAMES.items() if isinstance(part, kind) and theirs == stored
    )
    own, axes = next(known, (stored, None))
    if (value := getattr(part, own, None)) is None:
        raise OptionError(
            f"{model.definition.name}.{name}: no parameters of the definition describe a module {type(part).__name__}. "
            "Save it in Flax's own way, or put a module of the kind that was there in its place."
        )
    return value, axes


def _child(part: Any, key: str) -> Any:
    return part[int(key)] if key.isdigit() else getattr(part, key, None)


def _swapped(value: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    return value if axes is None else jnp.transpose(value, axes)
