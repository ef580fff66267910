"""Two tiers of tests: all of them, and with `--tier short` those that find out soon whether a change broke something.

The short tier runs every function and layer on NumPy and on the strictest array library, everything on PyTorch but its
compiler, the golden numbers on both, and in JAX the modes and the fused implementations against generic ones. What it
leaves out stands in `LEFT_OUT`, and nowhere else.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class LeftOut:
    """The tests whose id (file::name[parameters]) `ids` is found in, without those that `but` is found in."""

    why: str
    ids: str
    but: str | None = None

    def holds(self, test: str) -> bool:
        return bool(re.search(self.ids, test)) and not (self.but and re.search(self.but, test))

    def idle(self, tests: Iterable[str]) -> list[str]:
        """Of its patterns those that are found in none of these tests: what they meant has another name now."""
        found = [test for test in tests if re.search(self.ids, test)]
        kept = [test for test in found if self.but is None or re.search(self.but, test)]
        return [pattern for pattern, matched in ((self.ids, found), (self.but, kept)) if pattern and not matched]


# JAX compiles a program for every case, in half a second to ten: without these rules two thirds of all time.
LEFT_OUT = (
    LeftOut(
        "JAX beyond modes, fused implementations, refusals and a few transforms; S4D and Mamba2 stand for the layers",
        r"^conformance/.*\bjax-",
        but=r"/test_(twins|modes)\.py|/test_inputs\.py::(?!test_(empty|padding)).*float64|test_jax_jit\b|/test_layers\.py.*\b(S4D|Mamba2)\b.*float32",
    ),
    LeftOut(
        "programs of torch.compile and torch.export, which take seconds to trace; some of a kind stay",
        r"^conformance/test_(transforms|mamba_modules).*(compile|export)",
        but=r"of_functions\[(linear_scan|ssd|kernel)\b|do_not_compile|export\[.*\b(S4D|GLA)\b",
    ),
    LeftOut(
        "dense systems as programs of JAX, whose exponentials and powers of matrices take longest to compile",
        r"^conformance/test_(modes|twins)\.py.*(jax-.*dense|(dense_mimo|dplr_pairs-conv|expm\[(batch|large_norm)).*-jax-)",
        but=r"test_lengths.*-scan\]",
    ),
    LeftOut("programs for changing lengths, which take longest to trace", r"^tests/test_(torch|jax)_lengths\.py"),
    LeftOut(
        "modules of Flax and Equinox: the tests of PyTorch's, once more; those of S4D and of MambaLM stay",
        r"^tests/test_(adapters|blocks|generated|(refused_)?(language_)?modules|pretrained(_directories|_families)?|prompts|sequence_model).*(flax|equinox)",
        but=r"default|S4D|integers.*\bMambaLM",
    ),
    LeftOut(
        "habits of Flax and Equinox that are compiled; training with rates of their own stays in both",
        r"^tests/test_equinox_modules\.py::test_(habits|dropout|language_models|files)|^tests/test_flax_modules\.py::test_(files|calls_that|tokens_are)",
    ),
    LeftOut(
        "integers of JAX as lengths, which are compiled for each; GLA's stay",
        r"^tests/test_lengths_of_few_bits\.py.*jax\.numpy",
        but=r"\bGLA\b",
    ),
    LeftOut(
        "long filters on the strictest library, whose loops take the time of seven; NumPy's stay",
        r"^tests/test_narrow_filters\.py.*strictest|^tests/test_rational\.py::test_derivatives\[.*-300\]",
    ),
    LeftOut("what Flax's modules refuse: the texts of PyTorch's, once more", r"^tests/test_refused_.*\[[Ff]lax-"),
    LeftOut(
        "JAX's scans in double precision and at more lengths; what JAX compiles for seconds",
        r"^tests/.*(jax_scans.*\b(64|101|float64|complex128)\b|(gradients|derivatives|one_chunk)_in_jax|other_devices_run|batches_of_numpy|resets_in_jax_and_numpy|same_tokens_in_every|traced_ends)",
    ),
    LeftOut("exponentials of matrices in JAX, whose loop is compiled", r"^tests/test_matrix_exponential\.py::test_jax"),
    LeftOut("a hundred thousand steps and more", r"^tests/.*(hundred_thousand|million)_steps"),
    LeftOut("second derivatives of whole layers", r"gradcheck_twice"),
    LeftOut(
        "examples that train, doctests and pages that compile; the README and the page of layers stay",
        r"^docs/test_(examples|gallery)|^docs/test_docs\.py::test_code_runs\[(index|train|move|add_a_layer)\]|^tests/test_results\.py.*train|^ssm_core/adapters/(flax|equinox)/",
    ),
    LeftOut("every module of Equinox as a program of JAX", r"^tests/test_equinox_modules\.py::test_same_numbers"),
    LeftOut(
        "processes that load a framework anew, but for a few",
        r"^tests/.*(shards_of_two_processes|channels_that_two_devices|memory_of_the_result|bare_name|costs_are_those|accelerate_without|text_goes_on\[jax)",
        but=r"adapters\.flax-False",
    ),
    LeftOut("memory as the benchmark measures it", r"^tests/test_benchmarks\.py::test_a_planted_slowdown"),
    LeftOut("sequences over processes and devices", r"^tests/test_distributed\.py::.*(processes|devices|raises)"),
    LeftOut("training in processes", r"^tests/test_parallel\.py::"),
    LeftOut("two minutes of strange inputs", r"^tests/test_fuzzing\.py"),
    LeftOut("the run that wants a GPU, in miniature", r"^tests/test_benchmarks_gpu\.py::test_in_miniature"),
    LeftOut("the distribution, built and installed", r"^tests/test_packaging\.py::test_wheel"),
)


COLLECTED = pytest.StashKey[list[str]]()  # the ids of all tests that were found, before any is left out
PASSED_BEFORE = pytest.StashKey[frozenset[str]]()  # the ids of those that need not run again


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "short: without what the conftest.py at the top lists, for a first answer; full (the default): every test"
    parser.addoption("--tier", choices=("short", "full"), default="full", help=text)
    text = "run no test that FILE names, and add to it those that pass: several runs that share it run each test once"
    parser.addoption("--once", metavar="FILE", type=Path, help=text)
    text = "a skipped test fails the run: where everything that the tests need is installed"
    parser.addoption("--no-skips", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    file: Path | None = config.getoption("once")
    lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.exists() else ()
    config.stash[PASSED_BEFORE] = frozenset(lines)


def pytest_report_header(config: pytest.Config) -> list[str]:
    if config.getoption("tier") == "full":
        return ["tier: full"]
    return ["tier: short, which leaves out", *(f"  {rule.why}" for rule in LEFT_OUT)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = [item.nodeid for item in items]
    rules = LEFT_OUT if config.getoption("tier") == "short" else ()
    passed = config.stash[PASSED_BEFORE]
    left_out = {item for item in items if item.nodeid in passed or any(rule.holds(item.nodeid) for rule in rules)}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """What has been collected stays to the end, so that the collector of garbage need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):  # the process that starts the workers hears of all
        return
    file: Path | None = session.config.getoption("once")
    if file is not None:
        with file.open("a", encoding="utf-8") as passed:
            passed.writelines(f"{report.nodeid}\n" for report in reporter.stats.get("passed", ()))
    skipped = reporter.stats.get("skipped", ())
    if skipped and session.config.getoption("no_skips") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} skipped, which --no-skips takes for failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    before = config.stash[PASSED_BEFORE]
    if before:
        reporter.write_line(f"{len(before)} passed before, and were not run again")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between files JAX forgets its programs, which it keeps for ever: gigabytes after thousands of tests."""
    jax = sys.modules.get("jax")
    if jax is not None and nextitem is not None and nextitem.path != item.path:
        jax.clear_caches()
