"""What the suite says of a library before it runs anything on it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
import pytest

from .backends import Absent, Namespace, lacks_of, load


class Wrapped:
    """An array of another library: it has what is given of the standard, and reads entry by entry only."""

    def __init__(self, x: Any) -> None:
        self.held = np.asarray(x)
        self.shape, self.dtype = self.held.shape, self.held.dtype

    def __getitem__(self, index: Any) -> Any:
        return self.held[index]


class Standard(Wrapped):
    def __array_namespace__(self) -> Any:
        return array_api_strict


class Older(Wrapped):
    def __array_namespace__(self) -> Any:
        return SimpleNamespace(asarray=Older)


def refusing(x: Any) -> Any:
    raise TypeError("no arrays of NumPy")


@pytest.mark.parametrize(
    ("make", "lack"),
    [
        (Wrapped, r"its arrays \(.*test_backends\.Wrapped\) have no __array_namespace__"),
        (Older, "no __array_namespace_info__"),
        (refusing, "makes no array of NumPy's: TypeError: no arrays of NumPy"),
    ],
)
def test_what_a_namespace_lacks_is_one_line(make: Any, lack: str):
    found = lacks_of(SimpleNamespace(asarray=make))
    assert found is not None
    assert re.search(lack, found)
    assert "\n" not in found


def test_namespaces_of_the_standard_lack_nothing():
    assert lacks_of(array_api_strict) is None
    assert lacks_of(SimpleNamespace(asarray=Standard)) is None


@pytest.mark.parametrize(("name", "why"), [("json", "no asarray"), ("not_a_package", "not installed")])
def test_modules_that_are_no_namespace_are_absent_with_a_reason(name: str, why: str):
    with pytest.raises(Absent, match=why):
        load(name)


@pytest.mark.parametrize("x", [np.ones((2, 3)), np.asarray(2.0 + 1j), np.asarray([True, False]), np.zeros((0, 2))])
def test_arrays_are_read_entry_by_entry_where_nothing_else_is_there(x: np.ndarray):
    found = Namespace("other", array_api_strict, array_api_strict).to_numpy(Wrapped(x))
    np.testing.assert_array_equal(found, x)
