"""What the machine can do at best, measured in the same run: bytes copied and products of matrices a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Floor:
    """Bytes a second read and written by a copy, and float32 multiply-adds a second of a product, on all cores."""

    bandwidth: float
    products: float

    def seconds(self, moved: float = 0.0, multiplied: float = 0.0) -> float:
        """The least time for so many bytes moved and so many multiply-adds."""
        return max(moved / self.bandwidth, multiplied / self.products)


def measure() -> Floor:
    """By PyTorch, which uses all cores."""
    import torch

    x = torch.ones(2**25)
    y = torch.empty_like(x)
    a = torch.ones(1024, 1024)
    return Floor(2 * x.numel() * 4 / _median(lambda: y.copy_(x)), 1024**3 / _median(lambda: a @ a))


def _median(work: Callable[[], object], repeats: int = 9) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def describe(floor: Floor) -> str:
    return (
        f"floor of this machine: {floor.bandwidth / 1e9:.1f} GB/s copied, {floor.products / 1e9:.0f} G multiply-adds/s"
    )


def machine() -> dict[str, object]:
    """The machine and the versions that a result belongs to."""
    import os
    import platform

    found: dict[str, object] = {
        "python": platform.python_version(), "machine": platform.machine(), "system": platform.system(),
        "cores": os.cpu_count(), "numpy": np.__version__,
    }  # fmt: skip
    for name in ("torch", "jax"):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            found[name] = "not installed"
    return found
