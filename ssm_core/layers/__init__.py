"""Layers defined once: options, parameters, and pure functions of arrays. The adapters make modules of them."""

from __future__ import annotations

from typing import Any

from .gated.base import InputDependent
from .gated.hgrn import HGRN
from .gated.mamba import Mamba
from .gated.mamba2 import Mamba2
from .gated.mamba3 import Mamba3
from .gated.rg_lru import RGLRU
from .gated.rwkv4 import RWKV4
from .layer import Layer, Stepper
from .parameters import HostRandom, Parameter, Parameters, Random
from .registry import LAYERS, make, registered
from .time_invariant.base import TimeInvariant
from .time_invariant.dss import DSS
from .time_invariant.linoss import LinOSS
from .time_invariant.lmu import LMU
from .time_invariant.lru import LRU
from .time_invariant.rtf import RTF
from .time_invariant.s4 import S4
from .time_invariant.s4d import S4D
from .time_invariant.s5 import S5
from .time_invariant.ssm import SSM

__all__ = [
    "DSS",
    "HGRN",
    "LAYERS",
    "LMU",
    "LRU",
    "RGLRU",
    "RTF",
    "RWKV4",
    "S4",
    "S4D",
    "S5",
    "SSM",
    "HostRandom",
    "InputDependent",
    "Layer",
    "LinOSS",
    "Mamba",
    "Mamba2",
    "Mamba3",
    "Parameter",
    "Parameters",
    "Random",
    "Stepper",
    "TimeInvariant",
    "make",
    "registered",
]


def __getattr__(name: str) -> Any:
    """Every registered definition has its name here: the models, and those of users."""
    if name in LAYERS:
        return LAYERS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
