"""Functions of CuPy and of JAX at the sizes of `timings`, as multiples of a copy of the same bytes.

CuPy's have no gradients. On the CPU NumPy stands for CuPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .machine import copy_rate, seconds
from .record import emit, guarded


@dataclass(frozen=True)
class Work:
    """A function of arrays of these shapes, and the numbers that it reads and writes at least."""

    call: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    moved: int


def run(device: str) -> None:
    for name, work in works(device == "cuda").items():
        guarded(f"time cupy {name}", lambda name=name, work=work: with_cupy(name, work, device))
    for name, work in works(device == "cuda").items():
        guarded(f"time jax {name}", lambda name=name, work=work: with_jax(name, work, device))


def works(big: bool) -> dict[str, Work]:
    import ssm_core as s

    steps = (8, 4096, 2048) if big else (2, 64, 8)
    B, D, L, N = (8, 2048, 4096, 16) if big else (1, 4, 32, 2)
    signal, rows = (B, D, L), (B, N, L)
    layer, u = (s.layers.S4D(1024), (16, 16384, 1024)) if big else (s.layers.S4D(4), (2, 64, 4))

    def applied(mode: str) -> Work:
        params = layer.initial_parameters(seed=0)

        def call(u: Any, *given: Any) -> Any:
            return layer.apply(dict(zip(params, given, strict=True)), u, mode=mode)

        return Work(call, (u, *(p.shape for p in params.values())), 2 * math.prod(u))

    return {
        "linear_scan": Work(lambda a, b: s.linear_scan(a, b, axis=1), (steps, steps), 3 * math.prod(steps)),
        "selective_scan": Work(
            lambda u, dt, A, B, C: s.selective_scan(u, dt, -A, B, C), (signal, signal, (D, N), rows, rows),
            3 * math.prod(signal),
        ),
        "S4D conv": applied("conv"),
        "S4D chunk": applied("chunk"),
    }  # fmt: skip


def with_cupy(name: str, work: Work, device: str) -> None:
    import numpy

    if device == "cuda":
        import cupy as xp
    else:
        xp = numpy
    arrays = [xp.full(shape, 0.5, dtype=xp.float32) for shape in work.shapes]
    took = seconds(lambda: work.call(*arrays), device, 0.5)
    emit(f"time cupy {name} float32", milliseconds=1e3 * took, copies=took * copy_rate(device) / (4 * work.moved))


def with_jax(name: str, work: Work, device: str) -> None:
    import jax

    arrays = [jax.numpy.full(shape, 0.5, dtype="float32") for shape in work.shapes]
    forward = jax.jit(work.call)
    both = jax.jit(jax.grad(lambda *given: work.call(*given).sum(), argnums=tuple(range(len(arrays)))))
    floor = 4 * work.moved / copy_rate(device)
    alone = seconds(lambda: jax.block_until_ready(forward(*arrays)), device, 0.5)
    whole = seconds(lambda: jax.block_until_ready(both(*arrays)), device, 0.5)
    emit(
        f"time jax {name} float32", milliseconds=1e3 * alone, milliseconds_with_backward=1e3 * whole,
        copies=alone / floor, copies_with_backward=whole / (2 * floor),
    )  # fmt: skip
