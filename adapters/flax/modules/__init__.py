"""Modules of Flax NNX, one class a definition; written by `adapters/generate.py`."""

from .dss import DSS
from .gla import GLA
from .hgrn2 import HGRN2
from .language_model import LanguageModel, Mamba2LM, Mamba3LM, MambaLM
from .lightning import Lightning
from .linear_attention import LinearAttention
from .linoss import LinOSS
from .lmu import LMU
from .lru import LRU
from .mamba import Mamba
from .mamba2 import Mamba2
from .mamba3 import Mamba3
from .mlstm import MLSTM
from .retnet import RetNet
from .rtf import RTF
from .rwkv5 import RWKV5
from .rwkv6 import RWKV6
from .rwkv_channel_mix import RWKVChannelMix
from .s4 import S4
from .s4d import S4D
from .s5 import S5
from .sequence_model import SequenceModel
from .ssm import SSM

__all__ = [
    "DSS",
    "GLA",
    "HGRN2",
    "LMU",
    "LRU",
    "MLSTM",
    "RTF",
    "RWKV5",
    "RWKV6",
    "S4",
    "S4D",
    "S5",
    "SSM",
    "LanguageModel",
    "Lightning",
    "LinOSS",
    "LinearAttention",
    "Mamba",
    "Mamba2",
    "Mamba2LM",
    "Mamba3",
    "Mamba3LM",
    "MambaLM",
    "RWKVChannelMix",
    "RetNet",
    "SequenceModel",
]
