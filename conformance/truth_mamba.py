"""Mamba, Mamba-2, Mamba-3 and models of them, sequence by sequence and step by step in NumPy float64.

Of ssm_core only the names of options and parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray
States = tuple[Array, ...]
Params = dict[str, Array]


@dataclass(frozen=True)
class Steps:
    """A layer for one sequence: advance(u (H,), state, scale of dt) -> (y (H,), state), and the shapes of the state."""

    advance: Callable[[Array, States, float], tuple[Array, States]]
    shapes: tuple[tuple[int, ...], ...]


def run(
    name: str,
    options: dict[str, Any],
    params: Params,
    u: Array,
    state: States | None = None,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
    rate: float = 1.0,
    step_scale: Array | None = None,
) -> tuple[Array, States]:
    """y (B, L, H), zero beyond the lengths, and the last states."""
    steps = LAYERS[name](options, params)
    y, last = np.zeros(u.shape), []
    for i in range(len(u)):
        zero = tuple(np.zeros(shape) for shape in steps.shapes)
        now = zero if state is None else tuple(s[i] for s in state)
        for k in range(u.shape[1] if lengths is None else int(lengths[i])):
            now = zero if reset is not None and reset[i, k] else now
            y[i, k], now = steps.advance(u[i, k], now, rate * (1.0 if step_scale is None else step_scale[i, k]))
        last.append(now)
    shapes = zip(range(len(steps.shapes)), steps.shapes, strict=True)
    return y, tuple(np.reshape([now[j] for now in last], (len(u), *shape)) for j, shape in shapes)


def packed(
    name: str, options: dict[str, Any], params: Params, u: Array, ends: Array, state: States | None = None, **more: Any
) -> tuple[Array, States]:
    """u (1, L, H): one sequence after another, each by itself."""
    scale, found = more.pop("step_scale", None), []
    for i, (start, stop) in enumerate(pairwise(ends)):
        part = (slice(None), slice(start, stop))
        first = None if state is None else tuple(s[i : i + 1] for s in state)
        own = None if scale is None else scale[part]
        found.append(run(name, options, params, u[part], first, step_scale=own, **more))
    states = zip(*(last for _, last in found), strict=True)
    return np.concatenate([y for y, _ in found], axis=1), tuple(np.concatenate(s) for s in states)


def mamba(options: dict[str, Any], params: Params) -> Steps:
    """h, g = W_in u; h = silu(conv(h)); r, B, C = W_x h; x = exp(dt A) x + dt B h; y = W_out ((C x + D h) silu(g))."""
    inner, N, K = options["expand"] * options["d_model"], options["d_state"], options["d_conv"]
    rank, A = params["dt_proj_weight"].shape[1], -np.exp(params["A_log"])

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        window, x = state
        h, gate = np.split(_map(params, "in_proj_", u), [inner])
        h, window = _convolved(params, h, window)
        h = silu(h)
        parts = np.split(params["x_proj_weight"] @ h, [rank, rank + N])
        if options["norm_epsilon"] is not None:
            parts = [normed(part, options["norm_epsilon"]) for part in parts]
        r, B, C = parts
        dt = scale * softplus(params["dt_proj_weight"] @ r + params["dt_proj_bias"])[:, None]
        held = np.expm1(dt * A) / A if options["discretization"] == "zoh" else dt
        x = np.exp(dt * A) * x + held * B * h[:, None]
        return _map(params, "out_proj_", (x @ C + params["D"] * h) * silu(gate)), (window, x)

    return Steps(advance, ((inner, K - 1), (inner, N)))


def mamba2(options: dict[str, Any], params: Params) -> Steps:
    """z, v, r = W_in u; x, B, C = silu(conv(v)); S = exp(dt A) S + dt x B^T; y = W_out n((S C + D x) silu(z))."""
    inner, P, N = options["expand"] * options["d_model"], options["head_dim"], options["d_state"]
    heads, G, K = inner // P, options["n_groups"], options["d_conv"]
    convolved, A = inner + 2 * G * N, -np.exp(params["A_log"])

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        window, S = state
        z, v, r = np.split(_map(params, "in_proj_", u), [inner, inner + convolved])
        v, window = _convolved(params, v, window)
        x, B, C = np.split(silu(v), [inner, inner + G * N])
        x = x.reshape(heads, P)
        B, C = (of_heads(rows.reshape(G, N), heads) for rows in (B, C))
        dt = scale * np.clip(softplus(r + params["dt_bias"]), *options["dt_limit"])[:, None, None]
        S = np.exp(dt * A[:, None, None]) * S + dt * x[:, :, None] * B[:, None, :]
        y = np.sum(S * C[:, None, :], axis=-1) + params["D"][:, None] * x
        y = normed((y.reshape(-1) * silu(z)).reshape(G, -1), options["epsilon"]).reshape(-1)
        return _map(params, "out_proj_", params["norm_weight"] * y), (window, S)

    return Steps(advance, ((convolved, K - 1), (heads, P, N)))


def mamba3(options: dict[str, Any], params: Params) -> Steps:
    """S = a (S + (1 - l) dt sum_r x'_r K'_r^T) + l dt sum_r x_r K_r^T, with x' and K' those of the step before."""
    inner, P, N = options["expand"] * options["d_model"], options["head_dim"], options["d_state"]
    heads, G, R = inner // P, options["n_groups"], options["rank"]
    M = math.floor(options["rope_fraction"] * N) // 2
    sizes = (inner, inner, R * G * N, R * G * N, heads, heads, heads, M)
    x_map, z_map, out_map = (params.get(name, np.ones((heads, R, P))) for name in ("x_map", "z_map", "out_map"))

    def rows(v: Array, name: str, turn: Array) -> Array:
        """B or C of all heads (heads, R, N): normalized, biased, the first M pairs turned."""
        v = normed(v.reshape(R, G, N), options["epsilon"]) * params[f"{name}_norm_weight"]
        v = np.stack([of_heads(m, heads) for m in v], axis=1) + params[f"{name}_bias"]
        for m in range(M):
            first, second = v[..., 2 * m].copy(), v[..., 2 * m + 1].copy()
            cos, sin = np.cos(turn[:, m, None]), np.sin(turn[:, m, None])
            v[..., 2 * m], v[..., 2 * m + 1] = first * cos - second * sin, first * sin + second * cos
        return v

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        turn, S, K_before, x_before = state
        K_before, x_before = np.swapaxes(K_before, 0, 1), np.swapaxes(x_before, 0, 1)
        z, x, B, C, r, a, trap, angles = np.split(params["in_proj_weight"] @ u, np.cumsum(sizes)[:-1])
        dt = scale * softplus(r + params["dt_bias"])[:, None, None]
        decay = np.asarray([1 + s if s >= 0 else 1 / (1 - s) for s in a])
        gate = np.exp(-dt * np.maximum(decay, options["A_floor"])[:, None, None])
        own = 1 / (1 + np.exp(-trap))[:, None, None]
        turn = turn + math.pi * np.tanh(angles) * dt[:, 0]
        K, Q = rows(B, "B", turn), rows(C, "C", turn)
        x = x.reshape(heads, 1, P) * x_map
        late, now = (np.einsum("hrp,hrn->hpn", *pair) for pair in ((x_before, K_before), (x, K)))
        S = gate * (S + (1 - own) * dt * late) + own * dt * now
        y = np.einsum("hpn,hrn->hrp", S, Q) + params["D"][:, None, None] * x
        if options["out_norm"]:
            y = normed(y, options["epsilon"]) * params["norm_weight"].reshape(heads, 1, P)
        y = np.sum(y * silu(z.reshape(heads, 1, P) * z_map) * out_map, axis=1)
        after = (np.mod(turn, 2 * math.pi), S, np.swapaxes(K, 0, 1), np.swapaxes(x, 0, 1))
        return params["out_proj_weight"] @ y.reshape(-1), after

    return Steps(advance, ((heads, M), (heads, P, N), (R, heads, N), (R, heads, P)))


LAYERS: dict[str, Callable[[dict[str, Any], Params], Steps]] = {"Mamba": mamba, "Mamba2": mamba2, "Mamba3": mamba3}


# Models --------------------------------------------------------------------------------------------------------------


def language_model(
    layer: str, options: dict[str, Any], block: dict[str, Any], params: Params, ids: Array, **more: Any
) -> tuple[Array, tuple[States, ...]]:
    """Logits (B, L, V) and the states of the blocks."""
    table, epsilon = params["backbone.embeddings.weight"], options["epsilon"]
    x, states = table[ids.astype(int)], []
    for i in range(options["n_layers"]):
        prefix = f"backbone.layers.{i}."
        inner = _under(params, f"{prefix}mixer.")
        y, last = run(layer, block, inner, normed(x, epsilon) * params[f"{prefix}norm.weight"], **more)
        x = x + y
        states.append(last)
    x = normed(x, epsilon) * params["backbone.norm_f.weight"]
    return x @ (table if options["tied"] else params["lm_head.weight"]).T, tuple(states)


def sequence_model(
    options: dict[str, Any], block: dict[str, Any], params: Params, u: Array, lengths: Array | None = None
) -> Array:
    """Encoder, residual blocks with layer norms, pooling and head."""
    x = _map(params, "encoder.", u)
    for i in range(options["n_layers"]):
        centered = x - x.mean(-1, keepdims=True)
        own = _under(params, f"blocks.{i}.")
        z = normed(centered, 1e-5) * own["norm.weight"] + own["norm.bias"]
        x = x + run(options["layer"], block, _under(own, "layer."), z, lengths=lengths)[0]
    stops = [u.shape[1]] * len(u) if lengths is None else lengths
    pools: dict[Any, Any] = {"mean": lambda row: row.mean(0), "last": lambda row: row[-1]}
    if options["pool"] is not None:
        x = np.stack([pools[options["pool"]](row[:n]) for row, n in zip(x, stops, strict=True)])
    return _map(params, "head.", x)


# Parts ---------------------------------------------------------------------------------------------------------------


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


def normed(x: Array, epsilon: float) -> Array:
    """Over the root mean square of the last axis."""
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + epsilon)


def of_heads(rows: Array, heads: int) -> Array:
    """(G, N) for all heads: head h is of group h // (heads / G)."""
    return rows[np.arange(heads) // (heads // len(rows))]


def _map(params: Params, prefix: str, x: Array) -> Array:
    return x @ params[f"{prefix}weight"].T + params.get(f"{prefix}bias", 0.0)


def _convolved(params: Params, h: Array, window: Array) -> tuple[Array, Array]:
    """One step of the causal convolution, and the K - 1 inputs to come before the next."""
    window = np.concatenate([window, h[:, None]], axis=1)
    return np.sum(params["conv_weight"] * window, axis=1) + params.get("conv_bias", 0.0), window[:, 1:]


def _under(params: Params, prefix: str) -> Params:
    return {name.removeprefix(prefix): p for name, p in params.items() if name.startswith(prefix)}
