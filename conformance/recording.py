"""What the comparisons of a test leave behind for the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KEY = "conformance"  # of the properties that a test report carries, also between processes


@dataclass(frozen=True)
class Comparison:
    """One result held against the truth: its error relative to the largest entry, and the error allowed."""

    function: str
    backend: str
    dtype: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


_of_this_test: list[Comparison] = []


def record(comparison: Comparison) -> None:
    _of_this_test.append(comparison)


def drained() -> list[tuple[Any, ...]]:
    """The comparisons since the last call, the worst for each cell of the report, as plain values."""
    worst = Worst()
    worst.add(_of_this_test)
    _of_this_test.clear()
    return [(c.function, c.backend, c.dtype, float(c.error), float(c.allowed)) for c in worst.cells.values()]


class Worst:
    """The worst comparison for every function, backend and dtype: a failed one before one that passed.

    And the number of tests that failed there, which may be before they compared anything.
    """

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str, str], Comparison] = {}
        self.failed: dict[tuple[str, str, str], int] = {}

    def add(self, comparisons: Iterable[Comparison]) -> None:
        for c in comparisons:
            key = (c.function, c.backend, c.dtype)
            held = self.cells.get(key)
            if held is None or (not c.passed, c.error) > (not held.passed, held.error):
                self.cells[key] = c

    def fail(self, function: str, backend: str, dtype: str) -> None:
        key = (function, backend, dtype)
        self.failed[key] = self.failed.get(key, 0) + 1
