"""Weight files, and the parameters that want their own learning rate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ssm_core import layers
from ssm_core._arrays.errors import DTypeError
from ssm_core.files import weights as checkpoints
from ssm_core.files.functions import check_outputs

from .base import SSMModule, module


def with_params(definition: layers.Layer, params: Mapping[str, Any]) -> Any:
    """The module of a definition around these parameters; none are drawn."""
    made = eqx.filter_eval_shape(lambda: module(definition, key=jax.random.key(0)))
    return eqx.tree_at(lambda m: m.params, made, dict(params))


def save(module: SSMModule, path: str | os.PathLike[str]) -> None:
    """Write a layer or model to a safetensors file that every framework loads."""
    if not isinstance(module, SSMModule):
        raise DTypeError(
            f"save: a {type(module).__name__} is no module of ssm_core. Build one, such as S4D(4, key=key)."
        )
    checkpoints.save(module.definition, described(module), path)


def described(module: Any) -> dict[str, jax.Array]:
    """The parameters for a file; raises where the module is another function than its definition says."""
    written = type(module).__call__.__module__.partition(".")[0] in ("ssm_core", "adapters")
    if not (written and isinstance(getattr(module, "dropout", None), eqx.nn.Dropout | None)):
        check_outputs(module.definition, module.params, partial(_outputs, module))
    params: dict[str, jax.Array] = module.params
    return params


def _outputs(module: Any, u: np.ndarray) -> np.ndarray:
    """What a module makes of an input of the host, without dropout."""
    return np.asarray(eqx.nn.inference_mode(module)(jnp.asarray(u)), np.float64)


def load(path: str | os.PathLike[str], *, dtype: Any = jnp.float32) -> Any:
    """The layer or model of a safetensors file, whichever framework wrote it."""
    definition, tensors = checkpoints.read(path)
    return with_params(definition, {p.name: jnp.asarray(tensors[p.name], dtype) for p in definition.parameters()})


def param_labels(model: Any) -> Any:
    """The tree of labels for optax: "ssm" for the poles, steps and B of every layer, "regular" for all the rest.

    Its leaves are those of `equinox.filter(model, equinox.is_inexact_array)`. Hand optax the function, not the tree:
    what can be called, as the tree of a module can, it calls.

    >>> import equinox, jax, optax
    >>> from ssm_core.adapters.equinox import S4D
    >>> model = S4D(4, key=jax.random.key(0))
    >>> rules = {"regular": optax.adamw(1e-2, weight_decay=0.01), "ssm": optax.adam(1e-3)}
    >>> state = optax.multi_transform(rules, param_labels).init(equinox.filter(model, equinox.is_inexact_array))
    """

    def labels(part: Any) -> Any:
        if not isinstance(part, SSMModule):
            return "regular"
        special = {p.name for p in part.definition.parameters() if p.no_weight_decay}
        named = {name: "ssm" if name in special else "regular" for name in part.params}
        return eqx.tree_at(lambda m: m.params, part, named)

    arrays = eqx.filter(model, eqx.is_inexact_array)
    return jax.tree.map(labels, arrays, is_leaf=lambda part: isinstance(part, SSMModule))
