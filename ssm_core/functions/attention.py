"""Softmax attention where it is said what may be seen."""

from __future__ import annotations

import math

from .._arrays.dispatch import dispatched
from .._arrays.library import Array, namespace


@dispatched
def _attention(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """y_i = sum_j softmax_j(q_i . k_j / sqrt(D)) v_j over the j that are seen.

    q (batch, L, heads, D); k, v (batch, S, groups, D), a group for heads / groups neighboring heads; seen bool
    (batch, L, S), with something to be seen from every i. Returns (batch, L, heads, D).
    """
    xp = namespace("attention", q=q)
    batch, L, heads, D = q.shape
    groups = k.shape[2]
    q = xp.permute_dims(xp.reshape(q / math.sqrt(D), (batch, L, groups, heads // groups, D)), (0, 2, 3, 1, 4))
    k, v = (xp.permute_dims(x, (0, 2, 1, 3))[:, :, None, ...] for x in (k, v))
    scores = xp.matmul(q, xp.matrix_transpose(k))
    scores = xp.where(seen[:, None, None, ...], scores, xp.full_like(scores, -math.inf))
    weights = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    y = xp.matmul(weights / xp.sum(weights, axis=-1, keepdims=True), v)
    return xp.reshape(xp.permute_dims(y, (0, 3, 1, 2, 4)), (batch, L, heads, D))
