"""Fast twins for PyTorch."""

from __future__ import annotations

from array_api_compat import torch as compat

from .convolution import convolve
from .duality import ssd
from .folds import fold
from .functions import (
    affine,
    devices,
    diagonal_stepper,
    eigvals,
    erf,
    expm,
    gelu,
    glu,
    is_traced,
    sigmoid,
    softplus,
    to_numpy,
)
from .pytrees import register
from .scans import linear_scan

NAMESPACE = compat
TWINS = (
    "convolve", "linear_scan", "diagonal_stepper", "fold", "expm", "eigvals", "erf", "sigmoid", "softplus", "gelu",
    "affine", "glu", "ssd",
)  # fmt: skip

__all__ = [
    "NAMESPACE",
    "TWINS",
    "affine",
    "convolve",
    "devices",
    "diagonal_stepper",
    "eigvals",
    "erf",
    "expm",
    "fold",
    "gelu",
    "glu",
    "is_traced",
    "linear_scan",
    "sigmoid",
    "softplus",
    "ssd",
    "to_numpy",
]

register()
