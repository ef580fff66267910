"""Gated linear attention as a plain loop: the step once, for the function and for the layers built on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .gated import Array, of_heads, sequences

Memory = tuple[Array, Array, Array]  # S (H, K, V), n (H, K), m (H,)


def nothing(H: int, K: int, V: int) -> Memory:
    return np.zeros((H, K, V)), np.zeros((H, K)), np.zeros(H)


def decay_step(
    memory: Memory,
    q: Array,
    k: Array,
    v: Array,
    g: Array,
    i: Any = 0.0,
    *,
    bonus: Any = None,
    exclusive: bool = False,
    normalize: str | None = None,
    epsilon: float = 1e-6,
    scale: float | None = None,
) -> tuple[Array, Memory]:
    """One step of heads: q and k (H, K), v (H, V), g (H,) or (H, K), i (H,)."""
    before, n, m = memory
    scale = k.shape[-1] ** -0.5 if scale is None else scale
    gate, i = np.reshape(g, (len(k), -1)), np.broadcast_to(i, len(k))
    if normalize == "max":
        now = np.maximum(gate[:, 0] + m, i)
        gate, i, m = gate + (m - now)[:, None], i - now, now
    k_in = np.exp(i)[:, None] * k
    S = np.exp(gate)[..., None] * before + k_in[..., None] * v[:, None, :]
    n = np.exp(gate) * n + k_in
    y = scale * np.einsum("hk,hkv->hv", q, before if exclusive else S)
    if bonus is not None:
        y = y + scale * np.sum(q * bonus * k_in, axis=-1, keepdims=True) * v
    norm = scale * np.sum(q * n, axis=-1, keepdims=True)
    if normalize == "sum":
        y = y / (norm + epsilon)
    if normalize == "max":
        y = y / (np.maximum(np.abs(norm), np.exp(-m)[:, None]) + epsilon)
    return y, (S, n, m)


def gated_linear_attention(v: SimpleNamespace, return_state: bool = False, chunk: int = 0, **options: Any) -> Any:
    (batch, L, H, V), K = v.v.shape, v.k.shape[-1]
    g = getattr(v, "log_decay", np.zeros(H))
    g = np.broadcast_to(g, (batch, L, *g.shape)) if g.ndim < 3 else g
    i = getattr(v, "log_input", np.zeros((batch, L, H)))
    parts = {"sum": 2, "max": 3}.get(options.get("normalize", ""), 1)
    y, states = np.zeros(v.v.shape), []
    cuts = getattr(v, "lengths", None), getattr(v, "cu_seqlens", None)
    for at, (row, steps) in enumerate(sequences(batch, L, *cuts)):
        now = nothing(H, K, V)
        now = tuple(getattr(v, n)[at] if hasattr(v, n) else x for n, x in zip("Snm", now, strict=True))
        for t in steps:
            now = nothing(H, K, V) if hasattr(v, "reset") and v.reset[row, t] else now
            q, k = (of_heads(x[row, t], H) for x in (v.q, v.k))
            one = {"bonus": getattr(v, "bonus", None)} | options
            y[row, t], now = decay_step(now, q, k, v.v[row, t], g[row, t], i[row, t], **one)
        states.append(now[:parts])
    return (y, *(np.stack(x) for x in zip(*states, strict=True))) if return_state else y


def remembered(step: Any, parts: tuple[Array, ...], sizes: tuple[int, int, int], **options: Any) -> tuple[Array, Any]:
    """`decay_step` of as many parts of the memory as a layer keeps; step holds q, k, v, g and what else it takes."""
    whole = (*parts, *nothing(*sizes)[len(parts) :])
    y, now = decay_step(whole, *step, **options)  # type: ignore[arg-type]
    return y, now[: len(parts)]


def elu(x: Array) -> Array:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def standardized(x: Array, epsilon: float) -> Array:
    """Less the mean and over the deviation of the last axis."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
