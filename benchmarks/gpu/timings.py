"""Recurrences and layers, forward and backward, as multiples of the time that a copy of the same bytes takes.

First all of ours, in float32 and bfloat16, beside the library's own way (the FFT of a layer's convolution), then those
of CuPy and of JAX; at the end the variants of kernels, and torch.compile of the generic bodies, which may compile for
longer than there is time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import libraries
from .machine import copy_rate, seconds
from .record import emit, guarded
from .variants import VARIANTS, changed

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Work:
    """A function of tensors with gradients, and the bytes that it reads and writes at least."""

    call: Callable[..., Any]
    inputs: tuple[Any, ...]
    moved: int


def run(device: str, options: Any) -> None:
    works = {**scans(device), **gated(device), **layers(device)}
    for name, (make, halves) in works.items():  # in miniature all of them too: what is wrong in one of them shows
        for dtype in DTYPES[: 1 + (halves and device == "cuda")]:
            guarded(f"time {name} {dtype}", lambda name=name, make=make, d=dtype: measure(name, make, d, device))
    libraries.run(device)
    for name, (operator, choices) in VARIANTS.items():
        for choice, constants in choices.items():
            job = f"{name}, {choice}"
            guarded(f"time {job}", lambda w=works[name][0], j=job, o=operator, c=constants: varied(j, w, o, c, device))
    for name in COMPILED if device == "cuda" else ():  # a compiler of C++ would take minutes
        make, _ = works[name]
        guarded(f"time compiled {name}", lambda name=name, make=make: compiled(name, make, device))


def measure(name: str, make: Callable[[Any], Work], dtype: str, device: str, change: Any = lambda call: call) -> None:
    import torch

    work = make(getattr(torch, dtype))
    call, floor = change(work.call), work.moved / copy_rate(device)
    leaves = [x for x in work.inputs if x.requires_grad]

    def both() -> None:
        y = call(*work.inputs)
        torch.autograd.grad(y, leaves, torch.ones_like(y))

    with torch.no_grad():
        forward = seconds(lambda: call(*work.inputs), device, 0.3)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole = seconds(both, device, 0.5)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    emit(
        f"time {name} {dtype}", milliseconds=1e3 * forward, milliseconds_with_backward=1e3 * whole,
        copies=forward / floor, copies_with_backward=whole / (2 * floor), peak_gib=peak,
    )  # fmt: skip


def varied(name: str, make: Callable[[Any], Work], operator: str, constants: Any, device: str) -> None:
    """Times of kernels with other constants, and how far their outputs are from those as they are."""
    import torch

    work = make(torch.float32)
    with torch.no_grad():
        wanted = work.call(*work.inputs)
        with changed(operator, constants):
            found = work.call(*work.inputs)
    emit(f"difference of {name}", error=float((found - wanted).abs().max() / wanted.abs().max()))
    with changed(operator, constants):
        measure(name, lambda _: work, "float32", device)


def compiled(name: str, make: Callable[[Any], Work], device: str) -> None:
    import torch

    import ssm_core

    with ssm_core.use_backend("generic"):
        change = lambda call: torch.compile(call, fullgraph=True)  # noqa: E731
        measure(f"compiled {name}", make, "float32", device, change)


def drawn(device: str, *shapes: tuple[int, ...], dtype: Any) -> list[Any]:
    import torch

    return [torch.rand(shape, device=device).to(dtype).requires_grad_() for shape in shapes]


def scans(device: str) -> dict[str, Any]:
    import torch

    import ssm_core as s

    def scan(shape: tuple[int, ...], axis: int, dtype: Any, *, constant: bool = False) -> Work:
        gate = tuple(1 if constant and i == axis % len(shape) else n for i, n in enumerate(shape))
        a, b = drawn(device, gate, shape, dtype=dtype)
        return Work(lambda a, b: s.linear_scan(a, b, axis=axis), (a, b), (a.numel() + 2 * b.numel()) * b.element_size())

    big = device == "cuda"
    first = (4096, 4096) if big else (64, 8)
    middle, last = ((8, 4096, 2048), (8, 1536, 8192)) if big else ((2, 64, 8), (2, 8, 64))
    narrow = (4096, 256) if big else (64, 2)
    return {
        "linear_scan, time first": (lambda dtype: scan(first, 0, dtype), True),
        "linear_scan, (B, L, H)": (lambda dtype: scan(middle, 1, dtype), True),
        "linear_scan, time last": (lambda dtype: scan(last, -1, dtype), True),
        "linear_scan, narrow": (lambda dtype: scan(narrow, 0, dtype), True),
        "linear_scan, constant": (lambda dtype: scan(middle, 1, dtype, constant=True), True),
        "linear_scan, of complex64 instead of": (lambda dtype: scan(middle, 1, torch.complex64), False),
        "linear_scan, of float64 instead of": (lambda dtype: scan(middle, 1, torch.float64), False),
    }


def gated(device: str) -> dict[str, Any]:
    """At the sizes of the published measurements of Mamba, Mamba-2 and of the delta rule."""
    import torch

    import ssm_core as s

    big = device == "cuda"

    def selective(dtype: Any) -> Work:
        B, D, L, N = (8, 2048, 4096, 16) if big else (1, 4, 32, 2)
        u, dt, z, rows, reads = drawn(device, (B, D, L), (B, D, L), (B, D, L), (B, N, L), (B, N, L), dtype=dtype)
        (A,) = drawn(device, (D, N), dtype=torch.float32)
        call = lambda u, dt, A, rows, reads, z: s.selective_scan(u, dt, -A, rows, reads, z=z)  # noqa: E731
        return Work(call, (u, dt, A, rows, reads, z), 4 * u.numel() * u.element_size())

    def ssd(dtype: Any) -> Work:
        B, L, H, P, N = (8, 4096, 32, 64, 128) if big else (1, 64, 2, 4, 8)
        x, rows, reads = drawn(device, (B, L, H, P), (B, L, 1, N), (B, L, 1, N), dtype=dtype)
        dt, A = drawn(device, (B, L, H), (H,), dtype=torch.float32)
        call = lambda x, dt, A, rows, reads: s.ssd(x, dt, -A, rows, reads)  # noqa: E731
        return Work(call, (x, dt, A, rows, reads), 2 * x.numel() * x.element_size())

    def heads(dtype: Any, *more: tuple[int, ...]) -> tuple[list[Any], int]:
        B, L, H, K = (4, 4096, 16, 64) if big else (1, 64, 2, 4)
        q, k, v, *others = drawn(device, *[(B, L, H, K)] * 3, *((B, L, H, *(K,) * n) for (n,) in more), dtype=dtype)
        return [q, k, v, *others], 4 * q.numel() * q.element_size()

    def delta(dtype: Any) -> Work:
        xs, moved = heads(dtype, (0,), (0,))
        unit = torch.nn.functional.normalize
        call = lambda q, k, v, g, beta: s.gated_delta(q, unit(k, dim=-1), v, -g, beta)  # noqa: E731
        return Work(call, tuple(xs), moved)

    def attention(dtype: Any, channel: int) -> Work:
        xs, moved = heads(dtype, (channel,))
        return Work(lambda q, k, v, g: s.gated_linear_attention(q, k, v, -g), tuple(xs), moved)

    return {
        "selective_scan": (selective, True),
        "ssd": (ssd, True),
        "gated_delta": (delta, True),
        "gated_linear_attention, a decay a head": (lambda dtype: attention(dtype, 0), True),
        "gated_linear_attention, a decay a channel": (lambda dtype: attention(dtype, 1), True),
    }


def layers(device: str) -> dict[str, Any]:
    from ssm_core import adapters

    B, L, H = (16, 16384, 1024) if device == "cuda" else (2, 64, 4)

    def layer(kind: str, mode: str, dtype: Any, **given: Any) -> Work:
        module = getattr(adapters.torch, kind)(H, activation=None, output=None, **given).to(device)
        (u,) = drawn(device, (B, L, H), dtype=dtype)
        return Work(
            lambda u, *params: module(u, mode=mode), (u, *module.parameters()), 2 * u.numel() * u.element_size()
        )

    return {
        f"{kind} {mode}": (lambda dtype, kind=kind, mode=mode, o=given: layer(kind, mode, dtype, **o), True)
        for kind, given in (("S4D", {}), ("S4", {}), ("S5", {"d_state": 64}), ("LRU", {"d_state": 64}))
        for mode in (("conv", "chunk") if kind in ("S4D", "S4") else ("auto",))
    }


COMPILED = ("selective_scan", "ssd", "gated_delta", "gated_linear_attention, a decay a head", "S4D conv", "S4D chunk")
