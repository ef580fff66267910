"""The layers as PyTorch modules. All arithmetic is in the definitions of `ssm_core.layers`."""

from .base import MODULES, SSMModule, module
from .blocks import from_pretrained
from .exporting import RealStepper, real_stepper
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
from .weights import load, param_groups, save

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
    "RealStepper",
    "SSMModule",
    "SequenceModel",
    "from_pretrained",
    "load",
    "module",
    "param_groups",
    "real_stepper",
    "save",
]
