"""What stands in the places of a block where its definition has layers, which look at the steps before."""

from __future__ import annotations

import inspect
from typing import Any

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


def standing(block: Any) -> dict[str, Any]:
    """What a file would name: the definitions of its layers, its channel mix and its norms, or their epsilons."""
    parts = {name: innermost(part) for name, part in block.named_children()}
    found = {name: part.definition for name, part in parts.items() if hasattr(part, "definition")}
    return found | {name: part.eps for name, part in parts.items() if hasattr(part, "eps")}
