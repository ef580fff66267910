"""Fused implementations for PyTorch."""

from __future__ import annotations

import torch
from array_api_compat import torch as compat

from .attention import attention
from .convolution import convolve, shortest_convolution
from .decay.body import channel_decay
from .delta.body import gated_delta
from .duality.body import ssd
from .folds import fold, fold_of_chunks
from .functions import (
    affine,
    all_finite,
    bounds,
    clip,
    devices,
    diagonal_stepper,
    eigvals,
    erf,
    exp,
    expm,
    gelu,
    glu,
    is_symbol,
    is_traced,
    matmul,
    not_dense,
    on_host,
    owned,
    parted,
    plus_product,
    readable,
    relu,
    rms_norm,
    seen,
    sigmoid,
    silu,
    softplus,
    taken_along,
    to_numpy,
    written,
)
from .means import weighted_means
from .pytrees import register
from .ratios import ratio
from .rg_lru import driven
from .scans.body import linear_scan
from .selective.body import selective_scan
from .shards import shards
from .short_convolution import causal_conv1d
from .state_passing.body import chunks

NAMESPACE = compat
CLASSES = (torch.Tensor, torch.nn.Parameter)  # known before a trace, in which nothing can be noted
DTYPES = tuple({x for x in vars(torch).values() if isinstance(x, torch.dtype)})  # these too
FUSED = (
    "affine",
    "attention",
    "causal_conv1d",
    "channel_decay",
    "chunks",
    "clip",
    "convolve",
    "diagonal_stepper",
    "driven",
    "eigvals",
    "erf",
    "exp",
    "expm",
    "fold",
    "fold_of_chunks",
    "gated_delta",
    "gelu",
    "glu",
    "linear_scan",
    "parted",
    "plus_product",
    "ratio",
    "readable",
    "relu",
    "rms_norm",
    "seen",
    "selective_scan",
    "sigmoid",
    "silu",
    "softplus",
    "ssd",
    "taken_along",
    "weighted_means",
    "written",
)

__all__ = [
    "FUSED",
    "NAMESPACE",
    "affine",
    "all_finite",
    "attention",
    "bounds",
    "causal_conv1d",
    "channel_decay",
    "chunks",
    "clip",
    "convolve",
    "devices",
    "diagonal_stepper",
    "driven",
    "eigvals",
    "erf",
    "exp",
    "expm",
    "fold",
    "fold_of_chunks",
    "gated_delta",
    "gelu",
    "glu",
    "is_symbol",
    "is_traced",
    "linear_scan",
    "matmul",
    "not_dense",
    "on_host",
    "owned",
    "parted",
    "plus_product",
    "ratio",
    "readable",
    "relu",
    "rms_norm",
    "seen",
    "selective_scan",
    "shards",
    "shortest_convolution",
    "sigmoid",
    "silu",
    "softplus",
    "ssd",
    "taken_along",
    "to_numpy",
    "weighted_means",
    "written",
]

register()
