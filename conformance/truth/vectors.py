"""Recurrences of real vectors with gates: HGRN, RG-LRU and RWKV-4, each step once, for the functions and the layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .gated import _resets, _sequences, softplus

Array = np.ndarray
SUMS = ("num", "den", "max")


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def rg_lru_step(h: Array, begun: Any, x: Array, i: Array, r: Array, Lambda: Array) -> tuple[Array, Array]:
    """h = a h + sqrt(1 - a^2) sigmoid(i) x, without the factors where it begins; and that it has begun."""
    a = np.exp(-8 * sigmoid(r) * softplus(Lambda))
    h = sigmoid(i) * x if begun == 0 else a * h + np.sqrt(1 - a**2) * sigmoid(i) * x
    return h, np.ones(())


def rwkv4_step(state: Any, k: Array, v: Array, w: Array, bonus: Array) -> tuple[Array, Any]:
    """A mean of the values so far; sums over e^max, none of them where den is not positive."""
    num, den, top = state
    num, den = (np.where(den > 0, s, 0.0) for s in (num, den))
    before = np.where(den > 0, top, -np.inf)
    m = np.maximum(before, k + bonus)
    kept, new = np.exp(before - m), np.exp(k + bonus - m)
    y = (kept * num + new * v) / (kept * den + new)
    m = np.maximum(before + w, k)
    kept, new = np.exp(before + w - m), np.exp(k - m)
    return y, (kept * num + new * v, kept * den + new, m)


def hgrn(v: SimpleNamespace, return_state: bool = False) -> Any:
    def step(state: Any, row: int, k: int) -> Any:
        h = np.exp(v.log_decay[row, k]) * state[0] + v.x[row, k]
        return h, (h,)

    return _run(v, v.x, ("initial",), step, return_state)


def rg_lru(v: SimpleNamespace, return_state: bool = False) -> Any:
    def step(state: Any, row: int, k: int) -> Any:
        h, begun = rg_lru_step(*state, v.x[row, k], v.input_gate[row, k], v.recurrent_gate[row, k], v.recurrent_param)
        return h, (h, begun)

    held = SimpleNamespace(**vars(v))
    if hasattr(v, "initial"):
        held.begun = np.ones(len(v.initial))
    return _run(held, v.x, ("initial", "begun"), step, return_state)


def rwkv4(v: SimpleNamespace, return_state: bool = False, chunk: int = 0) -> Any:
    def step(state: Any, row: int, k: int) -> Any:
        return rwkv4_step(state, v.k[row, k], v.v[row, k], v.log_decay, v.bonus)

    return _run(v, v.k, SUMS, step, return_state)


def _run(v: SimpleNamespace, x: Array, names: tuple[str, ...], step: Any, return_state: bool) -> Any:
    """y (batch, L, W) and the state, the first array of it where there is one that users see."""
    (batch, L, W), y, states = x.shape, np.zeros(x.shape), []
    zero = tuple(np.zeros(() if name == "begun" else W) for name in names)
    for i, (row, steps) in enumerate(_sequences(v, batch, L)):
        now = tuple(getattr(v, name)[i] for name in names) if hasattr(v, names[0]) else zero
        for k in steps:
            now = zero if _resets(v, row, k) else now
            y[row, k], now = step(now, row, k)
        states.append(now)
    if not return_state:
        return y
    last = tuple(np.stack(parts) for parts in zip(*states, strict=True))
    return y, last if names == SUMS else last[0]
