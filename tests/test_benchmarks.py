"""The program that measures: runs in turn, what it prints and writes, and that a planted slowdown shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks import harness, peers, place, table
from benchmarks.harness import Case, Job, Row
from benchmarks.jobs import JOBS

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_works_run_in_turn_after_each_ran_once():
    calls: list[str] = []
    case = Case("turns", lambda: calls.append("a"), {"other": lambda: calls.append("b")}, repeats=3)
    ours, other = harness.measure(case)
    assert "".join(calls) == "ab" + 3 * "ab"
    assert ours.ratio is None
    assert other.ratio is not None
    assert ours.low <= ours.median <= ours.high  # type: ignore[operator]


def test_ratio_is_their_time_over_ours(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 1.0, 10.0, 14.0] * 2)
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    case = Case("ratio", lambda: None, {"other": lambda: None}, repeats=2)
    assert [(row.median, row.ratio) for row in harness.measure(case)] == [(1.0, None), (4.0, 4.0)]


def test_nothing_is_timed_where_results_differ():
    def check() -> None:
        raise AssertionError("the results differ")

    case = Case("wrong", lambda: pytest.fail("was run"), {}, check)
    with pytest.raises(AssertionError, match="differ"):
        harness.measure(case)


def test_a_planted_slowdown_shows_in_the_column_of_memory():
    """The kernel by an (H, N, L) tensor beside ours, each in a process of its own."""
    pytest.importorskip("torch")
    ours, planted = (
        float(run("--memory-of", "s4d-kernel-torch", "0", variant).stdout.split()[-1])
        for variant in ("ours", "einsum (H, N, L)")
    )
    assert planted > 8 * ours
    assert planted > 256 * 2**20  # the complex tensor alone


def test_json_holds_rows_machine_and_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")
    job = Job(lambda: Case("sum", lambda: sum(range(10)), {"loop": lambda: list(range(10))}), "numpy")
    monkeypatch.setitem(JOBS, "sum", job)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "sum", "--json", str(tmp_path / "run.json")])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    program.main()
    written = json.loads((tmp_path / "run.json").read_text())
    assert [(row["job"], row["variant"]) for row in written["rows"]] == [("sum", "ours"), ("sum", "loop")]
    assert {"cores", "processor", "numpy", "torch"} <= set(written["machine"])
    assert written["floor"]["bandwidth"] > 0
    assert written["floor"]["products"] > 0


def test_names_patterns_and_unknown_jobs():
    listed = run("--list").stdout.split()
    assert listed == [*JOBS, "accuracy"]
    assert program.chosen(["scan-numpy", "s4d-torch*"]) == ["scan-numpy", "s4d-torch", "s4d-torch-backward"]
    refused = run("s4-cobol")
    assert refused.returncode == 2
    assert "no job is named 's4-cobol'" in refused.stderr


def test_what_is_missing_is_reported_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    makers = {"package": lambda: peers.package("no_such_package"), "clone": lambda: peers.repository("s4", "models")}
    monkeypatch.setattr(peers, "folder", tmp_path)
    found, missing = peers.those_here(makers)
    assert not found
    assert missing["package"].startswith("not installed")
    assert missing["clone"] == f"no folder s4 in {tmp_path}"
    monkeypatch.setitem(JOBS, "lonely", Job(lambda: Case("lonely", int, {}, missing=missing), "numpy"))
    program.run("lonely")
    assert "not run: no folder s4" in capsys.readouterr().out


def test_jobs_of_a_framework_that_is_elsewhere():
    assert place.absence("cupy") == "CuPy computes on a GPU: --device cuda"
    assert place.absence("no_such_framework") == "no_such_framework is not installed"
    assert place.absence("numpy") is None


def row(case: str, variant: str, **more: Any) -> dict[str, Any]:
    return vars(Row(case, variant, **more))


def test_table_of_a_run():
    rows = [
        row("kernel", "ours", median=1e-3, memory=2**20, job="s4d-kernel-torch"),
        row("kernel", "einsum", median=0.25, ratio=250.0, memory=2**25, memory_ratio=32.0, job="s4d-kernel-torch"),
    ]
    text = "before\n<!-- measured: kernels -->\nold\n<!-- end -->\nafter\n"
    assert table.filled(text, {"rows": rows}) == (
        "before\n<!-- measured: kernels -->\n\n"
        "|  | ours | the other way |  | time | memory |\n| --- | --- | --- | --- | --- | --- |\n"
        "| kernel | 1.0 ms, 1 MiB | einsum | 250.0 ms, 32 MiB | **250x** | **32x** |\n"
        "\n<!-- end -->\nafter\n"
    )


def test_rows_stand_as_a_group_names_them():
    rows = [{"job": "scan-torch"}, {"job": "s4d-torch"}, {"job": "mamba-torch"}]
    assert table.chosen(rows, "mamba* s4d-torch *torch") == [rows[2], rows[1], rows[0]]
    assert table.chosen(rows, "scans") == rows[:1]


@pytest.mark.parametrize("document", ["README.md", "docs/performance.md"])
def test_documents_show_what_was_measured(document: str):
    """Their tables are those of docs/measured.json."""
    text, measured = (ROOT / document).read_text(), json.loads((ROOT / "docs/measured.json").read_text())
    assert table.BLOCK.search(text)
    assert table.filled(text, measured) == text
