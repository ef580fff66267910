"""Eigenvalues of general matrices, which the array API standard does not have."""

from __future__ import annotations

import numpy as np

from .._arrays.dispatch import dispatched
from .._arrays.library import Array, convert, namespace, to_complex, to_numpy


@dispatched
def eigvals(A: Array) -> Array:
    """The eigenvalues of A (..., N, N), complex (..., N): on the host, where the library has none of its own."""
    xp = namespace("poles", A=A)
    return to_complex(convert(np.linalg.eigvals(to_numpy(A)), xp), xp)
