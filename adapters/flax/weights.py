"""Weight files, and the parameters that want their own learning rate."""

from __future__ import annotations

import os
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ssm_core._arrays.errors import DTypeError
from ssm_core.files import weights as checkpoints

from .base import SSMModule, module
from .file_names import load_arrays
from .places import described


def save(module: Any, path: str | os.PathLike[str]) -> None:
    """Write a layer or model to a safetensors file that every framework loads."""
    if not (isinstance(module, nnx.Module) and hasattr(module, "arrays")):
        raise DTypeError(f"save: a {type(module).__name__} is no module of ssm_core. Build one, such as S4D(4).")
    given: Any = module
    checkpoints.save(given.definition, described(module), path)


def load(path: str | os.PathLike[str], *, param_dtype: Any = jnp.float32, rngs: nnx.Rngs | None = None) -> Any:
    """The layer or model of a safetensors file, whichever framework wrote it. rngs serve dropout."""
    definition, tensors = checkpoints.read(path)
    loaded = module(definition, rngs=nnx.Rngs(0) if rngs is None else rngs, param_dtype=param_dtype)
    load_arrays(loaded, tensors, param_dtype)
    return loaded


def param_labels(model: nnx.Module) -> Any:
    """The tree of labels for optax: "ssm" for the poles, steps and B of every layer, "regular" for all the rest.

    >>> import optax
    >>> from flax import nnx
    >>> from ssm_core.adapters.flax import S4D
    >>> model = S4D(4, rngs=nnx.Rngs(0))
    >>> rules = {"regular": optax.adamw(1e-2, weight_decay=0.01), "ssm": optax.adam(1e-3)}
    >>> optimizer = nnx.Optimizer(model, optax.multi_transform(rules, param_labels(model)), wrt=nnx.Param)
    """
    undecayed = {
        id(getattr(part, p.name))
        for _, part in nnx.iter_modules(model)
        if isinstance(part, SSMModule)
        for p in part.definition.parameters()
        if p.no_weight_decay
    }
    state = nnx.state(model, nnx.Param)
    by_path = {path: id(value) in undecayed for path, value in _by_path(model)}
    return nnx.map_state(lambda path, _: "ssm" if by_path[path] else "regular", state)


def _by_path(model: nnx.Module) -> list[tuple[tuple[Any, ...], Any]]:
    return [
        ((*path, field), value)
        for path, part in nnx.iter_modules(model)
        for field, value in vars(part).items()
        if isinstance(value, nnx.Param)
    ]
