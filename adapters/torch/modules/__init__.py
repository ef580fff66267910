"""Modules of PyTorch, one class a definition; written by `adapters/generate.py`."""

from .dss import DSS
from .language_model import LanguageModel, Mamba2LM, Mamba3LM, MambaLM
from .linoss import LinOSS
from .lmu import LMU
from .lru import LRU
from .mamba import Mamba
from .mamba2 import Mamba2
from .mamba3 import Mamba3
from .rtf import RTF
from .s4 import S4
from .s4d import S4D
from .s5 import S5
from .sequence_model import SequenceModel
from .ssm import SSM

__all__ = [
    "DSS",
    "LMU",
    "LRU",
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
    "SequenceModel",
]
