"""Conjugate pairs in real arithmetic: complex numbers as their halves (Re x, Im x).

2 Re(C x) = (2 Re C, -2 Im C) . (Re x, Im x)
"""

from __future__ import annotations

from .._arrays.library import Array, Namespace, to_complex


def joined(x: Array, xp: Namespace, *, axis: int = -1) -> Array:
    """(Re x, Im x) along an axis."""
    x = to_complex(x, xp)
    return xp.concat([xp.real(x), xp.imag(x)], axis=axis)


def halved(x: Array, xp: Namespace) -> Array:
    """x' + i x'' of the two halves of the last axis: the inverse of `joined`."""
    n = x.shape[-1] // 2
    return x[..., :n] + 1j * x[..., n:]


def real_rows(C: Array, xp: Namespace) -> Array:
    """(2 Re C, -2 Im C) along the last axis: what reads 2 Re(C x) from joined states."""
    C = to_complex(C, xp)
    return xp.concat([2 * xp.real(C), -2 * xp.imag(C)], axis=-1)
