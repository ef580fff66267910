"""Functions of transformers replaced where they stand, and put back."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
import transformers

from ssm_core._arrays.errors import is_absent, unknown

from .models import MODELS, Replacement

Function = Callable[..., Any]
_replaced: dict[tuple[Any, str], tuple[Function, Function]] = {}  # original and ours, by where they stand


@dataclass
class Accelerated:
    """What a call of `accelerate` has done; as a context manager it is undone at the end of the block.

    replaced  what now computes with this package, as module and name
    left      what was left as it is, and why
    """

    replaced: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    _places: list[tuple[Any, str]] = field(default_factory=list, repr=False)

    def __enter__(self) -> Accelerated:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _put_back(self._places)


def accelerate(*models: str) -> Accelerated:
    """Lets the models of Hugging Face's transformers compute with the operators of this package.

    Replaced is, inside the transformers that is installed, what falls back to a slow reference where mamba-ssm,
    causal-conv1d and flash-linear-attention are absent: the selective scan, Mamba-2's scan by chunks, gated delta rules
    and KDA, the scan of RG-LRU, mLSTM, their updates, and the convolutions before them. It holds for models that exist
    and for those made later. Attention, experts, weights and caches stay theirs. Where the original kernels are
    installed, they keep what is not on a CPU.

    models   types of models, such as "mamba2"; all of them if none is given
    returns  an `Accelerated`, with what was replaced and what was left. It is a context manager, which undoes it at the
             end of a block; `restore` undoes all

    What is not where it should be, or takes other arguments, stays as it is, with a warning that says so. Raises
    OptionError for types of models that are not known here.

    >>> from ssm_core.adapters.transformers import accelerate
    >>> with accelerate("mamba2") as done:
    ...     done.replaced[0]
    'transformers.models.mamba2.modeling_mamba2.Mamba2Mixer.forward'
    """
    for model in models:
        if model not in MODELS:
            raise unknown("accelerate", "model", model, MODELS)
    done = Accelerated()
    for model in models or MODELS:
        for replacement in MODELS[model]:
            _replace(f"transformers.models.{model}.modeling_{model}", replacement, done)
    if done.left:
        told = "".join(f"\n  {place}: {why}" for place, why in done.left.items())
        warnings.warn(f"accelerate: transformers {transformers.__version__} keeps its own of{told}", stacklevel=2)
    return done


def restore() -> None:
    """Puts back all that `accelerate` has replaced.

    >>> from ssm_core.adapters.transformers import restore
    >>> restore()
    """
    _put_back(list(_replaced))


def _replace(path: str, replacement: Replacement, done: Accelerated) -> None:
    place = f"{path}.{replacement.name}"
    *classes, name = replacement.name.split(".")
    try:
        owner = functools.reduce(getattr, classes, importlib.import_module(path))
        original = vars(owner)[name]
    except ModuleNotFoundError as error:
        if not is_absent(error, "transformers"):
            raise
        done.left[place] = "there is no such module"
        return
    except (AttributeError, KeyError):
        done.left[place] = "it is not there"
        return
    if (owner, name) in _replaced:
        return
    ours = replacement.made_of(original)
    if not _fits(ours, original):
        done.left[place] = f"it takes {_parameters(original)}, not {_parameters(ours, follow_wrapped=False)}"
        return
    ours = _beside_kernels(original, ours) if _has_kernels(original) else ours
    setattr(owner, name, ours)
    _replaced[owner, name] = original, ours
    done._places.append((owner, name))
    done.replaced.append(place)


def _put_back(places: list[tuple[Any, str]]) -> None:
    for owner, name in places:
        if (owner, name) not in _replaced:
            continue
        original, ours = _replaced.pop((owner, name))
        if vars(owner).get(name) is ours:
            setattr(owner, name, original)
        else:
            warnings.warn(
                f"restore: {owner.__name__}.{name} was replaced once more since accelerate, and stays as it is.",
                stacklevel=3,
            )


def _fits(ours: Function, original: Function) -> bool:
    """Whether ours takes what the original does: the same names in the same places, as far as ours has names."""
    theirs, mine = _parameters(original), _parameters(ours, follow_wrapped=False)
    named = mine[: mine.index("args")] if "args" in mine else mine
    return theirs[: len(named)] == named and (len(named) < len(mine) or len(theirs) == len(named))


def _parameters(function: Function, follow_wrapped: bool = True) -> list[str]:
    return list(inspect.signature(function, follow_wrapped=follow_wrapped).parameters)


def _has_kernels(original: Function) -> bool:
    """Whether transformers has found the original kernels for a function that it dispatches by itself."""
    closed_over = inspect.getclosurevars(original).nonlocals if inspect.isfunction(original) else {}
    return bool(closed_over.get("is_new_implementation", False))


def _beside_kernels(original: Function, ours: Function) -> Function:
    """Ours on a CPU, which the kernels do not run on."""

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        on_host = all(x.device.type == "cpu" for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))
        return (ours if on_host else original)(*args, **kwargs)

    return function
