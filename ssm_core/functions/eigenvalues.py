"""Eigenvalues of general matrices, which the array API standard does not have."""

from __future__ import annotations

import numpy as np

from .._arrays.dispatch import dispatched
from .._arrays.library import Array, convert, namespace, to_complex, to_numpy


@dispatched
def eigvals(A: Array) -> Array:
    """The eigenvalues of A (..., N, N), complex (..., N): on the host, where the library has none of its own.

    NaN of matrices that are not finite, which NumPy would refuse together with all others of their batch.
    """
    xp, A = namespace("poles", A=A), to_numpy(A)
    finite = np.isfinite(A).all((-2, -1))
    found = np.linalg.eigvals(np.where(finite[..., None, None], A, 0))
    return to_complex(convert(np.where(finite[..., None], found, np.asarray(np.nan, found.dtype)), xp), xp)
