"""Whether what stands in the places of a module is the function that its definition, and so a file of it, describes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssm_core import models
from ssm_core.files.functions import check_functions, check_outputs, outer_norms, recomposed

NATIVE = (nnx.Linear, nnx.Embed, nnx.LayerNorm, nnx.RMSNorm, nnx.Dropout)


def described(module: Any) -> dict[str, jax.Array]:
    """The arrays of a layer or a model for a file; raises where it is another function than its definition says."""
    arrays: dict[str, jax.Array] = module.arrays()
    if isinstance(definition := module.definition, models.Model):
        check_functions(
            definition, arrays, [block.standing() for block in module.ends()[1]], outer_norms(module, norm_of)
        )
    if any(_of_another_hand(part) for _, part in nnx.iter_modules(module)) or recomposed(module, (nnx.Dropout,)):
        check_outputs(definition, arrays, partial(_outputs, module))
    return arrays


def norm_of(part: Any) -> models.Norm | None:
    """The norm that a module is; None of a module that is none of Flax's own or of ours."""
    if isinstance(definition := getattr(part, "definition", None), models.Norm):
        return definition
    if not isinstance(part, nnx.LayerNorm | nnx.RMSNorm):
        return None
    kind, scale = ("layer" if isinstance(part, nnx.LayerNorm) else "rms"), part.scale
    return models.Norm(
        kind, 0 if scale is None else scale.shape[-1], part.epsilon, getattr(part, "bias", None) is not None
    )


def _of_another_hand(part: Any) -> bool:
    """Whether the call of a module is not that of its parameters by their names in files, as with adapters beside."""
    call, product = _call_of(type(part)), getattr(part, "dot_general", jax.lax.dot_general)
    ours = getattr(call, "__module__", "").partition(".")[0] in ("ssm_core", "adapters")
    native = call is None or any(call is _call_of(kind) for kind in NATIVE)
    return not (ours or native) or product is not jax.lax.dot_general


def _call_of(kind: type) -> Any:
    """The method that calls of modules of a kind are; None of what only holds others."""
    return next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)


def _outputs(module: Any, u: np.ndarray) -> np.ndarray:
    """What a module makes of an input of the host, without dropout."""
    evaluated = nnx.clone(module)
    evaluated.eval()
    return np.asarray(evaluated(jnp.asarray(u)), np.float64)
