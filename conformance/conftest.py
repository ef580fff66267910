"""Options, header, parametrization over backends and dtypes, and the closing report.

A test that asks for `backend` runs once for every backend that is here; with `dtype` too, for every dtype of each;
with `case` too, for every case of a table. Markers narrow this down, those of a test before those of its module:

    @pytest.mark.backends("torch", "jax")     families of libraries, or the names of single backends
    @pytest.mark.dtypes("float32", "float64")
    @pytest.mark.cases(CASES)                 objects with `label`, `function` and `dtypes`
    @pytest.mark.fast_paths                   about fused code and compilers: left out of a run with --generic
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import ssm_core

from . import failures, recording, report
from .backends import ALIASES, KNOWN, Backend, load_all
from .capabilities import BY_NAME


@dataclass
class Run:
    """What this run of the suite is about."""

    backends: list[Backend]
    absent: dict[str, str]
    worst: recording.Worst = field(default_factory=recording.Worst)


RUN = pytest.StashKey[Run]()
ONLY_IF_NAMED = ("array_api_strict",)  # "strictest" is the same library and allows less


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--namespace", metavar="MODULE", help="run on this array-API module only")
    group.addoption("--backend", action="append", default=[], metavar="NAME", help=f"restrict to {', '.join(KNOWN)}")
    group.addoption("--generic", action="store_true", help="without fast paths: the generic bodies everywhere")
    group.addoption("--require", action="append", default=[], metavar="NAME", help="fail where it cannot run")
    group.addoption(
        "--report", type=Path, default=Path(__file__).with_name("report.html"), metavar="PATH", help="the HTML page"
    )


def pytest_configure(config: pytest.Config) -> None:
    namespace, wanted, required = (config.getoption(name) for name in ("namespace", "backend", "require"))
    unknown = sorted({*wanted} - {*KNOWN, *ALIASES})
    if unknown:
        raise pytest.UsageError(f"--backend {unknown[0]}: unknown. Known: {', '.join(KNOWN)}; others by --namespace.")
    names = [*wanted, *([namespace] if namespace else [])]
    names = names or [name for name in KNOWN if name not in ONLY_IF_NAMED]
    backends, absent = load_all(names)
    if namespace in absent:
        raise pytest.UsageError(f"--namespace {namespace}: {absent[namespace]}")
    running = {b.name for b in backends} | ({namespace} if namespace else set())
    for name in required:
        if name not in running:
            raise pytest.UsageError(f"--require {name}: {absent.get(name, 'not among the backends of this run')}")
    if not backends:
        raise pytest.UsageError("no backend can run: " + "; ".join(f"{n}: {why}" for n, why in absent.items()))
    for backend in backends:
        backend.generic = config.getoption("generic")
    config.stash[RUN] = Run(backends, absent)


def pytest_report_header(config: pytest.Config) -> list[str]:
    run = config.stash[RUN]
    return ["conformance:", *(f"  {line}" for line in report.header(run.backends, run.absent))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    names = [name for name in ("case", "backend", "dtype") if name in metafunc.fixturenames]
    backends = _chosen_backends(metafunc)
    cases = metafunc.definition.get_closest_marker("cases").args[0] if "case" in names else [None]
    rows = [
        pytest.param(*values, id="-".join(ids), marks=marks)
        for case, backend in itertools.product(cases, backends)
        for values, ids, marks in _rows(names, case, backend, metafunc)
    ]
    if not rows:
        mark = metafunc.definition.get_closest_marker("backends")
        asked = ", ".join(mark.args) if mark else "a dtype of its own"
        reason = f"no backend of this run fits (needs: {asked})"
        rows = [pytest.param(*[None] * len(names), id="none", marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize(names, rows)


def _chosen_backends(metafunc: pytest.Metafunc) -> list[Backend]:
    found = metafunc.config.stash[RUN].backends
    mark = metafunc.definition.get_closest_marker("backends")
    return [b for b in found if mark is None or b.family in mark.args or b.name in mark.args]


def _rows(names: list[str], case: Any, backend: Backend, metafunc: pytest.Metafunc) -> Iterator[Any]:
    """(values, ids, marks) for one case on one backend, a dtype each where the test asks for dtypes."""
    dtypes: list[str | None] = [None]
    if "dtype" in names:
        asked = [d for d in backend.dtypes if case is None or d in case.dtypes]
        mark = metafunc.definition.get_closest_marker("dtypes")
        asked = [d for d in asked if mark is None or d in mark.args]
        dtypes = [*(_taking_turns(asked, metafunc.definition.name, case) if backend.one_precision else asked)]
    row = None if case is None else BY_NAME[case.function]
    reason = None if row is None else row.refused.get(backend.family) or row.missing(backend.xp)
    marks = [pytest.mark.skip(reason=f"{case.function} on {backend.name}: {reason}")] if reason else []
    for dtype in dtypes:
        values = {"case": case, "backend": backend, "dtype": dtype}
        ids = {"case": getattr(case, "label", ""), "backend": backend.name, "dtype": dtype}
        yield [values[n] for n in names], [str(ids[n]) for n in names], marks


def _taking_turns(dtypes: list[str], test: str, case: Any) -> list[str]:
    """Of single and double precision one, and of the halves: to compile a program takes seconds, and again for others.

    The cases of a table take turns, so that every test sees both; what has no table, as golden numbers, is in double.
    """
    turn = case is None or zlib.crc32(f"{test} {case.label}".encode()) % 2
    for first, second in (("float32", "float64"), ("complex64", "complex128"), ("bfloat16", "float16")):
        if {first, second} <= {*dtypes} and (case is not None or second != "float16"):
            dtypes = [d for d in dtypes if d != (first if turn else second)]
    return dtypes


@pytest.fixture
def torch_too(request: pytest.FixtureRequest) -> Backend:
    """PyTorch, for tests that hold JAX against it."""
    run = request.config.stash[RUN]
    for backend in run.backends:
        if backend.name == "torch":
            return backend
    pytest.skip(f"the other framework, torch: {run.absent.get('torch', 'not among the backends of this run')}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fixtures and test run with the library set up for the dtype: x64 in JAX, the flags of array_api_strict.

    Pytest calls this for the tests of other folders too; their `backend`, if they have one, is another.
    """
    params = item.callspec.params if hasattr(item, "callspec") else {}
    backend = params.get("backend")
    if not isinstance(backend, Backend):
        return (yield)
    with backend.activated(params.get("dtype") or "float64"), _paths(item.config):
        return (yield)


