"""What stands in the places of a block where its definition has layers, which look at the steps before."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from ssm_core import layers, models
from ssm_core._arrays.errors import OptionError
from ssm_core.models.blocks import MIX

from .projections import adapted, innermost


class Pointwise:
    """A plain module as a layer without a state: at every step it sees the features of that step alone."""

    def __init__(self, part: nn.Module) -> None:
        self.part = part

    def __call__(self, x: Any, *, state: Any = None, return_state: bool = False, **options: Any) -> Any:
        """x (..., H) through the module."""
        return (self.part(x), ()) if return_state else self.part(x)

    def initial_state(self, batch: int) -> Any:
        """Nothing."""
        return ()

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (x (B, H), state) -> (x, state)."""
        return lambda x, state: (self.part(x), ())


class Adapted:
    """A layer within peft's adapters of its parameters (`target_parameters`), which its steps have too."""

    def __init__(self, part: nn.Module) -> None:
        self.part = part

    def __call__(self, x: Any, **options: Any) -> Any:
        """The layer's output."""
        return self.part(x, **options)

    def initial_state(self, batch: int) -> Any:
        """The state before the first step."""
        return innermost(self.part).initial_state(batch)

    def stepper(self, *, rate: Any = 1.0) -> layers.Stepper:
        """A function (u_t, state) -> (y_t, state) that holds the adapted parameters."""
        with adapted(self.part) as layer:
            step: layers.Stepper = layer.stepper(rate=rate)
        return step


def layer_of(part: Any, block: models.Block, name: str) -> Any:
    """What stands in a block for a layer of its definition: a layer, or a plain module as its channel mix."""
    if hasattr(part, "initial_state") or "state" in inspect.signature(part.forward).parameters:
        return part
    if hasattr(innermost(part), "initial_state"):
        return Adapted(part)
    if name == MIX:
        return Pointwise(part)
    raise OptionError(
        f"Block.{name}: a module {type(part).__name__} has no state and no steps, but stands where the block had a "
        f"{block.layer}. Put a layer there, such as adapters.torch.{block.layer}({block.d_model}), or a module of your "
        "own with forward(u, *, state, return_state, ...), initial_state(batch) and stepper(*, rate)."
    )


def check_functions(model: str, blocks: Sequence[Any], definitions: Sequence[models.Block]) -> None:
    """Raises where a layer computes other outputs of its parameters than the definition does, which a file names."""
    for i, (block, definition) in enumerate(zip(blocks, definitions, strict=True)):
        for name, wanted in definition.layers().items():
            part = innermost(getattr(block, name))
            own = getattr(part, "definition", wanted)
            if own == wanted or _same_function(part, own, wanted):
                continue
            have, has = (_told(x, own, wanted) for x in (own, wanted))
            raise OptionError(
                f"{model}: the {name} of block {i} {have}, but the model's definition, which the file would name, "
                f"{has} there: another function of the same parameters. Make the model with these layer_options."
            )


def _same_function(part: Any, own: Any, wanted: Any) -> bool:
    """Whether two definitions make the same of a layer's parameters: initial values may differ, and sizes of chunks."""
    if type(own) is not type(wanted):
        return False
    with torch.no_grad():
        params = {n: x.to(torch.complex128 if x.is_complex() else torch.float64) for n, x in part.arrays().items()}
        like = next(iter(params.values()))
        u = torch.linspace(-4, 4, 8 * wanted.d_model, dtype=torch.float64, device=like.device)
        found, expected = (d.apply(params, u.reshape(1, 8, -1)) for d in (own, wanted))
        return bool(torch.allclose(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max())))


def _told(x: Any, own: Any, wanted: Any) -> str:
    """What one of two definitions has that the other has not."""
    if type(own) is not type(wanted):
        return f"is a {x.name}"
    other = [f.name for f in fields(x) if getattr(own, f.name) != getattr(wanted, f.name)]
    return "has " + ", ".join(f"{name} = {getattr(x, name)!r}" for name in other)
