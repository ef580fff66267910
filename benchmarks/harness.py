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

from . import place

Work = Callable[[], Any]


@dataclass
class Case:
    """The same work done by us and by others. `check` compares the results before anything is timed."""

    name: str
    ours: Work
    others: dict[str, Work]
    check: Callable[[], None] | None = None
    wanted: str = ""
    repeats: int = 7  # 0: only memory is measured
    inner: int = 1  # runs a measurement, for work of microseconds
    missing: dict[str, str] = field(default_factory=dict)  # peers that are not here, with the reason

    @property
    def works(self) -> dict[str, Work]:
        return {"ours": self.ours, **self.others}


@dataclass(frozen=True)
class Job:
    """How to make a case or several, the framework they need, and whether their memory is measured too."""

    make: Callable[[], Case | list[Case]]
    framework: str = "torch"
    memory: bool = False

    def cases(self) -> list[Case]:
        made = self.make()
        return made if isinstance(made, list) else [made]


@dataclass
class Row:
    """One variant of a case: seconds, its time over ours, peak bytes added, and its bytes over ours."""

    case: str
    variant: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    wanted: str = ""
    memory: float | None = None
    memory_ratio: float | None = None
    job: str = ""


def measure(case: Case) -> list[Row]:
    """Medians over runs taken in turn, A B A B ..., and the median of the ratios pair by pair."""
    if not case.repeats:
        return [Row(case.name, name, wanted="" if name == "ours" else case.wanted) for name in case.works]
    if case.check is not None:
        case.check()
    times: dict[str, list[float]] = {name: [] for name in case.works}
    for work in case.works.values():
        work()
    for _ in range(case.repeats):
        for name, work in case.works.items():
            place.wait()
            start = time.perf_counter()
            for _ in range(case.inner):
                work()
            place.wait()
            times[name].append((time.perf_counter() - start) / case.inner)
    rows = []
    for name, values in times.items():
        pairs = [theirs / ours for theirs, ours in zip(values, times["ours"], strict=True)]
        ratio, wanted = (None, "") if name == "ours" else (statistics.median(pairs), case.wanted)
        rows.append(Row(case.name, name, statistics.median(values), min(values), max(values), ratio, wanted))
    if len(rows) == 1:
        rows[0].wanted = case.wanted
    return rows


def add_memory(rows: list[Row], measured: Callable[[Row], float]) -> None:
    """Peak bytes of every row, the first of which is ours."""
    for row in rows:
        row.memory = measured(row)
        row.memory_ratio = None if row is rows[0] else row.memory / max(rows[0].memory or 0.0, 2**20)


def peak_memory(*arguments: str) -> float:
    """Bytes that one run adds to the peak of a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "--device", place.name, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def added_to_peak(work: Work) -> int:
    """Bytes by which running the work raises the peak: resident ones of this process, or the GPU's allocator's."""
    if place.name != "cpu":
        return place.added_to_peak(work)
    clear = pathlib.Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # the peak begins at what is resident now, not at what making the work took
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
    """One line a variant; its ratios are its time and its memory over ours."""
    for row in rows:
        spread = "" if row.median is None else f"{seconds(row.median)}  ({seconds(row.low)} .. {seconds(row.high)})"
        ratio = "" if row.ratio is None else f"{row.ratio:7.2f}x our time"
        memory = "" if row.memory is None else f"{row.memory / 2**20:9.1f} MiB"
        memory += "" if row.memory_ratio is None else f" {row.memory_ratio:6.2f}x ours"
        print(
            f"{row.case:40s} {row.variant:24s} {spread:40s} {ratio:18s} {memory:24s} {row.wanted}".rstrip(), flush=True
        )


def seconds(t: float | None) -> str:
    if t is None:
        return ""
    return f"{t * 1e6:8.1f} us" if t < 1e-3 else f"{t * 1e3:8.1f} ms"


def write_json(rows: list[Row], path: str, **more: Any) -> None:
    """All rows, and what else belongs to them; rows of other jobs of the same machine stay in the file."""
    written = [vars(row) for row in rows]
    file = pathlib.Path(path)
    known = json.loads(file.read_text()) if file.exists() else {}
    if known.get("machine") == more["machine"]:
        jobs = {row.job for row in rows}
        kept = [row for row in known["rows"] if row["job"] not in jobs]
        written = kept + written
        more = known | {name: value for name, value in more.items() if value}
    file.write_text(json.dumps({**more, "rows": written}, indent=1) + "\n")
