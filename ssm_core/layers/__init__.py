"""Layers defined once: options, parameters, and pure functions of arrays. The adapters make modules of them."""

from __future__ import annotations

from typing import Any

from .gated.base import InputDependent
from .gated.delta_net import DeltaNet
from .gated.gated_delta_net import GatedDeltaNet
from .gated.gated_delta_product import GatedDeltaProduct
from .gated.gdn2 import GDN2
from .gated.gla import GLA
from .gated.h3 import H3
from .gated.hgrn import HGRN
from .gated.hgrn2 import HGRN2
from .gated.hyena import Hyena
from .gated.kda import KDA
from .gated.lightning import Lightning
from .gated.linear_attention import LinearAttention
from .gated.local_attention import LocalAttention
from .gated.mamba import Mamba
from .gated.mamba2 import Mamba2
from .gated.mamba3 import Mamba3
from .gated.mlstm import MLSTM
from .gated.retnet import RetNet
from .gated.rg_lru import RGLRU
from .gated.rwkv4 import RWKV4
from .gated.rwkv5 import RWKV5
from .gated.rwkv6 import RWKV6
from .gated.rwkv7 import RWKV7
from .gated.rwkv_channel_mix import RWKVChannelMix
from .layer import Layer, Stepper
from .parameters import HostRandom, Parameter, Parameters, Random
from .registry import LAYERS, make, registered
from .time_invariant.base import TimeInvariant
from .time_invariant.d_linoss import DLinOSS
from .time_invariant.dss import DSS
from .time_invariant.linoss import LinOSS
from .time_invariant.lmu import LMU
from .time_invariant.lru import LRU
from .time_invariant.rtf import RTF
from .time_invariant.s4 import S4
from .time_invariant.s4d import S4D
from .time_invariant.s4nd import S4ND
from .time_invariant.s5 import S5
from .time_invariant.ssm import SSM

__all__ = [
    "DSS",
    "GDN2",
    "GLA",
    "H3",
    "HGRN",
    "HGRN2",
    "KDA",
    "LAYERS",
    "LMU",
    "LRU",
    "MLSTM",
    "RGLRU",
    "RTF",
    "RWKV4",
    "RWKV5",
    "RWKV6",
    "RWKV7",
    "S4",
    "S4D",
    "S4ND",
    "S5",
    "SSM",
    "DLinOSS",
    "DeltaNet",
    "GatedDeltaNet",
    "GatedDeltaProduct",
    "HostRandom",
    "Hyena",
    "InputDependent",
    "Layer",
    "Lightning",
    "LinOSS",
    "LinearAttention",
    "LocalAttention",
    "Mamba",
    "Mamba2",
    "Mamba3",
    "Parameter",
    "Parameters",
    "RWKVChannelMix",
    "Random",
    "RetNet",
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
