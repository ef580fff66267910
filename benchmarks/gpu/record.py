"""Rows of results: written the moment they are known, so that what a run has found outlives whatever ends it."""

from __future__ import annotations

import json
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOLDER, ENDS = "SSM_CORE_GPU_OUT", "SSM_CORE_GPU_ENDS"  # what a part is told by its environment
ROWS = "results.jsonl"


def emit(job: str, **fields: Any) -> None:
    """One row, printed and appended to the file of results."""
    line = json.dumps({"job": job, **fields}, default=str)
    print(line, flush=True)
    if FOLDER in os.environ:
        with (Path(os.environ[FOLDER]) / ROWS).open("a") as file:
            file.write(line + "\n")


def left() -> float:
    """Seconds until the part that is running has to end."""
    return float(os.environ.get(ENDS, "inf")) - time.time()


def guarded(job: str, work: Callable[[], object]) -> None:
    """Run it; what it raises becomes a row, in full, and so does what it warns of. Nothing where no time is left."""
    if left() <= 0:
        emit(job, failed="no time was left")
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            work()
        except Exception as error:  # a failure never stops what comes next
            emit(job, failed=f"{type(error).__name__}: {error}", where=traceback.format_exc())
    said = sorted({str(w.message) for w in caught if issubclass(w.category, UserWarning)})
    if said:
        emit(job, warned=said)


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    file = folder / ROWS
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:  # of a part that was ended while it wrote
            yield {"job": "unreadable row", "text": line}


def table(found: list[dict[str, Any]]) -> str:
    """All rows as Markdown: what was done, what came of it."""
    lines = ["| job | result |", "| --- | --- |"]
    for row in found:
        fields = "; ".join(f"{k} = {_short(v)}" for k, v in row.items() if k not in ("job", "where"))
        lines.append(f"| {row['job']} | {fields} |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "/").split())
