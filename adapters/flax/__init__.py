"""The layers as Flax NNX modules. All arithmetic is in the definitions of `ssm_core.layers`."""

from .base import MODULES, SSMModule, module
from .blocks import from_pretrained
from .modules import (
    DSS,
    LMU,
    LRU,
    RTF,
    S4,
    S4D,
    S5,
    SSM,
    LanguageModel,
    LinOSS,
    Mamba,
    Mamba2,
    Mamba2LM,
    Mamba3,
    Mamba3LM,
    MambaLM,
    SequenceModel,
)
from .weights import load, param_labels, save

__all__ = [
    "DSS",
    "LMU",
    "LRU",
    "MODULES",
    "RTF",
    "S4",
    "S4D",
    "S5",
    "SSM",
    "LanguageModel",
    "LinOSS",
    "Mamba",
    "Mamba2",
    "Mamba2LM",
    "Mamba3",
    "Mamba3LM",
    "MambaLM",
    "SSMModule",
    "SequenceModel",
    "from_pretrained",
    "load",
    "module",
    "param_labels",
    "save",
]
