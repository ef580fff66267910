"""Two tiers of tests: all of them, and with `--tier short` those that find out soon whether a change broke something.

The short tier runs every function and layer on NumPy and on the strictest array library, everything on PyTorch but its
compiler, the golden numbers on both, fused implementations against generic ones, and one precision of the functions and
modes in JAX. What it leaves out stands in `LEFT_OUT`, and nowhere else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

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


# JAX compiles a program for every case and dtype, in half a second to ten: without these rules two thirds of all time.
LEFT_OUT = (
    LeftOut(
        "JAX in other precisions than float32: the same program, compiled anew",
        r"^conformance/.*\bjax-(float64|complex|float16|bfloat16)",
        but=r"/test_gradients.*(linear_scan|layers\.S4D)\b.*float64",
    ),
    LeftOut(
        "JAX beyond functions, fused implementations and modes; S4D and Mamba2 stand for the layers",
        r"^conformance/.*\bjax-float32",
        but=r"/test_(functions|twins|modes|inputs|table|transforms_jax)\.py|\b(S4D|Mamba2)\b",
    ),
    LeftOut(
        "programs of torch.compile, which take seconds to trace; all modes of a layer and four functions stay",
        r"^conformance/test_(transforms|mamba_modules).*compile",
        but=r"of_the_layer|of_functions\[(linear_scan|convolve|ssd|kernel)\b|forward_mode|do_not_compile",
    ),
    LeftOut(
        "programs for changing lengths, which take longest to trace; one of a kind stays",
        r"^tests/test_(torch|jax)_lengths\.py.*\[",
        but=r"many_lengths\[RTF\]|lengths_and_rates\[S4D\]|any_(batch_and_)?length\[S4\]|without_this_package\[S4D\]",
    ),
    LeftOut(
        "modules of Flax: the tests of PyTorch's, once more; those of S4D and of MambaLM stay",
        r"^tests/test_(adapters|(refused_)?(language_)?modules|pretrained(_directories)?)\.py.*flax",
        but=r"default|S4D|\bMambaLM",
    ),
    LeftOut(
        "JAX's scans in double precision and at more lengths; derivatives in JAX that compile for seconds",
        r"^tests/.*(jax_scans.*\b(64|101|float64|complex128)\b|gradients_in_jax|beyond_the_squarings)",
    ),
    LeftOut("examples that train, and doctests that train", r"^docs/test_examples|^ssm_core/adapters/flax/"),
    LeftOut("processes that load PyTorch anew", r"^tests/test_torch_tools\.py::test_shards_of_two_processes"),
    LeftOut("two minutes of strange inputs", r"^tests/test_fuzzing\.py"),
    LeftOut("the run that wants a GPU, in miniature", r"^tests/test_benchmarks_gpu\.py::test_in_miniature"),
    LeftOut("the distribution, built and installed", r"^tests/test_packaging\.py::test_wheel"),
)


COLLECTED = pytest.StashKey[list[str]]()  # the ids of all tests that were found, before any is left out


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "short: without what the conftest.py at the top lists, for a first answer; full (the default): every test"
    parser.addoption("--tier", choices=("short", "full"), default="full", help=text)


def pytest_report_header(config: pytest.Config) -> list[str]:
    if config.getoption("tier") == "full":
        return ["tier: full"]
    return ["tier: short, which leaves out", *(f"  {rule.why}" for rule in LEFT_OUT)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = [item.nodeid for item in items]
    if config.getoption("tier") == "full":
        return
    left_out = {item for item in items if any(rule.holds(item.nodeid) for rule in LEFT_OUT)}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between files JAX forgets its programs, which it keeps for ever: gigabytes after thousands of tests."""
    jax = sys.modules.get("jax")
    if jax is not None and nextitem is not None and nextitem.path != item.path:
        jax.clear_caches()
