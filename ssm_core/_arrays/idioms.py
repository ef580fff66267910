"""Functions that the array API standard lacks, or that libraries are not all good at."""

from __future__ import annotations

import math

from .dispatch import dispatched, is_open
from .library import Array, Namespace, device, is_complex, namespace


@dispatched
def exp(z: Array) -> Array:
    """e^z, which some libraries are slow at for complex numbers. Where e^Re(z) overflows, inf or NaN."""
    return namespace("exp", z=z).exp(z)


@dispatched
def clip(x: Array, low: float, high: float | None = None) -> Array:
    """x within bounds, which a trace may not know."""
    xp = namespace("clip", x=x)
    return xp.clip(x, low) if high is None else xp.clip(x, low, high)


@dispatched
def taken_along(x: Array, index: Array, axis: int) -> Array:
    """xp.take_along_axis for an index of the shape of the result."""
    return namespace("taken_along", x=x).take_along_axis(x, index, axis=axis)


@dispatched
def plus_product(x: Array, y: Array, z: Array) -> Array:
    """x + y z, in one pass where a library has that."""
    return x + y * z


@dispatched
def repeated(x: Array, n: int) -> Array:
    """A row (..., 1, m) as n of itself (..., n, m)."""
    return namespace("repeated", x=x).broadcast_to(x, (*x.shape[:-2], n, x.shape[-1]))


def conjugated(x: Array, xp: Namespace) -> Array:
    """The complex conjugate; what is real is passed on."""
    return xp.conj(x) if is_complex(x) else x


def matmul(x: Array, y: Array, xp: Namespace) -> Array:
    """x y in the dtype both promote to and with all of its digits, neither of which every library does by itself."""
    return _matmul(*in_one_dtype(x, y, xp), backend="auto")  # also where generic bodies are asked for


@dispatched
def _matmul(x: Array, y: Array) -> Array:
    return x @ y


def in_one_dtype(x: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
    """Both in the dtype that they promote to."""
    if x.dtype == y.dtype:
        return x, y
    dtype = xp.result_type(x.dtype, y.dtype)
    return xp.astype(x, dtype, copy=False), xp.astype(y, dtype, copy=False)


def matmul_shared(x: Array, y: Array, xp: Namespace) -> Array:
    """x (E..., ..., A, K) times a y (..., K, T) that the leading axes E share, as one product of (E A) rows."""
    extra = x.ndim - y.ndim
    if extra <= 0 or is_open(x, x.shape[-2]):
        return matmul(x, y, xp)
    lead, batch = x.shape[:extra], x.ndim - 2 - extra
    order = (*range(extra, extra + batch), *range(extra), x.ndim - 2, x.ndim - 1)
    x = xp.permute_dims(x, order)
    rows = math.prod(lead) * x.shape[-2]
    product = matmul(xp.reshape(x, (*x.shape[:batch], rows, x.shape[-1])), y, xp)
    product = xp.reshape(product, (*product.shape[:batch], *lead, x.shape[-2], product.shape[-1]))
    back = (*range(batch, batch + extra), *range(batch), x.ndim - 2, x.ndim - 1)
    return xp.permute_dims(product, back)


def padded(x: Array, n: int, xp: Namespace) -> Array:
    """x (..., at most n) continued by zeros to (..., n)."""
    if x.shape[-1] == n:
        return x
    return xp.concat([x, xp.zeros((*x.shape[:-1], n - x.shape[-1]), dtype=x.dtype, device=device(x))], axis=-1)


def moved(x: Array, source: int, to: int, xp: Namespace) -> Array:
    """xp.moveaxis, for which torch.func.vmap has no rule."""
    order = [axis for axis in range(x.ndim) if axis != source % x.ndim]
    order.insert(to % x.ndim, source % x.ndim)
    return xp.permute_dims(x, tuple(order))
