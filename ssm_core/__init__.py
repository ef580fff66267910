"""State space models on any array library: numpy, PyTorch, JAX, CuPy and every array-API namespace."""

from __future__ import annotations

from . import adapters, backends, layers
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
from .convolution import convolve
from .diagonal_recurrence import diagonal_scan
from .discretization import discretize
from .frequency import frequency_response, poles
from .hippo_matrices import hippo
from .initializers import diagonal_init
from .kernels import kernel
from .matrix_exponential import expm
from .recurrence import scan, step
from .scans import chunk_summary, linear_scan
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
    "chunk_summary",
    "convolve",
    "diagonal_init",
    "diagonal_scan",
    "discretize",
    "expm",
    "frequency_response",
    "hippo",
    "kernel",
    "layers",
    "linear_scan",
    "load",
    "poles",
    "save",
    "scan",
    "show_backends",
    "step",
    "use_backend",
]
