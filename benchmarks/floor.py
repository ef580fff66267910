"""What the machine can do at best, measured in the same run: bytes copied and products of matrices a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import place


@dataclass(frozen=True)
class Floor:
    """Bytes a second read and written by a copy, and float32 multiply-adds a second of a product, on all cores."""

    bandwidth: float
    products: float

    def seconds(self, moved: float = 0.0, multiplied: float = 0.0) -> float:
        """The least time for so many bytes moved and so many multiply-adds."""
        return max(moved / self.bandwidth, multiplied / self.products)


def measure() -> Floor:
    """By PyTorch, which uses all cores, or the GPU."""
    import torch

    x = torch.ones(2**25)
    y = torch.empty_like(x)
    a = torch.ones(1024, 1024)
    return Floor(2 * x.numel() * 4 / _median(lambda: y.copy_(x)), 1024**3 / _median(lambda: a @ a))


def _median(work: Callable[[], object], repeats: int = 9) -> float:
    work()
    times = []
    for _ in range(repeats):
        place.wait()
        start = time.perf_counter()
        work()
        place.wait()
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
        "cores": os.cpu_count(), "processor": _processor(), "numpy": np.__version__,
    }  # fmt: skip
    for name in ("torch", "jax"):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    """The name of the processor, or of the GPU that the jobs run on."""
    import platform
    from pathlib import Path

    if place.name != "cpu":
        import torch

        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
