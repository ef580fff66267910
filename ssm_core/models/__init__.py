"""Models of layers: patterns of residual blocks around any of them."""

from __future__ import annotations

from .blocks import Block
from .hgrn2_lm import HGRN2LM
from .language_model import LanguageModel, Mamba2LM, Mamba3LM, MambaLM
from .model import Model
from .pointwise import ChannelMix, Norm
from .recurrent_gemma import RecurrentGemmaLM
from .rwkv import RWKV4LM, RWKV7LM
from .sashimi import SaShiMi
from .sequence_model import SequenceModel
from .xlstm import XLSTMLM

__all__ = [
    "HGRN2LM",
    "RWKV4LM",
    "RWKV7LM",
    "XLSTMLM",
    "Block",
    "ChannelMix",
    "LanguageModel",
    "Mamba2LM",
    "Mamba3LM",
    "MambaLM",
    "Model",
    "Norm",
    "RecurrentGemmaLM",
    "SaShiMi",
    "SequenceModel",
]
