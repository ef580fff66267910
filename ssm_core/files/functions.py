"""Whether what stands in the blocks of a module is the function that its definition, and so a file of it, describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from .._arrays.errors import OptionError
from .._arrays.library import computable, namespace, to_numpy
from ..layers import Parameters
from ..models.blocks import MIX, under
from ..models.model import Model
from ..models.pointwise import ChannelMix, Norm

# Options that a few steps of ordinary numbers may not show: they bound what lies far away, or what is too large.
BOUNDS = (
    *("window", "length", "l_max", "bandlimit", "dt_limit", "min_decay", "clip_eigs", "max_real", "A_floor"),
    *("epsilon", "norm_epsilon", "key_epsilon", "gate_soft_cap"),
)
SAME = 1e-9  # relative to the largest output, in double precision
STEPS = 8


def check_functions(model: Model, params: Parameters, blocks: Sequence[Mapping[str, Any]]) -> None:
    """Raises where a part of a block computes other outputs of its parameters than the model's definition there.

    blocks: of each block by name the definitions of its layers, channel mix and norms, or the epsilon of a framework's
    norm; left out where a module is the caller's own, whose parameters are all that one can compare.
    """
    for i, (block, found) in enumerate(zip(model.blocks, blocks, strict=True)):
        for name, norm in block.norms().items():
            own: Any = found.get(name)
            if own is None or own in (norm, norm.epsilon):
                continue
            has, its = (f"is {own}", norm) if isinstance(own, Norm) else (f"has epsilon = {own}", norm.epsilon)
            _refuse(model, name, i, has, f"has {its}")
        for name, wanted in {**block.layers(), MIX: block.mix()}.items():
            own = found.get(name)
            if own is None or own == wanted:
                continue
            if not _same_function(own, wanted, under(params, f"{model.prefix}{i}.{name}.")):
                _refuse(model, name, i, *(_told(x, own, wanted) for x in (own, wanted)))


def _refuse(model: Model, name: str, i: int, has: str, wanted: str) -> None:
    raise OptionError(
        f"{model.name}: the {name} of block {i} {has}, but the model's definition, which the file would name, {wanted} "
        "there: another function. Make the model with the options that it shall have."
    )


def _same_function(own: Any, wanted: Any, params: Parameters) -> bool:
    """Whether two definitions make the same of parameters: initial values may differ, and the sizes of chunks."""
    if type(own) is not type(wanted) or any(getattr(own, n, None) != getattr(wanted, n, None) for n in BOUNDS):
        return False
    shapes = [{p.name: p.shape for p in definition.parameters()} for definition in (own, wanted)]
    if shapes[0] != shapes[1]:
        return False
    xp = namespace("save", **params)
    inside = {name: _generic(to_numpy(computable(x, xp)).astype(np.float64)) for name, x in params.items()}
    u = np.linspace(-4, 4, STEPS * wanted.d_model).reshape(1, STEPS, -1)
    behind = np.linspace(0.1, 0.9, STEPS * (_width(wanted) - wanted.d_model)).reshape(1, STEPS, -1)  # bounds of gates
    u = np.concatenate([u, behind], axis=-1)
    found, expected = (_outputs(definition, inside, u) for definition in (own, wanted))
    return bool(np.max(np.abs(found - expected)) <= SAME * np.max(np.abs(expected)))


def _generic(x: np.ndarray) -> np.ndarray:
    """Weights that lead out of a layer may all be zero at first, and would hide all that is before them."""
    return x if x.any() else np.random.default_rng(0).normal(scale=0.1, size=x.shape)


def _width(definition: Any) -> Any:
    return definition.d_model if isinstance(definition, ChannelMix) else definition.input_width


def _outputs(definition: Any, params: Parameters, u: np.ndarray) -> Any:
    if isinstance(definition, ChannelMix):
        return definition.function(params)(u)
    return definition.apply(params, u)


def _told(x: Any, own: Any, wanted: Any) -> str:
    """What one of two definitions has that the other has not."""
    if type(own) is not type(wanted):
        return f"is a {type(x).__name__}"
    other = [f.name for f in fields(x) if getattr(own, f.name) != getattr(wanted, f.name)]
    return "has " + ", ".join(f"{name} = {getattr(x, name)!r}" for name in other)
