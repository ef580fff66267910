"""The short causal convolution for JAX on a CPU, as sums of shifted signals in its adjoint too.

What JAX derives pads the gradient of every shift and adds all of them up, which XLA does number by number.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .products import bilinear, suited


def causal_conv1d(u: Any, weight: Any, bias: Any, before: Any, segment: Any) -> Any:
    """Fused `ssm_core.functions.short_convolution._causal_conv1d`."""
    if segment is not None or before.dtype != u.dtype or not suited(u, weight):
        return NotImplemented
    y = _weighted(jnp.concatenate([before, u], axis=1), jnp.asarray(weight))
    return y if bias is None else y + bias


def _plain(x: Any, weight: Any) -> Any:
    """sum_j weight_j x_{k + j} of x (..., n + L, H), weight (H, n + 1)."""
    n = weight.shape[1]
    L = x.shape[-2] - n + 1
    return sum(weight[:, j] * x[..., j : j + L, :] for j in range(n))


def _slope_of_signal(dy: Any, weight: Any) -> Any:
    """The convolution with the taps in reverse, zeros around the gradient."""
    n = weight.shape[1] - 1
    around = [(0, 0)] * (dy.ndim - 2) + [(n, n), (0, 0)]
    return _weighted(jnp.pad(dy, around), jnp.flip(weight, 1))


def _slope_of_weight(dy: Any, x: Any) -> Any:
    L, steps = dy.shape[-2], tuple(range(dy.ndim - 1))
    return jnp.stack([(x[..., j : j + L, :] * dy).sum(steps) for j in range(x.shape[-2] - L + 1)], axis=1)


_weighted = bilinear(
    "short_convolution",
    _plain,
    lambda x, weight: (*x.shape[:-2], x.shape[-2] - weight.shape[1] + 1, x.shape[-1]),
    _slope_of_signal,
    _slope_of_weight,
)
