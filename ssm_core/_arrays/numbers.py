"""Options that are numbers or flags: NumPy's count as Python's, and what is neither is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .dispatch import is_traced
from .errors import OptionError
from .library import is_array, to_numpy


def plain(x: Any) -> Any:
    """NumPy's numbers and flags, and arrays () whose values are known, as Python's; all else as it is.

    >>> import numpy
    >>> plain(numpy.float32(0.5)), plain(numpy.asarray(3)), plain("zoh")
    (0.5, 3, 'zoh')
    """
    if isinstance(x, np.generic):
        return x.item()
    if not is_array(x) or x.shape != () or is_traced(x):
        return x
    return to_numpy(x).item()


def whole(operation: str, least: int = 1, **options: Any) -> int:
    """The last of the options as Python's number; raises OptionError unless all are whole numbers of at least that."""
    value = None
    for name, given in options.items():
        value = plain(given)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise OptionError(f"{operation}: {name} = {given!r} must be a whole number of at least {least}.")
    return value  # type: ignore[return-value]


def number(operation: str, wanted: str, low: float, high: float, *, open: bool = True, **options: Any) -> float:
    """The last of the options as Python's number; raises OptionError unless all are within the bounds.

    wanted is the end of the message, such as "must be positive"; `open` leaves the bounds out.
    """
    value = None
    for name, given in options.items():
        value = plain(given)
        if not is_number(value) or not (low < value < high if open else low <= value <= high):
            raise OptionError(f"{operation}: {name} = {given!r} {wanted}.")
    return value  # type: ignore[return-value]


def is_number(x: Any) -> bool:
    """Whether x is a real number of Python's, and no flag and no NaN.

    >>> is_number(2), is_number(True), is_number(float("nan"))
    (True, False, False)
    """
    return isinstance(x, int | float) and not isinstance(x, bool) and -math.inf <= x <= math.inf


def flag(operation: str, **options: Any) -> bool:
    """The last of the options as True or False; raises OptionError unless all are one of the two, NumPy's included."""
    value = None
    for name, given in options.items():
        value = plain(given)
        if not isinstance(value, bool):
            raise OptionError(f"{operation}: {name} = {given!r} must be True or False.")
    return value  # type: ignore[return-value]
