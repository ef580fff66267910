"""What layers do to features, the same at every step."""

from __future__ import annotations

from itertools import accumulate

from .._arrays.dispatch import dispatched
from .._arrays.idioms import in_one_dtype
from .._arrays.library import Array, namespace
from .special import activation


def affine(x: Array, weight: Array, bias: Array | None) -> Array:
    """W x + b over the last axis: x (..., n_in), weight (n_out, n_in), bias (n_out,) or None, result (..., n_out).

    As precise as maps of the library's own modules: what recurrences and powers need, `matmul`, does not follow its
    switches.
    """
    y: Array = _affine(x, weight, bias)
    return y


def glu(x: Array) -> Array:
    """The gated linear unit over the last axis (..., 2 H): a sigmoid(b), with a the first half of x and b the second.

    Source: Dauphin et al., Language modeling with gated convolutional networks, ICML 2017.
    """
    y: Array = _glu(x)
    return y


def parted(x: Array, *sizes: int) -> tuple[Array, ...]:
    """x (..., sum of the sizes) as one array (..., size) after another."""
    found: tuple[Array, ...] = _parted(x, sizes)
    return found


@dispatched
def _affine(x: Array, weight: Array, bias: Array | None) -> Array:
    xp = namespace("affine", x=x)
    x, weight = in_one_dtype(x, xp.matrix_transpose(weight), xp)
    y = xp.matmul(x, weight)
    return y if bias is None else y + bias


@dispatched
def _glu(x: Array) -> Array:
    half = x.shape[-1] // 2
    return x[..., :half] * activation("sigmoid")(x[..., half:])


@dispatched
def _parted(x: Array, sizes: tuple[int, ...]) -> tuple[Array, ...]:
    ends = accumulate(sizes)
    return tuple(x[..., end - size : end] for size, end in zip(sizes, ends, strict=True))
