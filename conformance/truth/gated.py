"""Recurrences whose steps depend on the input: each step once, for the functions and for the layers built on them.

A step takes what one sequence has at one time; the functions run it over all of them. Inputs come by the names of the
arguments, and what is left out is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = np.ndarray
MAMBA3_STATE = ("t", "S", "K", "before")


def sequences(batch: int, length: int, lengths: Any = None, cu_seqlens: Any = None) -> Iterator[tuple[int, range]]:
    """The row and the steps of every sequence, in the order of the states."""
    if cu_seqlens is not None:
        yield from ((0, range(start, stop)) for start, stop in pairwise(np.asarray(cu_seqlens).astype(int)))
    else:
        stops = [length] * batch if lengths is None else np.asarray(lengths).astype(int)
        yield from ((i, range(stop)) for i, stop in enumerate(stops))


def _sequences(v: SimpleNamespace, batch: int, length: int) -> Iterator[tuple[int, range]]:
    return sequences(batch, length, getattr(v, "lengths", None), getattr(v, "cu_seqlens", None))


def _resets(v: SimpleNamespace, row: int, k: int) -> bool:
    return hasattr(v, "reset") and bool(v.reset[row, k])


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


# Mamba ---------------------------------------------------------------------------------------------------------------


def selective_step(
    x: Array, u: Array, dt: Array, A: Array, B: Array, C: Array, discretization: str = "mamba"
) -> tuple[Array, Array]:
    """x = exp(dt A) x + gain B u, y = C x for channels (H,) with states (H, N); 2 Re of it for complex ones.

    The trapezoidal rule keeps B u of the step before behind the states, and enters half of either.
    """
    N, dt = A.shape[-1], dt[:, None]
    w, entering = dt * A, B * u[:, None]
    if discretization == "trapezoidal":
        x = np.concatenate([np.exp(w) * (x[:, :N] + dt / 2 * x[:, N:]) + dt / 2 * entering, entering], axis=-1)
    else:
        gain = dt if discretization == "mamba" else np.expm1(w) / A
        x = np.exp(w) * x + gain * entering
    output = np.sum(C * x[:, :N], axis=-1)
    return (2 * output.real if np.iscomplexobj(output) else output), x


def selective_scan(v: SimpleNamespace, dt_softplus: bool = False, discretization: str = "mamba") -> tuple[Array, Array]:
    dt = v.dt + (v.dt_bias[:, None] if hasattr(v, "dt_bias") else 0.0)
    dt = softplus(dt) if dt_softplus else dt
    (batch, H, L), N = v.u.shape, v.A.shape[-1]
    width = N * (2 if discretization == "trapezoidal" else 1)
    y, states = np.zeros(v.u.shape), []
    for i, (row, steps) in enumerate(_sequences(v, batch, L)):
        x = v.initial[i] if hasattr(v, "initial") else np.zeros((H, width), v.A.dtype)
        for k in steps:
            x = np.zeros_like(x) if _resets(v, row, k) else x
            B, C = (_at(rows, row, k, H) for rows in (v.B, v.C))
            y[row, :, k], x = selective_step(x, v.u[row, :, k], dt[row, :, k], v.A, B, C, discretization)
        states.append(x)
    y = y + v.D[:, None] * v.u if hasattr(v, "D") else y
    return (y * silu(v.z) if hasattr(v, "z") else y), np.stack(states)


def _at(rows: Array, row: int, k: int, H: int) -> Array:
    """The rows of step k for every channel: broadcasts to (H, N)."""
    if rows.ndim == 4:
        return of_heads(rows[row, ..., k], H)
    return rows[row, None, :, k] if rows.ndim == 3 else rows


# The dual of Mamba-2 -------------------------------------------------------------------------------------------------


def ssd_step(S: Array, x: Array, dt: Array, A: Array, B: Array, C: Array) -> tuple[Array, Array]:
    """S = exp(dt A) S + dt x B^T, y = S C for heads: S (H, P, N), x (H, P), dt and A (H,), B and C (H, N)."""
    S = np.exp(dt * A)[:, None, None] * S + (dt[:, None] * x)[..., None] * B[:, None, :]
    return np.einsum("hpn,hn->hp", S, C), S


def ssd(
    v: SimpleNamespace,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, np.inf),
    return_state: bool = False,
    chunk: int = 0,
) -> Any:
    dt = v.dt + getattr(v, "dt_bias", 0.0)
    dt = np.clip(softplus(dt) if dt_softplus else dt, *dt_limit)
    (batch, L, H, P), N = v.x.shape, v.B.shape[-1]
    A, y, states = np.broadcast_to(v.A, dt.shape), np.zeros(v.x.shape), []
    for i, (row, steps) in enumerate(_sequences(v, batch, L)):
        S = v.initial[i] if hasattr(v, "initial") else np.zeros((H, P, N))
        for k in steps:
            S = np.zeros_like(S) if _resets(v, row, k) else S
            B, C = (of_heads(rows[row, k], H) for rows in (v.B, v.C))
            y[row, k], S = ssd_step(S, v.x[row, k], dt[row, k], A[row, k], B, C)
        states.append(S)
    if hasattr(v, "D"):
        y = y + (v.D if v.D.ndim == 2 else v.D[:, None]) * v.x
    y = y * silu(v.z) if hasattr(v, "z") else y
    return (y, np.stack(states)) if return_state else y


def selective_state_update(v: SimpleNamespace, dt_softplus: bool = False) -> tuple[Array, Array]:
    """One step for every batch, head and feature by itself."""
    (batch, H, P), G = v.x.shape, v.B.shape[1]
    y, states = np.zeros(v.x.shape), np.zeros(v.state.shape)
    D, bias = (np.broadcast_to(np.reshape(getattr(v, n, np.zeros(H)), (H, -1)), (H, P)) for n in ("D", "dt_bias"))
    A = np.broadcast_to(np.reshape(v.A, (H, 1, 1)) if v.A.ndim == 1 else v.A, v.state.shape[1:])
    for b, h, p in np.ndindex(batch, H, P):
        dt = v.dt[b, h, p] + bias[h, p]
        dt = softplus(dt) if dt_softplus else dt
        group = h // (H // G)
        S = np.exp(dt * A[h, p]) * v.state[b, h, p] + dt * v.x[b, h, p] * v.B[b, group]
        states[b, h, p], y[b, h, p] = S, S @ v.C[b, group] + D[h, p] * v.x[b, h, p]
    return (y * silu(v.z) if hasattr(v, "z") else y), states


# Mamba-3 -------------------------------------------------------------------------------------------------------------


def turned(rows: Array, t: Array) -> Array:
    """rows (H, R, N) with their first pairs turned by t (H, M)."""
    rows = rows.copy()
    for m in range(t.shape[1]):
        pair = (rows[..., 2 * m] + 1j * rows[..., 2 * m + 1]) * np.exp(1j * t[:, m])[:, None]
        rows[..., 2 * m], rows[..., 2 * m + 1] = pair.real, pair.imag
    return rows


def mamba3_step(
    state: tuple[Array, ...], x: Array, dt: Array, A: Array, trap: Array, speed: Array, B: Array, C: Array
) -> tuple[Array, tuple[Array, ...]]:
    """S = a (S + (1 - l) dt sum_r x'_r K'_r^T) + l dt sum_r x_r K_r^T, with x' and K' those of the step before.

    The state (t (H, M), S (H, P, N), K (H, R, N), x' (H, R, P)); x (H, R, P), dt, A and trap (H,), speed (H, M),
    B and C (H, R, N), which are turned by t here. y (H, R, P).
    """
    t, S, K, before = state
    own, at = 1 / (1 + np.exp(-trap))[:, None, None], dt[:, None, None]
    t = t + speed * dt[:, None]
    late = np.einsum("hrp,hrn->hpn", before, K)
    K, Q = turned(B, t), turned(C, t)
    S = np.exp(at * A[:, None, None]) * (S + (1 - own) * at * late) + own * at * np.einsum("hrp,hrn->hpn", x, K)
    return np.einsum("hpn,hrn->hrp", S, Q), (t, S, K, x)


def mamba3_scan(v: SimpleNamespace, return_state: bool = False, chunk: int = 0) -> Any:
    several, M = v.B.ndim == 5, v.angles.shape[-1]
    (batch, L, H, P), N = v.x.shape, v.B.shape[-1]
    # Everything with its rank: (batch, L, H, R, P) of inputs and gates, (H, R, P) of maps, (H, R, N) of biases.
    x_map, out_map = (getattr(v, n) if several else np.ones((H, 1, P)) for n in ("x_map", "out_map"))
    R = x_map.shape[1]
    x = v.x[:, :, :, None, :] * x_map
    rows = [np.reshape(m, (*m.shape[:2], R, -1, N)) for m in (v.B, v.C)]
    B, C = (np.moveaxis(np.repeat(m, H // m.shape[3], axis=3), 2, 3) for m in rows)
    B, C = (m + np.reshape(getattr(v, b, np.zeros(N)), (-1, R if hasattr(v, b) else 1, N)) for m, b in
            ((B, "B_bias"), (C, "C_bias")))  # fmt: skip
    gate = silu(v.z[:, :, :, None, :] * (v.z_map if several else 1)) if hasattr(v, "z") else np.ones_like(x)
    D, A = getattr(v, "D", np.zeros(H))[:, None, None], np.broadcast_to(v.A, v.dt.shape)
    speed = np.pi * np.tanh(np.broadcast_to(v.angles, (*v.dt.shape, M)))
    sizes = ((H, M), (H, P, N), (H, R, N), (H, R, P))
    y, states = np.zeros(v.x.shape), []
    for i, (row, steps) in enumerate(_sequences(v, batch, L)):
        zero = tuple(np.zeros(size) for size in sizes)
        now = zero
        if hasattr(v, "S"):
            now = tuple(np.reshape(getattr(v, n)[i], size) for n, size in zip(MAMBA3_STATE, sizes, strict=True))
        for k in steps:
            now = zero if _resets(v, row, k) else now
            given = (x[row, k], v.dt[row, k], A[row, k], v.trap[row, k], speed[row, k], B[row, k], C[row, k])
            outputs, now = mamba3_step(now, *given)
            y[row, k] = np.sum((outputs + D * x[row, k]) * gate[row, k] * out_map, axis=1)
        t, S, K, before = now
        ranked = slice(None) if several else 0
        states.append((np.mod(t, 2 * np.pi), S, K[:, ranked], before[:, ranked]))
    return (y, tuple(np.stack(parts) for parts in zip(*states, strict=True))) if return_state else y


# Short convolutions and norms ----------------------------------------------------------------------------------------


def tap(window: Array, u: Array, weight: Array, bias: Any = 0.0) -> tuple[Array, Array]:
    """One step of a causal convolution, and the K - 1 inputs before the next: window (H, K - 1), u (H,)."""
    window = np.concatenate([window, u[:, None]], axis=1)
    return np.sum(weight * window, axis=1) + bias, window[:, 1:]


def causal_conv1d(v: SimpleNamespace, return_state: bool = False) -> Any:
    (H, K), (batch, _, L) = v.weight.shape, v.u.shape
    y, states = np.zeros(v.u.shape), []
    for row, steps in _sequences(v, batch, L):
        window = v.initial[row] if hasattr(v, "initial") else np.zeros((H, K - 1))
        for k in steps:
            window = np.zeros_like(window) if _resets(v, row, k) else window
            y[row, :, k], window = tap(window, v.u[row, :, k], v.weight, getattr(v, "bias", 0.0))
        states.append(window)
    return (y, np.stack(states)) if return_state else y


def rms_norm(v: SimpleNamespace, groups: int = 1, epsilon: float = 1e-5, gate_first: bool = True) -> Array:
    gate = silu(v.gate) if hasattr(v, "gate") else np.ones(v.x.shape)
    x = v.x * gate if gate_first else v.x
    y = np.reshape(normed(np.reshape(x, (*x.shape[:-1], groups, -1)), epsilon), x.shape)
    return y * getattr(v, "weight", 1.0) * (1 if gate_first else gate)
