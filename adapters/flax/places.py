"""Whether what stands in the places of a module is the function that its definition, and so a file of it, describes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssm_core import models
from ssm_core.files.functions import check_functions, check_outputs

NATIVE = (nnx.Linear, nnx.Embed, nnx.LayerNorm, nnx.RMSNorm, nnx.Dropout)


def described(module: Any) -> dict[str, jax.Array]:
    """The arrays of a layer or a model for a file; raises where it is another function than its definition says."""
    arrays: dict[str, jax.Array] = module.arrays()
    if isinstance(definition := module.definition, models.Model):
        check_functions(definition, arrays, [block.standing() for block in module.ends()[1]], _outer_norms(module))
    if any(_of_another_hand(part) for _, part in nnx.iter_modules(module)) or _recomposed(module):
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


def _outer_norms(module: Any) -> dict[str, tuple[models.Norm | None, models.Norm | None]]:
    """The norms outside of blocks, each beside that of the definition."""
    if (part := getattr(module, "backbone", None)) is None:
        return {}
    first, last = module.definition.first_norm(), module.definition.last_norm()
    places = {"norm of the embedding": (part.first_norm, first), "norm behind the blocks": (part.norm_f, last)}
    return {place: (norm_of(own), norm) for place, (own, norm) in places.items()}


def _of_another_hand(part: Any) -> bool:
    """Whether the call of a module is not that of its parameters by their names in files, as with adapters beside."""
    call, product = _call_of(type(part)), getattr(part, "dot_general", jax.lax.dot_general)
    ours = getattr(call, "__module__", "").partition(".")[0] in ("ssm_core", "adapters")
    native = call is None or any(call is _call_of(kind) for kind in NATIVE)
    return not (ours or native) or product is not jax.lax.dot_general


def _call_of(kind: type) -> Any:
    """The method that calls of modules of a kind are; None of what only holds others."""
    return next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)


def _recomposed(module: Any) -> bool:
    """Whether the parts of a model are put together in another way than its definition has it, or there are more."""
    d = module.definition
    if not isinstance(d, models.Model):
        return False
    pairs = list(zip(module.ends()[1], d.blocks, strict=True))
    spare = [getattr(block, "channel_mix", None) for block, its in pairs if its.channel_mix is None]
    dropped = (getattr(block, "dropout", None) for block, _ in pairs)
    spare += [part for part in dropped if not isinstance(part, nnx.Dropout)]
    if isinstance(d, models.LanguageModel):
        spare += [module.lm_head] * d.tied + [module.backbone.first_norm] * (d.first_norm() is None)
    own = (getattr(block, "definition", None) for block, _ in pairs)
    return any(part is not None for part in spare) or any(x != its for x, (_, its) in zip(own, pairs, strict=True))


def _outputs(module: Any, u: np.ndarray) -> np.ndarray:
    """What a module makes of an input of the host, without dropout."""
    evaluated = nnx.clone(module)
    evaluated.eval()
    return np.asarray(evaluated(jnp.asarray(u)), np.float64)
