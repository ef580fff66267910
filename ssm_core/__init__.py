"""State space models on any array library: numpy, PyTorch, JAX, CuPy and every array-API namespace."""

from __future__ import annotations

from . import adapters, backends, importers, layers
from ._backends_report import show_backends
from ._dispatch import use_backend
from ._errors import (
    DomainError,
    DTypeError,
    MissingPackageError,
    MixedArraysError,
    OptionError,
    ShapeError,
    SSMError,
)
from .checkpoints import load, save
from .conversions import eigenvector_condition, to_dense, to_diagonal
from .convolution import convolve
from .diagonal_recurrence import diagonal_scan
from .discretization import discretize
from .duality import ssd
from .frequency import frequency_response, poles
from .hippo_matrices import hippo
from .hippo_memory import hippo_project, hippo_reconstruct
from .initializers import diagonal_init
from .interop import from_control, from_scipy, to_control, to_scipy
from .kernels import kernel
from .mamba3 import mamba3_scan
from .matrix_exponential import expm
from .normal_plus_low_rank import nplr
from .normalization import rms_norm
from .pretrained import from_pretrained, save_pretrained
from .realization import to_rational
from .recurrence import scan, step
from .scans import chunk_summary, linear_scan
from .selective import selective_scan
from .short_convolution import causal_conv1d
from .state_update import selective_state_update
from .systems import DPLR, Dense, Diagonal, Rational

__version__ = "0.1.0"

__all__ = [
    "DPLR",
    "DTypeError",
    "Dense",
    "Diagonal",
    "DomainError",
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
    "diagonal_init",
    "diagonal_scan",
    "discretize",
    "eigenvector_condition",
    "expm",
    "frequency_response",
    "from_control",
    "from_pretrained",
    "from_scipy",
    "hippo",
    "hippo_project",
    "hippo_reconstruct",
    "importers",
    "kernel",
    "layers",
    "linear_scan",
    "load",
    "mamba3_scan",
    "nplr",
    "poles",
    "rms_norm",
    "save",
    "save_pretrained",
    "scan",
    "selective_scan",
    "selective_state_update",
    "show_backends",
    "ssd",
    "step",
    "to_control",
    "to_dense",
    "to_diagonal",
    "to_rational",
    "to_scipy",
    "use_backend",
]
