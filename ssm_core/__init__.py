"""State space models on any array library: numpy, PyTorch, JAX, CuPy and every array-API namespace."""

from __future__ import annotations

from . import _links as _links  # before what it looks after
from . import adapters, backends, distributed, layers, models, plot
from ._arrays.dispatch import use_backend
from ._arrays.errors import (
    DomainError,
    DTypeError,
    MissingFileError,
    MissingPackageError,
    MixedArraysError,
    OptionError,
    ShapeError,
    SSMError,
)
from ._arrays.report import show_backends
from .files import importers
from .files.pretrained import from_pretrained, save_pretrained
from .files.weights import load, save
from .functions import special
from .functions.convolution import convolve
from .functions.matrix_exponential import expm
from .functions.norms import rms_norm
from .functions.quantization import dequantize, quantize
from .functions.short_convolution import causal_conv1d
from .gated.decay import (
    gated_linear_attention,
    gated_linear_attention_summary,
    gated_linear_attention_update,
)
from .gated.delta import gated_delta, gated_delta_summary, gated_delta_update
from .gated.hgrn import hgrn, hgrn_summary, hgrn_update
from .gated.rg_lru import rg_lru, rg_lru_summary, rg_lru_update
from .gated.rwkv4 import rwkv4, rwkv4_summary, rwkv4_update
from .gated.selective import selective_scan, selective_summary
from .gated.ssd import ssd, ssd_summary
from .gated.state_update import selective_state_update
from .gated.trapezoid import mamba3_scan, mamba3_summary
from .measures.initializers import diagonal_init
from .measures.matrices import hippo
from .measures.memory import hippo_project, hippo_reconstruct
from .measures.nplr import nplr
from .recurrences.diagonal import diagonal_scan, diagonal_summary
from .recurrences.linear import linear_scan
from .recurrences.summaries import chunk_summary
from .systems.conversions import eigenvector_condition, to_dense, to_diagonal
from .systems.discretization import discretize
from .systems.interop import from_control, from_scipy, to_control, to_scipy
from .systems.records import DPLR, Dense, Diagonal, Rational
from .time_invariant.frequency import frequency_response, poles
from .time_invariant.kernels import kernel
from .time_invariant.realization import to_rational
from .time_invariant.simulation import scan, step
from .time_invariant.summary import scan_summary

__version__ = "0.1.0"

__all__ = [
    "DPLR",
    "DTypeError",
    "Dense",
    "Diagonal",
    "DomainError",
    "MissingFileError",
    "MissingPackageError",
    "MixedArraysError",
    "OptionError",
    "Rational",
    "SSMError",
    "ShapeError",
    "adapters",
    "backends",
    "causal_conv1d",
    "chunk_summary",
    "convolve",
    "dequantize",
    "diagonal_init",
    "diagonal_scan",
    "diagonal_summary",
    "discretize",
    "distributed",
    "eigenvector_condition",
    "expm",
    "frequency_response",
    "from_control",
    "from_pretrained",
    "from_scipy",
    "gated_delta",
    "gated_delta_summary",
    "gated_delta_update",
    "gated_linear_attention",
    "gated_linear_attention_summary",
    "gated_linear_attention_update",
    "hgrn",
    "hgrn_summary",
    "hgrn_update",
    "hippo",
    "hippo_project",
    "hippo_reconstruct",
    "importers",
    "kernel",
    "layers",
    "linear_scan",
    "load",
    "mamba3_scan",
    "mamba3_summary",
    "models",
    "nplr",
    "plot",
    "poles",
    "quantize",
    "rg_lru",
    "rg_lru_summary",
    "rg_lru_update",
    "rms_norm",
    "rwkv4",
    "rwkv4_summary",
    "rwkv4_update",
    "save",
    "save_pretrained",
    "scan",
    "scan_summary",
    "selective_scan",
    "selective_state_update",
    "selective_summary",
    "show_backends",
    "special",
    "ssd",
    "ssd_summary",
    "step",
    "to_control",
    "to_dense",
    "to_diagonal",
    "to_rational",
    "to_scipy",
    "use_backend",
]
