"""The run that wants a GPU, in miniature on the CPU: every part ends by itself, and nothing in it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import record
from benchmarks.gpu.variants import VARIANTS

ROOT = Path(__file__).parents[1]


def test_in_miniature(tmp_path: Path):
    pytest.importorskip("torch")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--minutes", "20", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / record.ROWS).read_text().splitlines()]
    assert [row["job"] for row in rows if row.get("failed") or row.get("code")] == []
    jobs = {row["job"] for row in rows}
    assert {"copy", "agreement torch", "training", *(f"part {part}" for part in ("machine", "probes"))} <= jobs
    assert {f"time {name}, {choice} float32" for name, (_, all_of) in VARIANTS.items() for choice in all_of} <= jobs
    assert {"time selective_scan float32", "time gated_delta float32", "time S4D chunk float32"} <= jobs
    assert {"time cupy selective_scan float32", "time jax S4D chunk float32"} <= jobs
    assert "| training |" in (tmp_path / "table.md").read_text()


def test_a_failure_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is written down in full, and what comes next runs."""
    monkeypatch.setenv(record.FOLDER, str(tmp_path))
    record.guarded("first", lambda: 1 // 0)
    record.guarded("second", lambda: record.emit("second", error=0.0))
    monkeypatch.setenv(record.ENDS, "0")
    record.guarded("third", lambda: pytest.fail("was run"))
    with (tmp_path / record.ROWS).open("a") as file:
        file.write('{"job": "four')
    first, second, third, fourth = record.rows(tmp_path)
    assert first["failed"].startswith("ZeroDivisionError")
    assert "1 // 0" in first["where"]
    assert second == {"job": "second", "error": 0.0}
    assert third["failed"] == "no time was left"
    assert fourth["job"] == "unreadable row"
