"""One exception family and its four-part message: operation, shapes, values, cause; then the call to write."""

from __future__ import annotations

from typing import Any


class SSMError(Exception):
    """Base class of every error that ssm_core raises on purpose."""


class ShapeError(SSMError, ValueError):
    """Axes or sizes that do not fit together."""


class DTypeError(SSMError, TypeError):
    """An array of a dtype the operation has no meaning for, or something that is no array."""


class OptionError(SSMError, ValueError):
    """An unknown name, or options that exclude each other."""


class DomainError(SSMError, ValueError):
    """A value outside the domain of the operation, such as dt <= 0."""


class MixedArraysError(SSMError, TypeError):
    """Arrays of several frameworks or devices in one call."""


class MissingPackageError(SSMError, ImportError):
    """An optional package that a feature needs is not installed."""


class Described:
    """Shapes and values in words, written only when they are read: torch.compile cannot write sizes that vary."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays

    def __str__(self) -> str:
        return ", ".join(f"{name}: {_shape_or_value(x)}" for name, x in self.arrays.items() if x is not None)


def describe(**arrays: Any) -> Described:
    """The shapes (or values) given, for a message.

    >>> import numpy
    >>> print(describe(A=numpy.ones((8, 64)), dt=0.1))
    A: (8, 64), dt: 0.1
    """
    return Described(arrays)


def _shape_or_value(x: Any) -> str:
    shape = getattr(x, "shape", None)
    return repr(x) if shape is None else str(tuple(shape))


def unknown(operation: str, what: str, given: object, known: Any) -> OptionError:
    """The error for a name that is not in the list of known ones."""
    names = ", ".join(repr(name) for name in known)
    return OptionError(f"{operation}: unknown {what} {given!r}. Known: {names}.")
