"""What stands in the places of a block where its definition has layers, which look at the steps before."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssm_core import layers, models
from ssm_core._arrays.errors import OptionError
from ssm_core._arrays.library import to_numpy
from ssm_core.files.functions import check_functions, check_outputs, outer_norms, recomposed
from ssm_core.models.blocks import MIX

from .projections import adapted, evaluating, innermost, settled

KNOWN = ("torch", "ssm_core", "adapters")  # packages whose forward is that of the parameters


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


def described(module: Any) -> dict[str, Tensor]:
    """The arrays of a layer or a model for a file; raises where it is another function than its definition says."""
    arrays = settled(module)
    if isinstance(definition := module.definition, models.Model):
        check_functions(
            definition, arrays, [standing(block) for block in module.ends()[1]], outer_norms(module, norm_of)
        )
    check_called(module, arrays)
    return arrays


def standing(block: Any) -> dict[str, Any]:
    """What a file would name: the definitions of its layers, its channel mix and its norms."""
    parts = {name: innermost(part) for name, part in block.named_children()}
    found = {name: part.definition for name, part in parts.items() if hasattr(part, "definition")}
    return found | {name: norm for name, part in parts.items() if (norm := norm_of(part)) is not None}


def norm_of(part: Any) -> models.Norm | None:
    """The norm that a module is; None of a module that is none of PyTorch's own or of `norms`."""
    if part is None:
        return None
    part = innermost(part)
    if isinstance(definition := getattr(part, "definition", None), models.Norm):
        return definition
    if not isinstance(part, nn.LayerNorm | nn.RMSNorm):
        return None
    kind, d_model = ("layer" if isinstance(part, nn.LayerNorm) else "rms"), part.normalized_shape[-1]
    epsilon = torch.finfo(getattr(part.weight, "dtype", torch.float32)).eps if part.eps is None else part.eps
    return models.Norm(kind, d_model, epsilon, getattr(part, "bias", None) is not None)


def check_called(module: Any, arrays: dict[str, Tensor]) -> None:
    """Raises where what is not of PyTorch or of ours takes part in calls, and makes other outputs than a file would.

    Among several processes calls of parts would have to meet, so that nothing is called there.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return
    if any(map(_changes_calls, module.modules())) or recomposed(module, (nn.Dropout, nn.Identity)):
        check_outputs(module.definition, arrays, partial(_outputs, module))


def _changes_calls(part: Any) -> bool:
    """Whether hooks, or a forward of another hand, decide on what a module gives."""
    own = "forward" in vars(part) and not hasattr(part, "_hf_hook")  # accelerate puts its own there
    written = getattr(type(part).forward, "__module__", "").partition(".")[0]
    return bool(part._forward_hooks or part._forward_pre_hooks) or own or written not in KNOWN


def _outputs(module: Any, u: np.ndarray) -> np.ndarray:
    """What a module makes of an input of the host, without dropout."""
    like = module.any_parameter()
    dtype = like.dtype if u.dtype.kind == "f" else torch.int64
    with evaluating(module), torch.no_grad():
        return to_numpy(module(torch.as_tensor(u, dtype=dtype, device=like.device)).to(torch.float64))