def _paths(config: pytest.Config) -> AbstractContextManager[None]:
    """The fused implementations, or with --generic the generic bodies everywhere."""
    return ssm_core.use_backend("generic" if config.getoption("generic") else "auto")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without fast paths, what is about them is left out."""
    if config.getoption("generic"):
        about = [item for item in items if item.get_closest_marker("fast_paths")]
        config.hook.pytest_deselected(items=about)
        items[:] = [item for item in items if item not in set(about)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """What a test compared, and what it failed of, go with its report."""
    comparisons = recording.drained() if call.when == "call" else []
    if comparisons:
        item.user_properties.append((recording.KEY, comparisons))
    test = yield
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if test.failed and call.excinfo is not None and isinstance(params.get("backend"), Backend):
        function = failures.function_tested(item, [c[0] for c in comparisons])
        dtype, cause = params.get("dtype") or "float64", failures.cause_of(call.excinfo.value)
        found = (function, params["backend"].name, dtype, cause, item.nodeid)
        test.user_properties.append((failures.KEY, found))
    return test


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run, failed = config.stash[RUN], []
    reports = [r for found in terminalreporter.stats.values() for r in found if isinstance(r, pytest.TestReport)]
    for test in reports:
        for key, held in test.user_properties:
            if key == recording.KEY and test.when == "call":
                run.worst.add(recording.Comparison(*c) for c in held)
            elif key == failures.KEY:
                failed.append(failures.Failure(*held))
                run.worst.fail(*held[:3])
    groups = failures.grouped(failed)
    lines = report.terminal(run.worst, groups, run.backends, run.absent)
    if not lines:
        return
    terminalreporter.section("conformance")
    for line in lines:
        terminalreporter.write_line(line)
    path = config.getoption("report")
    counts = {kind: len(terminalreporter.stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")}
    outcome = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    report.write_html(path, run.worst, groups, run.backends, run.absent, outcome)
    terminalreporter.write_line(f"report: {path}")
