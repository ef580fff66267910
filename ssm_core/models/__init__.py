"""Models of layers: patterns of residual blocks around any of them."""

from __future__ import annotations

from .language_model import LanguageModel, Mamba2LM, Mamba3LM, MambaLM
from .sequence_model import SequenceModel

__all__ = ["LanguageModel", "Mamba2LM", "Mamba3LM", "MambaLM", "SequenceModel"]
