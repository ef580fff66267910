"""The gated delta rule as a plain loop: the step once, for the function and for the layers built on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .gated import Array, normed, of_heads, sequences, silu, tap

MANY = ("k", "v", "beta", "erase", "write", "a", "b")


def delta_step(
    S: Array,
    k: Array,
    v: Array,
    g: Any = 0.0,
    beta: Any = 1.0,
    *,
    erase: Any = 1.0,
    write: Any = 1.0,
    a: Array | None = None,
    b: Array | None = None,
) -> Array:
    """The state (H, K, V) after one step of heads: keys (H, K), values (H, V), g (H, K) or (H, 1), beta (H,)."""
    decayed = np.exp(np.broadcast_to(g, (len(k), k.shape[-1] if np.ndim(g) else 1)))[..., None] * S
    beta = np.broadcast_to(beta, len(k))[:, None]
    read = np.einsum("hkv,hk->hv", decayed if a is None else S, erase * k if a is None else a)
    if b is not None:
        return decayed + b[..., None] * read[:, None, :] + (beta * k)[..., None] * (write * v)[:, None, :]
    return decayed + (beta * k)[..., None] * (write * v - read)[:, None, :]


def gated_delta(v: SimpleNamespace, return_state: bool = False, chunk: int = 0, scale: float | None = None) -> Any:
    (batch, L), (H, V), K = v.v.shape[:2], v.v.shape[-2:], v.k.shape[-1]
    g = getattr(v, "log_decay", np.zeros((H, 1)))
    g = np.broadcast_to(g, (batch, L, *g.shape)) if g.ndim < 3 else g
    g = g if g.ndim == 4 else g[..., None]
    scale = K**-0.5 if scale is None else scale
    several = v.v.ndim == 5
    y, states = np.zeros((batch, L, H, V)), []
    cuts = getattr(v, "lengths", None), getattr(v, "cu_seqlens", None)
    for at, (row, steps) in enumerate(sequences(batch, L, *cuts)):
        S = v.initial[at] if hasattr(v, "initial") else np.zeros((H, K, V))
        for t in steps:
            S = np.zeros_like(S) if hasattr(v, "reset") and v.reset[row, t] else S
            here = {n: getattr(v, n)[row, t] for n in MANY if hasattr(v, n)}
            for j in range(v.v.shape[2] if several else 1):
                now = {n: x[j] for n, x in here.items()} if several else here
                now = {n: of_heads(x, H) if len(x) < H else x for n, x in now.items()}
                S = delta_step(S, g=0.0 if j else g[row, t], **now)
            y[row, t] = scale * np.einsum("hk,hkv->hv", of_heads(v.q[row, t], H), S)
        states.append(S)
    return (y, np.stack(states)) if return_state else y


def convolved(params: dict[str, Array], u: Array, state: tuple[Array, ...]) -> tuple[list[Array], list[Array]]:
    """silu(conv(W u)) of q, k and v, and the last inputs of the convolutions."""
    found, inputs = [], []
    for name, window in zip("qkv", state, strict=True):
        bias = params.get(f"{name}_conv1d_bias", 0.0)
        x, window = tap(window, params[f"{name}_proj_weight"] @ u, params[f"{name}_conv1d_weight"], bias)
        found.append(silu(x))
        inputs.append(window)
    return found, inputs


def of_norm_one(x: Array) -> Array:
    return x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True) + 1e-6)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gated_norm(params: dict[str, Array], y: Array, gate: Any, epsilon: float) -> Array:
    """W_o (n(y) gate) of heads (H, V)."""
    y = (normed(y, epsilon) * params["o_norm_weight"]).reshape(-1)
    return params["o_proj_weight"] @ (y * gate)


def sizes(options: dict[str, Any]) -> tuple[int, int, int, int]:
    """Heads of q and k, heads of v, K and V of layers whose values are grouped."""
    heads, K = options["heads"], options["head_dim"]
    return heads, options["num_v_heads"] or heads, K, int(options["expand_v"] * K)


def shapes(options: dict[str, Any], substeps: int = 1) -> tuple[tuple[int, ...], ...]:
    """Of their states."""
    (G, H, K, V), taps = sizes(options), options["d_conv"] - 1
    return (G * K, taps), (substeps * G * K, taps), (substeps * H * V, taps), (H, K, V)


def read(S: Array, q: Array) -> Array:
    return q.shape[-1] ** -0.5 * np.einsum("hk,hkv->hv", q, S)
