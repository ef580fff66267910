"""Layers defined once: options, parameters, and pure functions of arrays. The adapters make modules of them."""

from __future__ import annotations

from typing import Any

from .._errors import OptionError, unknown
from .dss import DSS
from .input_dependent import InputDependent
from .language_model import LanguageModel, Mamba2LM, Mamba3LM, MambaLM
from .layer import Layer, Stepper
from .linoss import LinOSS
from .lmu import LMU
from .lru import LRU
from .mamba import Mamba
from .mamba2 import Mamba2
from .mamba3 import Mamba3
from .parameters import HostRandom, Parameter, Parameters, Random
from .rtf import RTF
from .s4 import S4
from .s4d import S4D
from .s5 import S5
from .sequence_model import SequenceModel
from .ssm import SSM
from .time_invariant import TimeInvariant

LAYERS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        S4D, S4, DSS, SSM, LMU, S5, LRU, RTF, LinOSS, Mamba, Mamba2, Mamba3, SequenceModel, MambaLM, Mamba2LM, Mamba3LM
    )
}  # fmt: skip


def make(name: str, options: dict[str, Any]) -> Layer:
    """The layer of that name with these options."""
    if not isinstance(name, str) or name not in LAYERS:
        raise unknown("layers.make", "layer", name, LAYERS)
    if not isinstance(options, dict):
        raise OptionError(f"layers.make: options = {options!r} must be a dict.")
    try:
        return LAYERS[name](**options)
    except TypeError as error:
        raise OptionError(
            f"layers.make: {name} {str(error).rpartition('__init__() ')[2]} (options: {sorted(options)})."
        ) from error


__all__ = [
    "DSS",
    "LAYERS",
    "LMU",
    "LRU",
    "RTF",
    "S4",
    "S4D",
    "S5",
    "SSM",
    "HostRandom",
    "InputDependent",
    "LanguageModel",
    "Layer",
    "LinOSS",
    "Mamba",
    "Mamba2",
    "Mamba2LM",
    "Mamba3",
    "Mamba3LM",
    "MambaLM",
    "Parameter",
    "Parameters",
    "Random",
    "SequenceModel",
    "Stepper",
    "TimeInvariant",
    "make",
]
