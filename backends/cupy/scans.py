"""The linear recurrence x_k = a_k x_{k-1} + b_k for CuPy, with time on axis 0.

Where the columns alone would leave a GPU idle, time is split into blocks that run side by side, in three phases: the
product P of the gates of every block and its last state s from zero; the states after the blocks, which are the
recurrence x = P x + s over blocks; and all states, each block from the state before it. That reads everything twice,
five passes over memory instead of three, so that columns that reach three fifths of its speed are left in one piece.
"""

from __future__ import annotations

from typing import Any

import cupy as cp

from ssm_core._arrays.shapes import merged

from .compiled import Program, steps_of_block, strides
from .kernels import SCANS

THREADS = 256  # of a multiprocessor, each with 64 bytes of every array under way, which covers the latency of memory
ENOUGH = 80  # that reach three fifths of it, where gates and drives are loaded; of one of them, twice as many
SHORTEST = 64  # steps of a block
STAGED = True  # through shared memory, where steps are neighbors in memory
WARP = 32  # threads of a block of a staged kernel


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """Fused `ssm_core.recurrences.linear._linear_scan`."""
    with b.device:  # which need not be the current one, where CuPy makes arrays
        if b.size == 0:
            return b.copy()
        out = cp.empty_like(b)
        gates, drives, states = (cp.moveaxis(x, axis, 0) for x in (a, b, out))
        if reverse:
            gates, drives, states = gates[::-1], drives[::-1], states[::-1]
        shape = drives.shape[1:]
        first = cp.zeros(shape, b.dtype) if initial is None else cp.broadcast_to(initial, shape)
        kernels = PROGRAM.kernels(b.dtype)
        if kernels is None:
            _scan_in_blocks(gates, drives, first, states)
        else:
            _scan(kernels, gates, drives, first, states)
    return out


def _scan_in_blocks(gates: Any, drives: Any, x: Any, states: Any) -> None:
    """The readable body: A blocks of T steps in T + A launches instead of A T."""
    length, constant = len(drives), len(gates) == 1
    T = max(1, round(length**0.5))
    A = length // T
    local = drives[: A * T].reshape(A, T, *drives.shape[1:]).copy()
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
    states[: A * T] = local.reshape(A * T, *drives.shape[1:])
    for k in range(A * T, length):
        x = gates[0 if constant else k] * x + drives[k]
        states[k] = x


def _scan(kernels: Any, gates: Any, drives: Any, first: Any, states: Any) -> None:
    """By the kernels, into `states`; neither has to be in order in memory."""
    gates = cp.broadcast_to(gates, (len(gates), *drives.shape[1:]))
    arrays = (gates, drives, states)
    axes = merged(drives.shape[1:], *(strides(x)[1:] for x in arrays))
    if len(axes) > 3:  # more than a kernel takes
        for i in range(drives.shape[1]):
            _scan(kernels, gates[:, i], drives[:, i], first[i], states[:, i])
        return
    axes = [(1, (0, 0, 0))] * (3 - len(axes)) + axes
    apart = [(0 if len(x) == 1 else strides(x)[0], *(s[i] for _, s in axes)) for i, x in enumerate(arrays)]
    length, width = len(drives), drives[0].size
    staged = STAGED and abs(strides(drives)[0]) == 1
    enough = ENOUGH if apart[0][0] else 2 * ENOUGH
    steps = steps_of_block(length, width, THREADS, SHORTEST, enough // 2 if staged else enough)
    blocks = -(-length // steps)
    sizes = (length, steps, width, axes[1][0], axes[2][0], *(n for of_one in apart for n in of_one))
    threads, (summaries, outputs) = (WARP, kernels[2:]) if staged else (THREADS, kernels[:2])
    grid = (-(-blocks * width // threads),)
    first = cp.ascontiguousarray(first)
    after = first
    if blocks > 1:
        products, last = cp.empty((2, blocks, width), drives.dtype)
        summaries(grid, (threads,), (gates, drives, first, last, products, *sizes))
        after = cp.empty((blocks, width), drives.dtype)
        _scan(kernels, products, last, first.reshape(width), after)
    outputs(grid, (threads,), (gates, drives, first, after, states, *sizes))


def _agree(kernels: Any, dtype: Any) -> bool:
    """On one block, and on several; with columns that are neighbors in memory, and with such steps."""
    for length in (20, 4 * SHORTEST + 5):
        phases = cp.arange(3 * length).reshape(length, 3) ** 2
        turning = cp.exp(1j * phases) if dtype.kind == "c" else cp.cos(phases)
        for order in "CF":
            gates, drives = (cp.asarray(x, dtype, order=order) for x in (0.9 * turning, turning[::-1]))
            found, wanted = cp.empty_like(drives), cp.empty_like(drives)
            _scan(kernels, gates, drives, drives[0], found)
            _scan_in_blocks(gates, drives, drives[0], wanted)
            if not bool(abs(found - wanted).max() <= 1e-4 * abs(wanted).max()):
                return False
    return True


NAMES = tuple(f"scan<{{number}}, {states}, {staged}>" for staged in ("false", "true") for states in ("false", "true"))
PROGRAM = Program("linear_scan", SCANS, NAMES, _agree)
