"""Tests that failed, grouped by what they failed of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

KEY = "conformance failure"  # of the properties that a test report carries, also between processes
WIDTH = 160  # of a cause

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(\.\d*)?([eE][-+]?\d+)?(?![\w.])|(?<=[\s(,\[])(inf|nan)(?=[\s),\]]|$)")
_LISTED = re.compile(r"#(, ?#)+")
_WHERE = re.compile(r"^[\w.]+( \([\w ]+\))? on [\w.:-]+ in \w+: |^[\w.]+: ")


@dataclass(frozen=True)
class Failure:
    """One test: what it is about, and the cause in words that other tests with the same cause share."""

    function: str
    backend: str
    dtype: str
    cause: str
    test: str


@dataclass(frozen=True)
class Group:
    cause: str
    failures: tuple[Failure, ...]

    @property
    def functions(self) -> list[str]:
        return sorted({f.function for f in self.failures})

    @property
    def backends(self) -> list[str]:
        return sorted({f.backend for f in self.failures})

    @property
    def example(self) -> str:
        return min((f.test for f in self.failures), key=lambda test: (len(test), test))


def cause_of(error: BaseException) -> str:
    """The kind of an exception and the first line of its message, without what differs from test to test.

    Numbers become #, several of them in a row one; the operation that an error begins with is left out.
    """
    lines = str(error).strip().splitlines()
    text = _WHERE.sub("", lines[0].strip()) if lines else ""
    text = _LISTED.sub("#, ...", _NUMBER.sub("#", _ADDRESS.sub("#", text)))
    text = text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def function_tested(item: Any, compared: Sequence[str]) -> str:
    """The row that a test belongs to: that of its case, or of what it compared, or its file where neither is known."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    function = getattr(params.get("case"), "function", None)
    return function or (compared[-1] if compared else f"({item.path.stem})")


def grouped(failures: Iterable[Failure]) -> list[Group]:
    """By cause, the largest group first."""
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(failure.cause, []).append(failure)
    groups = [Group(cause, tuple(members)) for cause, members in found.items()]
    return sorted(groups, key=lambda group: (-len(group.failures), group.cause))


def listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def lines(groups: Sequence[Group], most: int = 20) -> list[str]:
    """For the terminal: every cause with its count, the functions it touches, and a test to run again."""
    found = []
    for group in groups[:most]:
        found += [f"{len(group.failures)} x {group.cause}", f"    of {listed(group.functions)}"]
        found += [f"    on {listed(group.backends)}; for example {group.example}"]
    if len(groups) > most:
        left = sum(len(group.failures) for group in groups[most:])
        found.append(f"and {left} more of {len(groups) - most} other causes, in the HTML page")
    return found
