"""What the repository promises of its own files: lengths, values by position, and rules of tiers that meet a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ssm_core", "adapters", "backends", "conformance", "tests", "benchmarks", "docs")
COLLECTED = {"ssm_core", "tests", "docs", "conformance"}  # what both tiers run


@pytest.fixture
def tiers(pytestconfig: pytest.Config) -> Any:
    """The conftest.py at the top."""
    return pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))


def test_files_have_at_most_400_lines():
    """Those that are written by a program too."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")] + list(ROOT.glob("*.py"))
    lengths = {path.relative_to(ROOT).as_posix(): path.read_bytes().count(b"\n") for path in files}
    assert "adapters/torch/modules/s4d.py" in lengths
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_nothing_in_the_core_takes_more_than_six_values_by_position():
    """Longer trains are read by counting: names or a record carry them."""
    found = {}
    own = [p for p in (ROOT / "ssm_core").iterdir() if p.is_dir() and not p.is_symlink()]  # less backends and adapters
    for path in (path for folder in own for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                count = len([a for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")])
            else:
                count = len(node.args) if isinstance(node, ast.Call) else 0
            if count > 6:
                found[f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"] = count
    assert found == {}


def test_every_rule_of_the_short_tier_meets_a_test(tiers: Any, pytestconfig: pytest.Config):
    """One that meets none means tests that have another name now, and run in the short tier unnoticed."""
    if not set(pytestconfig.args) >= COLLECTED:
        pytest.skip("not all tests were collected")
    if not all(map(find_spec, ("torch", "jax", "flax", "equinox"))):
        pytest.skip("a framework is not installed")
    found = pytestconfig.stash[tiers.COLLECTED]
    assert [pattern for rule in tiers.LEFT_OUT for pattern in rule.idle(found)] == []


def test_rules_that_meet_no_test_are_told(tiers: Any):
    rule = tiers.LeftOut("why", r"^tests/test_a\.py", but="numpy|float64")
    assert rule.holds("tests/test_a.py::x[torch]")
    assert not rule.holds("tests/test_a.py::x[numpy]")
    assert rule.idle(["tests/test_a.py::x[torch]", "tests/test_a.py::x[numpy]"]) == []
    assert rule.idle(["tests/test_a.py::x[torch]", "tests/test_b.py::x[numpy]"]) == ["numpy|float64"]
    assert rule.idle(["tests/test_b.py::x[numpy]"]) == [r"^tests/test_a\.py", "numpy|float64"]


def test_runs_that_share_a_file_run_a_test_once(tmp_path: Path):
    """A test that was skipped or has failed stands not in the file, so the next run takes it."""
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    tests = "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip()\ndef test_c(): assert False\n"
    (tmp_path / "test_some.py").write_text(tests, encoding="utf-8")
    for workers in ("0", "1"):
        once = tmp_path / f"passed{workers}"
        command = [sys.executable, "-m", "pytest", "-n", workers, "-p", "no:cacheprovider", f"--once={once}"]
        first, second = (subprocess.run(command, cwd=tmp_path, capture_output=True, text=True) for _ in range(2))
        assert "1 failed, 1 passed, 1 skipped" in first.stdout
        assert once.read_text(encoding="utf-8") == "test_some.py::test_a\n"
        assert "1 failed, 1 skipped" in second.stdout
        assert "1 passed before" in second.stdout
