"""Functions of CuPy and of JAX at the sizes of `timings`, as multiples of a copy of the same bytes.

CuPy's have no gradients. On the CPU NumPy stands for CuPy. Last come the variants of CuPy's kernels and JAX's loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .machine import copy_rate, seconds
from .record import emit, guarded
from .variants import OF_CUPY, OF_JAX, with_constants


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
    for library, run_with, variants in (("cupy", with_cupy, OF_CUPY), ("jax", with_jax, OF_JAX)):
        for name, choices in variants.items() if device == "cuda" else ():
            for choice, change in choices.items():
                job = f"{name}, {choice}"
                guarded(
                    f"time {library} {job}",
                    lambda n=name, j=job, c=change, of=library, r=run_with: varied(n, j, c, of, r, device),
                )


def varied(name: str, job: str, change: tuple[str, dict[str, Any]], library: str, run_with: Any, device: str) -> None:
    module, constants = change
    work = works(device == "cuda")[name]  # another function than the one that JAX has compiled
    with with_constants([f"ssm_core.backends.{library}.{module}"], constants):
        run_with(job, work, device)


def works(big: bool) -> dict[str, Work]:
    import ssm_core as s

    steps, last = ((8, 4096, 2048), (8, 1536, 8192)) if big else ((2, 64, 8), (2, 8, 64))
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
        "linear_scan, time last": Work(lambda a, b: s.linear_scan(a, b, axis=-1), (last, last), 3 * math.prod(last)),
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
