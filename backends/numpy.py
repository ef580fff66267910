"""Fast twins for NumPy: loops over time with vectors as wide as the other axes, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import numpy as compat

NARROW = 2048  # numbers a step below which a loop over time costs more than its arithmetic
NAMESPACE = compat
TWINS = ("linear_scan",)


def devices() -> str:
    """Where it computes."""
    return "cpu"


def is_traced(x: Any) -> bool:
    """NumPy computes at once."""
    return False


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """x_k = a_k x_{k-1} + b_k, one multiply and one add a step into the result."""
    out = np.empty(b.shape, dtype=b.dtype)
    if b.size == 0:
        return out
    gates, drives, states = (np.moveaxis(x, axis, 0) for x in (a, b, out))
    if b.ndim == 1:
        gates, drives, states = gates[:, None], drives[:, None], states[:, None]
    if reverse:
        gates, drives, states = gates[::-1], drives[::-1], states[::-1]
    x = np.zeros(drives.shape[1:], dtype=b.dtype) if initial is None else initial
    length = len(drives)
    width = b.size // length
    if width < NARROW and length >= 64:
        _scan_in_blocks(gates, drives, x, states)
    else:
        _scan(gates, drives, x, states)
    return out


def _scan(gates: Any, drives: Any, x: Any, states: Any) -> None:
    constant = len(gates) == 1
    for k in range(len(drives)):
        np.multiply(gates[0 if constant else k], x, out=states[k])
        x = np.add(states[k], drives[k], out=states[k])


def _scan_in_blocks(gates: Any, drives: Any, x: Any, states: Any) -> None:
    """A blocks of T steps at once, from zero; then the carries; then the carries' share of every step."""
    length = len(drives)
    T = max(1, round(length**0.5))
    A = length // T
    blocks = np.ascontiguousarray(drives[: A * T].reshape(A, T, *drives.shape[1:]).swapaxes(0, 1))
    constant = len(gates) == 1
    factors = gates[:, None] if constant else gates[: A * T].reshape(A, T, *gates.shape[1:]).swapaxes(0, 1)
    local = np.empty_like(blocks)
    _scan(factors, blocks, np.zeros(blocks.shape[1:], blocks.dtype), local)
    products = np.empty((T, *np.broadcast_shapes(factors.shape[1:], (1,) * blocks[0].ndim)), dtype=blocks.dtype)
    products[0] = factors[0]
    for t in range(1, T):
        np.multiply(products[t - 1], factors[0 if constant else t], out=products[t])
    carries = np.empty_like(local[-1])
    for block in range(A):
        carries[block] = x
        through = products[-1, 0 if constant else block]
        x = local[-1, block] + np.where(x == 0, 0, through * x)  # 0, where a product overflowed
    for block in range(A):
        share = products[:, 0 if constant else block] * carries[block]
        rows = slice(block * T, (block + 1) * T)
        np.add(local[:, block], share, out=states[rows])
    if length > A * T:
        _scan(gates if constant else gates[A * T :], drives[A * T :], x, states[A * T :])
