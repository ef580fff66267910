"""Checks of values: on numbers and host arrays always, on other arrays only where the caller asks for it.

A check reads the array back, which would stall a device and fail under a trace.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .dispatch import dispatched
from .errors import DomainError
from .library import Array, Namespace, is_array

_OF_NUMPY = (np.ndarray, np.generic)


def check_finite(operation: str, xp: Namespace, always: bool = False, **arrays: Any) -> None:
    """Raise if an array that may be read holds NaN or inf."""
    for name, x in arrays.items():
        if _readable(x, always) and not _holds(x, xp, lambda v, xp: xp.isfinite(v), lambda v: abs(v) < math.inf):
            raise DomainError(f"{operation}: {name} holds NaN or inf{_shape(x)}.")


def check_positive(operation: str, xp: Namespace, always: bool = False, **arrays: Any) -> None:
    """Raise if an array or number that may be read is not positive and finite everywhere."""
    for name, x in arrays.items():
        if not _readable(x, always):
            continue
        if not _holds(x, xp, lambda v, xp: xp.isfinite(v) & (v > 0), lambda v: 0 < v < math.inf):
            value = f" = {x!r}" if not is_array(x) else _shape(x)
            raise DomainError(f"{operation}: {name}{value} must be positive and finite.")


def bounds(x: Array) -> tuple[int, int] | None:
    """The smallest and the largest of integers, None where there are none or to read them would stall a device."""
    found: tuple[int, int] | None = None if 0 in x.shape else _bounds(x)
    return found


@dispatched
def _bounds(x: Array) -> tuple[int, int] | None:
    return None


def at_hand(x: Array) -> bool:
    """Whether the host has the numbers of an array, which are read at no cost: those of NumPy, or of a CPU."""
    return isinstance(x, _OF_NUMPY) or bool(_on_host(x))


@dispatched
def _on_host(x: Array) -> bool:
    return False


def _readable(x: Any, always: bool) -> bool:
    return isinstance(x, (np.ndarray, np.generic, int, float)) or (always and is_array(x))


def _holds(x: Any, xp: Namespace, of_array: Any, of_number: Any) -> bool:
    if isinstance(x, (int, float, np.generic)):
        return bool(of_number(x))
    library = np if isinstance(x, np.ndarray) else xp
    return bool(library.all(of_array(x, library)))


def _shape(x: Any) -> str:
    return f" (shape {tuple(x.shape)})" if is_array(x) else ""


def overflow_ignored(x: Array) -> AbstractContextManager[Any]:
    """NumPy's warnings of overflow left out: `check_growth` names the cause. Other libraries do not warn."""
    return np.errstate(over="ignore", invalid="ignore") if isinstance(x, _OF_NUMPY) else nullcontext()
