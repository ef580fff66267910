"""The versions, and what the device can do at best: bytes copied and products of matrices a second."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import Any

from .record import emit, guarded, left

PACKAGES = ("torch", "triton", "jax", "jaxlib", "flax", "cupy", "numpy", "array_api_compat")


def run(device: str, options: Any) -> None:
    for name in PACKAGES if device == "cuda" else PACKAGES[:1]:
        guarded(f"version {name}", lambda name=name: emit(f"version {name}", version=version(name)))
    guarded("device", lambda: emit("device", name=name_of(device)))
    guarded("copy", lambda: emit("copy", gigabytes_per_second=copy_rate(device) / 1e9))
    guarded("products", lambda: products(device))


def version(name: str) -> str:
    try:
        return metadata.version(name)  # without importing it, which takes seconds
    except metadata.PackageNotFoundError:  # in a folder on the path, or CuPy, whose distributions have other names
        return str(importlib.import_module(name).__version__)


def name_of(device: str) -> str:
    import torch

    if device == "cpu":
        return "cpu"
    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def products(device: str) -> None:
    import torch

    n = 8192 if device == "cuda" else 256
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(n, n, device=device, dtype=dtype)
        emit(f"products {dtype}", tera_flops=2 * n**3 / seconds(lambda a=a: a @ a, device) / 1e12)


@cache
def copy_rate(device: str) -> float:
    """Bytes a second, those read and those written."""
    import torch

    x = torch.ones(2**28 if device == "cuda" else 2**20, device=device)
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 / seconds(lambda: y.copy_(x), device)


def seconds(work: Callable[[], object], device: str, budget: float = 0.5) -> float:
    """The median of as many calls as fit into the budget, after two that are not timed."""
    import torch

    def timed() -> float:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed()
    once = timed()
    count = max(3, min(30, int(min(budget, left()) / max(once, 1e-6)))) if device == "cuda" else 1
    return statistics.median(timed() for _ in range(count))
