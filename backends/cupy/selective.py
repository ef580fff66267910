"""The selective scan for CuPy, forward: one pass over memory, or three phases where the channels are few.

Then time is split into blocks that run side by side: what the steps of every block do to a state, a product of gates
and the last state from zero; the states after the blocks, by `linear_scan`; and the outputs, each block from the state
before it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cupy as cp

from ssm_core.gated.selective import _selective_scan
from ssm_core.recurrences.segments import Segments

from .compiled import Program, steps_of_block, strides
from .kernels import SELECTIVE
from .scans import linear_scan

THREADS = 128  # of a block of them, as the kernels are compiled for
FILLED = 3 * THREADS  # of a multiprocessor, whose registers (168 of a thread for N = 16) hold no more
SHORTEST = 64  # steps of a block of time
STATES = 64  # that a thread keeps in registers
STAGED = True  # through shared memory, where steps of u are neighbors in memory
FEW = 16  # states with which that is tried: with 64 registers spill, 2692 bytes of a thread for 212


def selective_scan(
    u: Any, dt: Any, A: Any, B: Any, C: Any, *, state: Any, segments: Segments, discretization: str, chunk: int | None
) -> Any:
    """Fused `ssm_core.gated.selective._selective_scan`; no result depends on `chunk`."""
    fits = u.dtype.char in "fd" and all(x.dtype == u.dtype for x in (dt, A, B, C, state))
    if discretization != "mamba" or not fits or not 1 <= A.shape[1] <= STATES:
        return NotImplemented
    with u.device:
        kernels = _program(1 << (A.shape[1] - 1).bit_length()).kernels(u.dtype)
        return NotImplemented if kernels is None else _scan(kernels, (u, dt, A, B, C), state, segments.reset)


def _scan(kernels: Any, arrays: tuple[Any, ...], first: Any, reset: Any) -> tuple[Any, Any]:
    """y and the last state, by the kernels of the first and of the last phase, or those of them that are staged."""
    u, dt, A, B, C = arrays
    (batch, H, length), N = u.shape, A.shape[1]
    A, first = (cp.ascontiguousarray(x) for x in (A, first))
    reset = 0 if reset is None else cp.ascontiguousarray(reset)
    y, last = cp.empty_like(u), cp.empty_like(first)
    steps = steps_of_block(length, batch * H, FILLED, SHORTEST)
    blocks = -(-length // steps)
    (B_share, *B_strides), (C_share, *C_strides) = (_rows(x, H) for x in (B, C))
    apart = (n for x in (u, dt, y) for n in strides(x))
    sizes = (length, steps, batch, H, N, B_share, C_share, *apart, *B_strides, *C_strides)
    grid, before = (-(-blocks * batch * H // THREADS),), first
    summaries, outputs = kernels[2:] if STAGED and N <= FEW and abs(strides(u)[-1]) == 1 else kernels[:2]
    if blocks > 1:
        ends, through = cp.empty((2, blocks, *first.shape), u.dtype)
        summaries(grid, (THREADS,), (u, dt, A, B, C, first, first, reset, y, ends, through, *sizes))
        before = linear_scan(through, ends, first, axis=0, reverse=False)
    outputs(grid, (THREADS,), (u, dt, A, B, C, first, before, reset, y, last, last, *sizes))
    return y, last


def _rows(x: Any, channels: int) -> tuple[int, ...]:
    """Channels that share a row of (H, N) or (batch, G, N, L), and the strides of batch, group, state and time."""
    if x.ndim == 2:
        group, state = strides(x)
        return 1, 0, group, state, 0
    return channels // x.shape[1], *strides(x)


@cache
def _program(N: int) -> Program:
    """Kernels for up to N states."""

    def agree(kernels: Any, dtype: Any) -> bool:
        """On one block, and on several, with a reset in the second; with steps that are neighbors, and channels."""
        for length in (20, 4 * SHORTEST + 5):
            waves = cp.cos(cp.arange(2 * 6 * length).reshape(2, 6, length) ** 2).astype(dtype)
            A = -1 - cp.arange(6 * N).reshape(6, N).astype(dtype) / (6 * N)
            rows = cp.sin(cp.arange(2 * 2 * N * length).reshape(2, 2, N, length) ** 2).astype(dtype)
            arrays, first = (waves, 1 + waves[::-1], A, rows, A), cp.ones((2, 6, N), dtype)
            reset = cp.zeros((2, length), bool)
            reset[1, length // 2] = True
            options = {"segments": Segments(length, reset), "discretization": "mamba", "chunk": None}
            wanted = _selective_scan(*arrays, state=first, **options, backend="generic")
            for u in (waves, cp.asarray(waves, order="F")):
                found = _scan(kernels, (u, *arrays[1:]), first, reset)
                for one, other in zip(found, wanted, strict=True):
                    if not bool(abs(one - other).max() <= 1e-4 * abs(other).max()):
                        return False
        return True

    kinds = [(read, staged) for staged in ("false", "true")[: 1 + (N <= FEW)] for read in ("false", "true")]
    names = tuple(f"selective<{{number}}, {N}, {read}, {staged}>" for read, staged in kinds)
    return Program("selective_scan", SELECTIVE, names, agree)
