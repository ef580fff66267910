"""Models of layers: patterns of residual blocks around any of them."""

from __future__ import annotations

from .blocks import Block, ChannelMix, Norm
from .language_model import LanguageModel, Mamba2LM, Mamba3LM, MambaLM
from .model import Model
from .sequence_model import SequenceModel

__all__ = ["Block", "ChannelMix", "LanguageModel", "Mamba2LM", "Mamba3LM", "MambaLM", "Model", "Norm", "SequenceModel"]
