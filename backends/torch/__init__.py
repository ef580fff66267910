"""Fused implementations for PyTorch."""

from __future__ import annotations

from array_api_compat import torch as compat

from .chunks import chunks
from .convolution import convolve, shortest_convolution
from .decay.body import channel_decay
from .duality import ssd
from .folds import fold
from .functions import (
    affine,
    devices,
    diagonal_stepper,
    eigvals,
    erf,
    exp,
    expm,
    gelu,
    glu,
    is_traced,
    rms_norm,
    sigmoid,
    silu,
    softplus,
    to_numpy,
)
from .pytrees import register
from .scans import linear_scan
from .selective import selective_scan

NAMESPACE = compat
FUSED = (
    "affine",
    "channel_decay",
    "chunks",
    "convolve",
    "diagonal_stepper",
    "eigvals",
    "erf",
    "exp",
    "expm",
    "fold",
    "gelu",
    "glu",
    "linear_scan",
    "rms_norm",
    "selective_scan",
    "sigmoid",
    "silu",
    "softplus",
    "ssd",
)

__all__ = [
    "FUSED",
    "NAMESPACE",
    "affine",
    "channel_decay",
    "chunks",
    "convolve",
    "devices",
    "diagonal_stepper",
    "eigvals",
    "erf",
    "exp",
    "expm",
    "fold",
    "gelu",
    "glu",
    "is_traced",
    "linear_scan",
    "rms_norm",
    "selective_scan",
    "shortest_convolution",
    "sigmoid",
    "silu",
    "softplus",
    "ssd",
    "to_numpy",
]

register()
