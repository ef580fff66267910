"""Normalization by the root mean square, with or without a gate."""

from __future__ import annotations

import math

from .._arrays.dispatch import dispatched
from .._arrays.errors import OptionError, ShapeError, describe
from .._arrays.idioms import clip
from .._arrays.library import Array, Namespace, compute_dtype, in_dtype_of, namespace, real_floating, require_arrays
from .._arrays.numbers import flag, plain
from .special import activation


def rms_norm(
    x: Array,
    weight: Array | None = None,
    *,
    gate: Array | None = None,
    groups: int = 1,
    epsilon: float = 1e-5,
    gate_first: bool = True,
) -> Array:
    """x over its root mean square, feature by feature weighted, with the gate of Mamba-2 where one is given.

    n(x) = x / sqrt(mean(x^2) + epsilon),   y = weight n(x silu(gate)),   or weight n(x) silu(gate) if not gate_first

    x           (..., H), real
    weight      (H,), ones if None
    gate        (..., H), of x's shape
    groups      the mean is taken over each of so many groups of neighboring features
    epsilon     added to the mean square
    returns     (..., H) in x's dtype; half precision is computed in float32

    Raises ShapeError, DTypeError, OptionError, MixedArraysError.
    Source: Zhang and Sennrich, Root mean square layer normalization, NeurIPS 2019; gated: Dao and Gu, Transformers are
    SSMs, ICML 2024.

    >>> import numpy, ssm_core
    >>> ssm_core.rms_norm(numpy.asarray([3.0, 4.0]), epsilon=0.0).round(4)
    array([0.8485, 1.1314])
    """
    given = {name: v for name, v in (("weight", weight), ("gate", gate)) if v is not None}
    require_arrays("rms_norm", x=x, **given)
    xp = namespace("rms_norm", x=x, **given)
    real_floating("rms_norm", x=x, **given)
    shapes = describe(x=x, weight=weight, gate=gate)
    if x.ndim < 1:
        raise ShapeError(f"rms_norm: x must have an axis of features ({shapes}).")
    H = x.shape[-1]
    if weight is not None and tuple(weight.shape) != (H,):
        raise ShapeError(f"rms_norm: weight must be ({H},) ({shapes}).")
    if gate is not None and tuple(gate.shape) != tuple(x.shape):
        raise ShapeError(f"rms_norm: gate must have x's shape ({shapes}).")
    groups, epsilon, gate_first = plain(groups), plain(epsilon), flag("rms_norm", gate_first=gate_first)
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or H % groups:
        raise OptionError(f"rms_norm: groups = {groups!r} must divide the {H} features ({shapes}).")
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < math.inf:
        raise OptionError(f"rms_norm: epsilon = {epsilon!r} must be a finite number of at least 0 ({shapes}).")
    dtype = compute_dtype(xp, x, weight, gate)
    wide = [None if v is None else xp.astype(v, dtype, copy=False) for v in (x, weight, gate)]
    return in_dtype_of(
        x, normed(wide[0], wide[1], gate=wide[2], groups=groups, epsilon=epsilon, gate_first=gate_first), xp
    )


def normed(
    x: Array,
    weight: Array | None = None,
    *,
    epsilon: float,
    gate: Array | None = None,
    groups: int = 1,
    gate_first: bool = True,
) -> Array:
    """`rms_norm` of arrays that are known to fit."""
    factor = None if gate is None else activation("silu")(gate)
    x = x * factor if gate_first and factor is not None else x
    if groups == 1:
        y = _rms_norm(x, weight, epsilon=epsilon)
    else:
        xp, shape = namespace("rms_norm", x=x), tuple(x.shape)
        y = _rms_norm(xp.reshape(x, (*shape[:-1], groups, shape[-1] // groups)), None, epsilon=epsilon)
        y = xp.reshape(y, shape) if weight is None else xp.reshape(y, shape) * weight
    return y if gate_first or factor is None else y * factor


@dispatched
def _rms_norm(x: Array, weight: Array | None, *, epsilon: float) -> Array:
    xp = namespace("rms_norm", x=x)
    squares = xp.sum(x * x, axis=-1, keepdims=True) / max(1, x.shape[-1])
    y = x / xp.sqrt(squares + epsilon)
    return y if weight is None else y * weight


EPSILON = 1e-5  # of the layer norm, as in PyTorch


def layer_norm(x: Array, weight: Array, bias: Array | None, xp: Namespace, epsilon: float = EPSILON) -> Array:
    """(x - mean) / sqrt(var + epsilon) * weight + bias over the last axis."""
    y = standardized(x, epsilon, xp) * weight
    return y if bias is None else y + bias


def standardized(x: Array, epsilon: float, xp: Namespace) -> Array:
    """(x - mean) / sqrt(var + epsilon) over the last axis: a group norm where that holds the features of a group."""
    centered = x - xp.mean(x, axis=-1, keepdims=True)
    variance = xp.mean(centered * centered, axis=-1, keepdims=True)
    return centered / xp.sqrt(variance + epsilon)


def l2_normed(x: Array, xp: Namespace, *, epsilon: float = 0.0, floor: float = 0.0) -> Array:
    """x / sqrt(max(sum x^2, floor^2) + epsilon) over the last axis: delta rules have an epsilon, RWKV-7 a floor."""
    squares = xp.sum(x * x, axis=-1, keepdims=True)
    squares = clip(squares, floor * floor) if floor else squares
    return x / xp.sqrt(squares + epsilon)
