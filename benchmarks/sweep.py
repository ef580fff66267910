"""Times and peak memory over the length of a sequence, from 2^8 to 2^20 steps, and their picture.

Kernels have 64 channels of 64 real states, scans and convolutions 256 channels; float32, PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ssm_core

from . import harness
from .floor import Floor

LENGTHS = tuple(2**k for k in range(8, 21, 2))
CHANNELS, D_STATE = 64, 64
LARGEST = 2**31  # bytes of the one tensor of a naive form that is still tried
REPEATS = 3


def s4d_kernel(length: int) -> Any:
    layer = _layer("S4D")
    return lambda: layer.kernel(length)


def s4_kernel(length: int) -> Any:
    layer = _layer("S4")
    return lambda: layer.kernel(length)


def einsum_kernel(length: int) -> Any:
    from .jobs.kernels import EinsumKernel

    if CHANNELS * D_STATE // 2 * length * 8 > LARGEST:
        return None
    naive = EinsumKernel(_layer("S4D"))
    return lambda: naive(length)


def linear_scan(length: int) -> Any:
    import torch

    a, b = torch.rand(length, 256), torch.randn(length, 256)
    return lambda: ssm_core.linear_scan(a, b, axis=0)


def loop(length: int) -> Any:
    import torch

    a, b = torch.rand(length, 256), torch.randn(length, 256)

    def run() -> Any:
        x, states = torch.zeros_like(b[0]), []
        for k in range(length):
            x = a[k] * x + b[k]
            states.append(x)
        return torch.stack(states)

    return run


def convolve(length: int) -> Any:
    import torch

    u, k = torch.randn(16, length), torch.randn(16, length)
    return lambda: ssm_core.convolve(u, k)


def direct_convolution(length: int) -> Any:
    import torch

    if length > 2**14:
        return None
    u, k = torch.randn(1, 16, length), torch.randn(16, 1, length)
    padded, taps = torch.nn.functional.pad(u, (length - 1, 0)), k.flip(-1)
    return lambda: torch.nn.functional.conv1d(padded, taps, groups=16)


def _layer(name: str) -> Any:
    import torch

    torch.manual_seed(0)
    return getattr(ssm_core.adapters.torch, name)(CHANNELS, d_state=D_STATE)


# Panels: name, the curves, and the least time of a length from bytes moved and multiply-adds.
PANELS: dict[str, tuple[dict[str, Callable[[int], Any]], Callable[[Floor, int], float]]] = {
    "kernel": (
        {"S4D": s4d_kernel, "S4": s4_kernel, "einsum over (H, N, L)": einsum_kernel},
        lambda floor, L: floor.seconds(4 * CHANNELS * L, CHANNELS * D_STATE * L),
    ),
    "linear scan": (
        {"linear_scan": linear_scan, "Python loop": loop}, lambda floor, L: floor.seconds(3 * 4 * 256 * L)
    ),
    "convolution": (
        {"convolve": convolve, "direct": direct_convolution}, lambda floor, L: floor.seconds(3 * 4 * 16 * L)
    ),
}  # fmt: skip


def run(floor: Floor) -> list[dict[str, Any]]:
    """Every curve: times and memory over the lengths, interleaved within a length."""
    import torch

    curves = []
    for panel, (makers, least) in PANELS.items():
        found: dict[str, dict[str, Any]] = {
            name: {"panel": panel, "name": name, "length": [], "seconds": [], "memory": []} for name in makers
        }
        for length in LENGTHS:
            works = {name: work for name, make in makers.items() if (work := make(length)) is not None}
            with torch.no_grad():
                first, *others = works
                case = harness.Case(
                    f"{panel} 2^{length.bit_length() - 1}", works[first], {name: works[name] for name in others},
                    repeats=REPEATS,
                )  # fmt: skip
                rows = harness.measure(case)
            for name, row in zip(works, rows, strict=True):
                row.variant = name
                row.memory = harness.peak_memory("--sweep-memory-of", panel, name, str(length))
                found[name]["length"].append(length)
                found[name]["seconds"].append(row.median)
                found[name]["memory"].append(row.memory)
            harness.print_rows(rows)
        curves += found.values()
        times = [least(floor, length) for length in LENGTHS]
        curves.append({"panel": panel, "name": "floor", "length": list(LENGTHS), "seconds": times, "memory": []})
    return curves


def memory_of(panel: str, name: str, length: str) -> int:
    """The peak that one curve adds at a length, in this process."""
    import torch

    make = PANELS[panel][0][name]
    with torch.no_grad():
        make(LENGTHS[0])()
        return harness.added_to_peak(make(int(length)))


def draw(curves: list[dict[str, Any]], path: Path) -> None:
    """Times above, peak memory below, a column a panel."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(PANELS), figsize=(4 * len(PANELS), 6.5), sharex=True, layout="constrained")
    for column, panel in enumerate(PANELS):
        for curve in (c for c in curves if c["panel"] == panel):
            style = (
                {"color": "0.5", "linestyle": "--"} if curve["name"] == "floor" else {"marker": "o", "markersize": 3}
            )
            axes[0, column].loglog(curve["length"], curve["seconds"], label=curve["name"], **style)
            if curve["memory"]:
                mebibytes = [max(m, 2**18) / 2**20 for m in curve["memory"]]
                axes[1, column].loglog(curve["length"], mebibytes, label=curve["name"], **style)
        axes[0, column].set_title(panel)
        axes[0, column].legend(fontsize=8)
        axes[1, column].set_xlabel("length")
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory added, MiB")
    figure.savefig(path, dpi=130)
    print(f"picture: {path}")
