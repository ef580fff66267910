"""Fused implementations for PyTorch."""

from __future__ import annotations

from array_api_compat import torch as compat

from .convolution import convolve, shortest_convolution
from .decay.body import channel_decay
from .duality.body import ssd
from .folds import fold
from .functions import (
    affine,
    all_finite,
    bounds,
    devices,
    diagonal_stepper,
    eigvals,
    erf,
    exp,
    expm,
    gelu,
    glu,
    is_traced,
    owned,
    readable,
    rms_norm,
    sigmoid,
    silu,
    softplus,
    to_numpy,
)
from .pytrees import register
from .scans.body import linear_scan
from .selective.body import selective_scan
from .state_passing.body import chunks

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
    "readable",
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
    "all_finite",
    "bounds",
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
    "owned",
    "readable",
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
