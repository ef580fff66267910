"""The layers as plain loops over time in NumPy float64; of ssm_core only the names of options and parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import truth

Array = np.ndarray
erf = np.vectorize(math.erf, otypes=[float])

ACTIVATIONS: dict[Any, Any] = {
    "gelu": lambda v: v / 2 * (1 + erf(v / math.sqrt(2))),
    "gelu_tanh": lambda v: v / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    "silu": lambda v: v / (1 + np.exp(-v)),
    "relu": lambda v: np.maximum(v, 0),
    "tanh": np.tanh,
    None: lambda v: v,
}


def s4d(
    options: dict[str, Any],
    params: dict[str, Array],
    u: Array,
    state: Array | None = None,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
    rate: Any = 1.0,
    step_scale: Array | None = None,
) -> tuple[Array, Array]:
    """y (B, L, ...) and the last state (B, H, N) for u (B, L, H), step by step."""
    A, B, C = _system(options, params)
    batch, L, H = u.shape
    x = np.zeros((batch, H, A.shape[-1]), dtype=A.dtype) if state is None else state
    rows = []
    for k in range(L):
        dt = np.exp(params["log_dt"]) * rate * (1.0 if step_scale is None else step_scale[:, k, None])
        Ab, gain = truth.discretize_poles(A, dt[..., None], options["discretization"])
        before = x if reset is None else np.where(reset[:, k, None, None], 0, x)
        after = Ab * before + gain * B * u[:, k, :, None]
        x = after if lengths is None else np.where((k < lengths)[:, None, None], after, x)
        rows.append(_observed(options, C, after))
    return mixed(options, params, np.stack(rows, axis=1), u), x


def s4d_bidirectional(
    options: dict[str, Any], params: dict[str, Array], u: Array, lengths: Array | None = None
) -> Array:
    """The first half of C on the past and the present, the second on the future from the next sample on."""
    A, B, C = _system(options, params)
    L = u.shape[1]
    u = u if lengths is None else np.where((np.arange(L) < lengths[:, None])[..., None], u, 0)
    Ab, gain = truth.discretize_poles(A, np.exp(params["log_dt"])[:, None], options["discretization"])
    taps = [_observed(options, C, Ab**k * gain * B) for k in range(L)]  # (rows, H) each
    v = np.zeros((u.shape[0], L, options["channels"], u.shape[2]))
    for t in range(L):
        for j in range(L):
            K = taps[t - j][: options["channels"]] if j <= t else taps[j - t - 1][options["channels"] :]
            v[:, t] += K * u[:, j, None, :]
    return mixed(options, params, v, u)


def _system(options: dict[str, Any], params: dict[str, Array]) -> tuple[Array, Array, Array]:
    """poles and B (H, N), copy h mod S for channel h; C (rows, H, N)."""
    i = 0.0 if options["real"] else 1j
    A = -np.exp(params["log_A_re"]) + i * params.get("A_im", 0.0)
    B = params["B_re"] + i * params.get("B_im", 0.0) if options["trainable_B"] else np.ones_like(A)
    copy = np.arange(options["d_model"]) % len(A)
    return A[copy], B[copy], params["C_re"] + i * params.get("C_im", 0.0)


def _observed(options: dict[str, Any], C: Array, x: Array) -> Array:
    """C x for states (..., H, N): (..., rows, H); 2 Re of it for pairs."""
    y = np.sum(C * x[..., None, :, :], axis=-1)
    return y if options["real"] else 2 * y.real


def mixed(options: dict[str, Any], params: dict[str, Array], v: Array, u: Array) -> Array:
    """activation(v + D u), channels joined, through the output map; v (B, L, channels, H)."""
    v = v + params["D"] * u[:, :, None, :] if options["skip"] else v
    passed = v.reshape(*v.shape[:2], -1)
    v = ACTIVATIONS[options["activation"]](passed)
    if options["output"] is None:
        return v
    w = v @ params["output_weight"].T + params["output_bias"]
    if options["output"] in ("half_glu", "half_glu2"):
        return (v if options["output"] == "half_glu" else passed) / (1 + np.exp(-w))
    v, half = w, options["d_model"]
    return v[..., :half] / (1 + np.exp(-v[..., half:])) if options["output"] == "glu" else v


def sequence_model(
    options: dict[str, Any], block: dict[str, Any], params: dict[str, Array], u: Array, lengths: Array | None = None
) -> Array:
    """Encoder, residual blocks, pooling and head."""
    x = u @ params["encoder.weight"].T + params["encoder.bias"]
    for i in range(options["n_layers"]):
        prefix = f"blocks.{i}."
        own = {name.removeprefix(prefix): p for name, p in params.items() if name.startswith(prefix)}
        centered = x - x.mean(-1, keepdims=True)
        normed = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
        normed = normed * own["norm.weight"] + own["norm.bias"]
        inner = {name.removeprefix("layer."): p for name, p in own.items() if name.startswith("layer.")}
        x = x + s4d(block, inner, normed, lengths=lengths)[0]
    valid = np.full(len(u), u.shape[1]) if lengths is None else lengths
    if options["pool"] == "mean":
        x = np.stack([row[:n].mean(0) for row, n in zip(x, valid, strict=True)])
    elif options["pool"] == "last":
        x = np.stack([row[n - 1] for row, n in zip(x, valid, strict=True)])
    return x @ params["head.weight"].T + params["head.bias"]
