"""Language models in the directories of Hugging Face, one file an architecture."""

from __future__ import annotations

from .architecture import Architecture, architectures, registered
from .directory import from_pretrained, opened, save_pretrained

__all__ = ["Architecture", "architectures", "from_pretrained", "opened", "registered", "save_pretrained"]
