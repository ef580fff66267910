"""Fast twins for PyTorch."""

from __future__ import annotations

from array_api_compat import torch as compat

from .folds import fold
from .functions import devices, eigvals, erf, expm, gelu, is_traced, sigmoid, softplus, to_numpy
from .pytrees import register
from .scans import linear_scan

NAMESPACE = compat
TWINS = ("linear_scan", "fold", "expm", "eigvals", "erf", "sigmoid", "softplus", "gelu")

__all__ = [
    "NAMESPACE",
    "TWINS",
    "devices",
    "eigvals",
    "erf",
    "expm",
    "fold",
    "gelu",
    "is_traced",
    "linear_scan",
    "sigmoid",
    "softplus",
    "to_numpy",
]

register()
