"""Fast twins for CuPy. Launching a kernel costs more than a step's arithmetic, so loops over time are blocked."""

from __future__ import annotations

from typing import Any

import cupy as cp
from array_api_compat import cupy as compat

NAMESPACE = compat
TWINS = ("linear_scan", "erf")

_erf = cp.ElementwiseKernel("T x", "T y", "y = erf(x)", "ssm_core_erf")


def devices() -> str:
    """Where it can compute; raises ImportError where it cannot."""
    return f"cuda ({cp.cuda.runtime.getDeviceProperties(0)['name'].decode()})"


def is_traced(x: Any) -> bool:
    """CuPy computes at once."""
    return False


def to_numpy(x: Any) -> Any:
    return x.get()


def erf(x: Any) -> Any:
    return _erf(x)


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """x_k = a_k x_{k-1} + b_k in A blocks of T steps: T + A launches instead of A T."""
    gates, drives = cp.moveaxis(a, axis, 0), cp.moveaxis(b, axis, 0)
    if b.size == 0:
        return b.copy()
    if reverse:
        gates, drives = gates[::-1], drives[::-1]
    x = cp.zeros(drives.shape[1:], b.dtype) if initial is None else cp.broadcast_to(initial, drives.shape[1:])
    states = _scan_in_blocks(gates, drives, x)
    return cp.moveaxis(states[::-1] if reverse else states, 0, axis)


def _scan_in_blocks(gates: Any, drives: Any, x: Any) -> Any:
    length, constant = len(drives), len(gates) == 1
    T = max(1, round(length**0.5))
    A = length // T
    states = cp.empty(drives.shape, drives.dtype)
    local = states[: A * T].reshape(A, T, *drives.shape[1:])  # a view: filled in place
    local[...] = drives[: A * T].reshape(local.shape)
    factors = gates[None] if constant else gates[: A * T].reshape(A, T, *gates.shape[1:])
    through = cp.empty((len(factors), T, *gates.shape[1:]), drives.dtype)  # products of the gates of a block
    through[:, 0] = factors[:, 0]
    for t in range(1, T):
        gate = factors[:, 0 if constant else t]
        local[:, t] += gate * local[:, t - 1]
        cp.multiply(through[:, t - 1], gate, out=through[:, t])
    for block in range(A):
        share = through[0 if constant else block] * x
        local[block] += cp.where(x == 0, 0, share)  # 0, where a product overflowed
        x = local[block, -1]
    for k in range(A * T, length):
        x = gates[0 if constant else k] * x + drives[k]
        states[k] = x
    return states
