"""Names and layouts of parameters in weight files, which are those of PyTorch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# Native submodules whose parameters have another name, and maybe another layout, in weight files.
_FILE_NAMES: dict[tuple[type, str], tuple[str, tuple[int, ...] | None]] = {
    (nnx.Linear, "kernel"): ("weight", (1, 0)),
    (nnx.LayerNorm, "scale"): ("weight", None),
    (nnx.RMSNorm, "scale"): ("weight", None),
    (nnx.Embed, "embedding"): ("weight", None),
}


def named_parameters(model: nnx.Module) -> list[tuple[str, nnx.Module, str, Any]]:
    """(name in files, module, field, nnx.Param) of every parameter."""
    found = []
    for path, part in nnx.iter_modules(model):
        for field, value in vars(part).items():
            if isinstance(value, nnx.Param):
                stored, _ = _FILE_NAMES.get((type(part), field), (field, None))
                found.append((".".join([*map(str, path), stored]), part, field, value))
    return found


def to_file(part: nnx.Module, field: str, value: jax.Array) -> jax.Array:
    axes = _FILE_NAMES.get((type(part), field), (field, None))[1]
    return value if axes is None else jnp.transpose(value, axes)


def load_arrays(model: nnx.Module, tensors: dict[str, Any], dtype: Any) -> None:
    """Set every parameter to the array of its name in weight files."""
    for name, part, field, value in named_parameters(model):
        value[...] = to_file(part, field, jnp.asarray(tensors[name], dtype))  # the swap of axes is its own inverse
