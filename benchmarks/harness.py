"""Interleaved timing, peak memory in fresh processes, and the table of results."""

from __future__ import annotations

import json
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[], Any]


@dataclass
class Case:
    """The same work done by us and by others. `check` compares the results before anything is timed."""

    name: str
    ours: Work
    others: dict[str, Work]
    check: Callable[[], None] | None = None
    wanted: str = ""
    repeats: int = 7
    inner: int = 1  # runs a measurement, for work of microseconds
    missing: dict[str, str] = field(default_factory=dict)  # peers that are not here, with the reason


@dataclass
class Row:
    case: str
    variant: str
    median: float
    low: float
    high: float
    ratio: float | None = None
    wanted: str = ""
    memory: float | None = field(default=None)


def measure(case: Case) -> list[Row]:
    """Medians over runs taken in turn, A B A B ..., and the median of the ratios pair by pair."""
    if case.check is not None:
        case.check()
    works = {"ours": case.ours, **case.others}
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(case.repeats):
        for name, work in works.items():
            start = time.perf_counter()
            for _ in range(case.inner):
                work()
            times[name].append((time.perf_counter() - start) / case.inner)
    rows = []
    for name, values in times.items():
        pairs = [theirs / ours for theirs, ours in zip(values, times["ours"], strict=True)]
        ratio = None if name == "ours" else statistics.median(pairs)
        rows.append(Row(case.name, name, statistics.median(values), min(values), max(values), ratio, case.wanted))
    return rows


def peak_memory(*arguments: str) -> float:
    """Bytes that one run adds to the peak of a fresh process."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def added_to_peak(work: Work) -> int:
    """Bytes by which running the work raises this process's peak."""
    before = peak()
    work()
    return peak() - before


def peak() -> int:
    """Peak resident bytes of this process."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # on Linux getrusage also counts what the parent held when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def print_rows(rows: list[Row]) -> None:
    """One line a variant; the ratio is its time over ours."""
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:8.2f}x our time   {row.wanted}"
        memory = "" if row.memory is None else f"{row.memory / 2**20:9.1f} MiB"
        spread = f"{seconds(row.median)}  ({seconds(row.low)} .. {seconds(row.high)})"
        print(f"{row.case:28s} {row.variant:24s} {spread:40s} {memory:14s} {ratio}", flush=True)


def seconds(t: float) -> str:
    return f"{t * 1e6:8.1f} us" if t < 1e-3 else f"{t * 1e3:8.1f} ms"


def write_json(rows: list[Row], path: str, **more: Any) -> None:
    """All rows, and what else belongs to them."""
    with open(path, "w") as file:
        json.dump({**more, "rows": [vars(row) for row in rows]}, file, indent=2)
