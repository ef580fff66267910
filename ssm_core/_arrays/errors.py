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


class MissingAttributeError(SSMError, AttributeError):
    """An attribute that there would be with another package: `hasattr` answers False."""


class MissingFileError(SSMError, FileNotFoundError):
    """A file or directory that is not there."""


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


class Stated(Described):
    """Values by name, as `describe` writes them late: rate = 2.0."""

    def __str__(self) -> str:
        return ", ".join(f"{name} = {x!r}" for name, x in self.arrays.items())


def stated(**values: Any) -> Stated:
    """Values for a message that a compiler may trace, where they may be symbols.

    >>> print(stated(rate=2.0))
    rate = 2.0
    """
    return Stated(values)


def _shape_or_value(x: Any) -> str:
    shape = getattr(x, "shape", None)
    return repr(x) if shape is None else str(tuple(shape))


def is_absent(error: ImportError, *packages: str) -> bool:
    """Whether an import failed because one of these packages is not installed, and for no other cause."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in packages


def absent(operation: str, error: ImportError, *packages: str, extra: str) -> ImportError:
    """The error for an import that failed: what to install, where one of these packages is absent; else itself."""
    if not is_absent(error, *packages):
        return error
    return MissingPackageError(
        f"{operation}: {(error.name or '').partition('.')[0]} is not installed. "
        f"Install it: pip install 'ssm-core[{extra}]'."
    )


def unknown(operation: str, what: str, given: object, known: Any) -> OptionError:
    """The error for a name that is not in the list of known ones."""
    names = ", ".join(repr(name) for name in known)
    return OptionError(f"{operation}: unknown {what} {given!r}. Known: {names}.")
