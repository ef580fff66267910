"""The report: failures by cause, rows that are red whatever a test failed of, and pages that say so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from . import failures, report
from .failures import Failure, cause_of, function_tested, grouped
from .recording import Comparison, Worst


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            AssertionError("layers.S4D on torch in float32: error 3.42e-02 > 1.10e-04\nassert 0.03 <= 0.0001"),
            "AssertionError: error # > #",
        ),
        (
            AssertionError("scan (derivatives) on jax in complex128: error inf > 1.00e-07"),
            "AssertionError: error # > #",
        ),
        (
            AssertionError("scan on torch-cuda in float32: the result has shape (2, 3), not (2, 3, 4)"),
            "AssertionError: the result has shape (#, ...), not (#, ...)",
        ),
        (TypeError("convolve: u is a Array, not an array."), "TypeError: u is a Array, not an array."),
        (ValueError("no device 3 of 12 at 0x7f3a21"), "ValueError: no device # of # at #"),
        (AttributeError("module 'x' has no attribute 'float32'"), "AttributeError: module 'x' has no attribute"),
        (KeyError("S4D"), "KeyError: 'S4D'"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_causes_are_without_what_differs_from_test_to_test(error: Exception, cause: str):
    assert cause_of(error).startswith(cause)


def test_names_keep_their_digits():
    assert cause_of(TypeError("float32 of S4D in complex64, x2")) == "TypeError: float32 of S4D in complex64, x2"


def test_long_messages_are_cut():
    assert len(cause_of(ValueError("x " * 500))) < failures.WIDTH + 20


def failure(
    function: str, cause: str, test: str = "a.py::t", backend: str = "numpy", dtype: str = "float64"
) -> Failure:
    return Failure(function, backend, dtype, cause, test)


MANY = [
    failure("scan", "TypeError: a", "file.py::test_longer"),
    failure("kernel", "TypeError: a", "file.py::test"),
    failure("scan", "TypeError: a", "file.py::test_longer_still", backend="torch"),
    failure("ssd", "ValueError: b"),
]


def test_groups_are_by_cause_and_the_largest_comes_first():
    first, second = grouped(MANY)
    assert (first.cause, len(first.failures), first.functions) == ("TypeError: a", 3, ["kernel", "scan"])
    assert (first.backends, first.example) == (["numpy", "torch"], "file.py::test")
    assert (second.cause, len(second.failures)) == ("ValueError: b", 1)
    assert grouped([]) == []


def test_terminal_names_counts_functions_and_a_test():
    text = "\n".join(failures.lines(grouped(MANY)))
    assert "3 x TypeError: a" in text
    assert "of kernel, scan" in text
    assert "for example file.py::test" in text


def test_a_long_list_of_causes_is_cut_and_counted():
    many = [failure("scan", f"TypeError: {letter}") for letter in "abcdef"]
    assert failures.lines(grouped(many), most=4)[-1] == "and 2 more of 2 other causes, in the HTML page"
    assert failures.listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def item(**params: Any) -> Any:
    return SimpleNamespace(callspec=SimpleNamespace(params=params), path=Path("test_inputs.py"))


def test_a_test_belongs_to_its_case_or_its_comparison_or_its_file():
    case = SimpleNamespace(function="ssd")
    assert function_tested(item(case=case), ["scan"]) == "ssd"
    assert function_tested(item(), ["kernel", "scan"]) == "scan"
    assert function_tested(item(), []) == "(test_inputs)"


def red_and_green() -> tuple[Worst, list[Any]]:
    """A comparison that passed where a test failed later, one that failed, and a test that came to none."""
    worst = Worst()
    worst.add([Comparison("scan", "numpy", "float64", 1e-15, 1e-12), Comparison("ssd", "numpy", "float64", 1.0, 1e-12)])
    worst.add([Comparison("step", "numpy", "float64", 1e-15, 1e-12)])
    for found in (("scan", "TypeError: a"), ("ssd", "AssertionError: error # > #"), ("(test_modes)", "TypeError: a")):
        worst.fail(found[0], "numpy", "float64")
    worst.fail("kernel", "numpy", "float32")
    return worst, [SimpleNamespace(name="numpy", version="2", place="cpu", module=SimpleNamespace(__name__="numpy"))]


def test_failed_tests_colour_their_rows():
    worst, backends = red_and_green()
    lines = report.terminal(worst, grouped(MANY), backends, {"cupy": "no CUDA device"})
    row = {line.split()[0]: line for line in lines if line}
    assert "FAIL (1)" in row["scan"]
    assert "FAIL 1e+00" in row["ssd"]
    assert "FAIL (1)" in row["kernel"]
    assert "FAIL (1)" in row["(test_modes)"]
    assert "FAIL" not in row["step"]
    assert lines[0] == "failures by cause"


def test_a_run_that_compared_nothing_is_no_empty_report():
    worst = Worst()
    worst.fail("kernel", "numpy", "float32")
    lines = report.terminal(worst, grouped(MANY[1:2]), red_and_green()[1], {})
    assert any("FAIL (1)" in line for line in lines)


def test_the_page_shows_causes_and_red_cells(tmp_path: Path):
    worst, backends = red_and_green()
    path = tmp_path / "report.html"
    report.write_html(path, worst, grouped([*MANY, failure("scan", "TypeError: <b>")]), backends, {}, "3 failed")
    page = path.read_text()
    assert "Failures by cause" in page
    assert "TypeError: &lt;b&gt;" in page
    assert page.count('class="bad"') == 4
    report.write_html(path, Worst(), [], backends, {}, "nothing")
    assert "Failures by cause" not in path.read_text()
