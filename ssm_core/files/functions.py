"""Whether a module, and what stands in its blocks, is the function that its definition, and so a file, describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from .._arrays.errors import OptionError
from .._arrays.library import computable, is_half, namespace, to_numpy
from ..layers import Layer, Parameters
from ..models.blocks import MIX, under
from ..models.language_model import LanguageModel
from ..models.model import Model
from ..models.pointwise import ChannelMix, Norm

# Options that a few steps of ordinary numbers may not show: they bound what lies far away, or what is too large.
BOUNDS = (
    *("window", "length", "l_max", "bandlimit", "dt_limit", "min_decay", "clip_eigs", "max_real", "A_floor"),
    *("epsilon", "norm_epsilon", "key_epsilon", "gate_soft_cap"),
)
SAME = 1e-9  # relative to the largest output, in double precision
ALIKE = 1e-2  # of a module in its own precision, whose parts may be quantized or merged
ALIKE_HALF = 1e-1
STEPS = 8


def check_functions(
    model: Model,
    params: Parameters,
    blocks: Sequence[Mapping[str, Any]],
    norms: Mapping[str, tuple[Any, Norm | None]] | None = None,
) -> None:
    """Raises where a part of a block computes other outputs of its parameters than the model's definition there.

    blocks: of each block by name the definitions of its layers, channel mix and norms; left out where a module is the
    caller's own, whose parameters are all that one can compare. norms: those outside of the blocks by what they are,
    each beside that of the definition.
    """
    for i, (block, found) in enumerate(zip(model.blocks, blocks, strict=True)):
        for name, norm in block.norms().items():
            _check_norm(model, f"{name} of block {i}", found.get(name), norm)
        for name, wanted in {**block.layers(), MIX: block.mix()}.items():
            own = found.get(name)
            if own is None or own == wanted:
                continue
            if not _same_function(own, wanted, under(params, f"{model.prefix}{i}.{name}.")):
                _refuse(model, f"{name} of block {i}", *(_told(x, own, wanted) for x in (own, wanted)))
    for place, (own, outer) in ({} if norms is None else norms).items():
        if outer is not None:
            _check_norm(model, place, own, outer)


def check_blocks(model: Model, count: int) -> None:
    """Raise unless a module has as many blocks as its definition."""
    if count != (n := len(model.blocks)):
        raise OptionError(
            f"{model.name}: the module has {count} blocks, but its definition, which a file would name, has {n}. Make "
            "the model with as many as it shall have, and copy the weights of its blocks."
        )


def check_outputs(definition: Layer, params: Parameters, call: Callable[[np.ndarray], np.ndarray]) -> None:
    """Raises where a module computes other outputs of a few steps than its definition of these parameters."""
    xp = namespace("save", **params)
    u, bound = _probe(definition), ALIKE_HALF if any(map(is_half, params.values())) else ALIKE
    found = call(u)
    wanted = to_numpy(definition.apply({name: to_numpy(computable(x, xp)) for name, x in params.items()}, u))
    if found.shape == wanted.shape and not np.max(np.abs(found - wanted)) > bound * np.max(np.abs(wanted)):
        return
    raise OptionError(
        f"{definition.name}: the module computes other outputs than its definition, which the file would name, makes "
        "of the same parameters: by a hook, an overridden method, or a part of another kind. Save its parameters in "
        "the framework's own way, or put a module of the kind that was there in each place."
    )


def outer_norms(module: Any, norm_of: Callable[[Any], Norm | None]) -> dict[str, tuple[Norm | None, Norm | None]]:
    """The norms of a model's module outside of its blocks, each beside that of the definition.

    norm_of says which norm a framework's module is.
    """
    if (part := getattr(module, "backbone", None)) is None:
        return {}
    first, last = module.definition.first_norm(), module.definition.last_norm()
    places = {"norm of the embedding": (part.first_norm, first), "norm behind the blocks": (part.norm_f, last)}
    return {place: (norm_of(own), norm) for place, (own, norm) in places.items()}


def recomposed(module: Any, dropouts: tuple[type, ...]) -> bool:
    """Whether the parts of a model's module are put together in another way than by its definition, or there are more.

    dropouts: the kinds of a framework's modules that files leave out.
    """
    d = module.definition
    if not isinstance(d, Model):
        return False
    pairs = list(zip(module.ends()[1], d.blocks, strict=True))
    spare = [getattr(block, "channel_mix", None) for block, its in pairs if its.channel_mix is None]
    spare += [part for block, _ in pairs if not isinstance(part := getattr(block, "dropout", None), dropouts)]
    if isinstance(d, LanguageModel):
        spare += [getattr(module, "lm_head", None)] * d.tied
        spare += [getattr(module.backbone, "first_norm", None)] * (d.first_norm() is None)
    own = (getattr(block, "definition", None) for block, _ in pairs)
    return any(part is not None for part in spare) or any(x != its for x, (_, its) in zip(own, pairs, strict=True))


def _probe(definition: Any) -> np.ndarray:
    """A few steps of an input, of one sequence."""
    if hasattr(definition, "vocab_size"):
        return np.arange(STEPS)[None, :] % definition.vocab_size
    width = definition.d_input if hasattr(definition, "d_input") else getattr(definition, "input_width", None)
    width = definition.d_model if width is None else width
    axes = (3,) * (getattr(definition, "dims", 1) - 1)
    shape = (1, STEPS, *axes, width)
    return np.sin(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)


def _check_norm(model: Model, place: str, own: Norm | None, norm: Norm) -> None:
    if own is None or (own.kind, own.epsilon, own.biased) == (norm.kind, norm.epsilon, norm.biased):
        return
    if replace(own, epsilon=norm.epsilon, bias=own.biased) == replace(norm, bias=norm.biased):
        _refuse(model, place, f"has epsilon = {own.epsilon}", f"has {norm.epsilon}")
    _refuse(model, place, f"is {own}", f"has {norm}")


def _refuse(model: Model, place: str, has: str, wanted: str) -> None:
    raise OptionError(
        f"{model.name}: the {place} {has}, but the model's definition, which the file would name, {wanted} "
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
