"""Tables of the documents, made from the JSON of a run, so that they say nothing that was not measured.

    python -m benchmarks.table docs/measured.json docs/performance.md README.md

rewrites what stands between `<!-- measured: GROUP -->` and `<!-- end -->`. A group is a module of jobs ("kernels"), or
names and patterns of jobs ("s4d-torch* scan-jax"), whose rows stand in the order in which the group names them.
"""

from __future__ import annotations

import fnmatch
import json
import re
import sys
from pathlib import Path
from typing import Any

from .harness import seconds
from .jobs import JOBS

BLOCK = re.compile(r"(<!-- measured: (?P<group>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, measured: dict[str, Any]) -> str:
    """The text with its blocks filled from a run."""

    def fill(found: re.Match[str]) -> str:
        group = found["group"]
        body = _machine(measured) if group == "machine" else table(chosen(measured["rows"], group))
        return f"{found[1]}\n{body}\n{found[3]}"

    return BLOCK.sub(fill, text)


def table(rows: list[dict[str, Any]]) -> str:
    """Every other way beside ours, a line each."""
    memory = any(row["memory"] is not None for row in rows)
    head = ["", "ours", "the other way", "", "time", *(["memory"] if memory else [])]
    lines = [_line(head), _line(["---"] * len(head))]
    ours: dict[str, Any] = {}
    for row in rows:
        if row["variant"] == "ours":
            ours = row
            if not any(_beside(r, row) and r is not row for r in rows):
                lines.append(_line([row["case"], _cost(row), *[""] * (len(head) - 2)]))
            continue
        first = row is next(r for r in rows if _beside(r, row) and r["variant"] != "ours")
        cells = [row["case"], _cost(ours)] if first else ["", ""]
        cells += [row["variant"], _cost(row), _ratio(row["ratio"])]
        lines.append(_line(cells + ([_ratio(row["memory_ratio"])] if memory else [])))
    return "\n".join(lines) + "\n"


def _beside(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows belong to one case."""
    return (row["job"], row["case"]) == (other["job"], other["case"])


def _machine(measured: dict[str, Any]) -> str:
    m, floor = measured["machine"], measured["floor"]
    versions = ", ".join(f"{name} {m[name]}" for name in ("python", "numpy", "torch", "jax"))
    return (
        f"{m['cores']} cores of {m['processor']}, {m['system']}; {versions}. The last of these runs measured: "
        f"{floor['bandwidth'] / 1e9:.1f} GB/s copied, {floor['products'] / 1e9:.0f} G multiply-adds/s in float32.\n"
    )


def chosen(rows: list[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    """The rows of a module of jobs as they come, those of names and patterns in the order of these."""
    of_module = [row for row in rows if row["job"] in JOBS and _module(row["job"]) == group]
    if of_module:
        return of_module
    left, found = list(rows), []
    for pattern in group.split():
        found += [row for row in left if fnmatch.fnmatch(row["job"], pattern)]
        left = [row for row in left if not fnmatch.fnmatch(row["job"], pattern)]
    return found


def _module(job: str) -> str:
    return JOBS[job].make.__module__.rpartition(".")[2]


def _cost(row: dict[str, Any]) -> str:
    time, memory = row["median"], row["memory"]
    words = [] if time is None else [seconds(time).strip()]
    return ", ".join(words + ([] if memory is None else [f"{memory / 2**20:.0f} MiB"]))


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"**{ratio:.2g}x**" if ratio < 10 else f"**{ratio:.0f}x**"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    measured = json.loads(Path(sys.argv[1]).read_text())
    for name in sys.argv[2:]:
        path = Path(name)
        path.write_text(filled(path.read_text(), measured))


if __name__ == "__main__":
    main()
