"""The layers as Flax NNX modules. All arithmetic is in the definitions of `ssm_core.layers`."""

from .base import SSMModule
from .models import MODULES, SequenceModel, module
from .modules import DSS, LMU, LRU, RTF, S4, S4D, S5, SSM, LinOSS
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
    "LinOSS",
    "SSMModule",
    "SequenceModel",
    "load",
    "module",
    "param_labels",
    "save",
]
