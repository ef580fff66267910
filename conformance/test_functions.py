"""Every public function, on every backend, in every dtype, against the truth in double precision."""

from __future__ import annotations

import pytest

from . import backends
from .backends import Backend
from .cases import functions, summaries, systems
from .cases.functions import Case
from .tolerances import assert_close

ALL = (*functions.ALL, *systems.ALL, *summaries.ALL)


@pytest.mark.cases(ALL)
def test_against_truth(case: Case, backend: Backend, dtype: str):
    arrays, values = case.inputs(backend, dtype)
    check(case, backend, dtype, case.results(backend, arrays), values)


@pytest.mark.cases([case for case in ALL if not case.on_host])
@pytest.mark.backends("strictest")
@pytest.mark.dtypes("float32", "complex64")
def test_stays_on_a_device_that_is_not_the_default(case: Case, backend: Backend, dtype: str):
    """Arrays of several devices do not mix in array_api_strict, so one that is made on the default device fails."""
    elsewhere = backends.other_device(backend)
    arrays, values = case.inputs(elsewhere, dtype)
    check(case, elsewhere, dtype, case.results(elsewhere, arrays), values)


def check(case: Case, backend: Backend, dtype: str, results: tuple, values: object) -> None:
    expected = case.expected(values)
    assert len(results) == len(expected)
    for actual, wanted, half in zip(results, expected, case.half * len(expected), strict=False):
        assert_close(actual, wanted, backend, dtype, function=case.function, terms=case.terms, half=half)
