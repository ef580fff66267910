"""Hugging Face's transformers made fast: its own models, computed with the operators of this package."""

from ssm_core._arrays.errors import absent

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise absent("adapters.transformers", error, "torch", "transformers", extra="transformers") from error

from .models import MODELS
from .patching import Accelerated, accelerate, restore

__all__ = ["MODELS", "Accelerated", "accelerate", "restore"]
