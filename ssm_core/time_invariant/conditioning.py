"""How much a rational system magnifies roundings, and what is refused for it.

Each step of a * h = b rounds sum_j a_j h_{k-j}; the roundings reach later taps through g = 1/a. With roundings of eps
|a|_2 |h_j|, as independent ones are,

    error_k = eps m_k max|h|,   m_k = |a|_2 (sum_j |g_{k-j} h_j|^2)^(1/2) / max|h|

Rounding the coefficients themselves does as much. Filters whose poles are clustered near the circle have large m:
1e6 for `butter(4, 0.01)`, 1e12 for `butter(8, 0.01)`.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.errors import DomainError
from .._arrays.library import to_numpy
from ..systems.companion import coefficients
from ..systems.records import Rational
from .rational import impulse_response

LARGEST_ERROR = 1e-3  # relative to the largest tap
LONGEST = 2**14  # steps that are looked at


def magnification(system: Rational, length: int) -> float:
    """The largest m_k of the systems of a batch on the host, over the first steps, up to `length`."""
    arrays = (np.asarray(x, np.result_type(x, np.float64)) for x in (system.numerator, system.denominator))
    b, a = coefficients(Rational(*arrays), compat)
    length = min(length, LONGEST)
    with np.errstate(all="ignore"):
        h, g = (np.abs(impulse_response(x, a, length, compat)) ** 2 for x in (b, np.ones_like(a[..., :1])))
        ends = [*(2**i for i in range(length.bit_length())), length]
        sums = [np.sum(h[..., :k] * g[..., k - 1 :: -1] if k < length else h * g[..., ::-1], axis=-1) for k in ends]
        scale = np.max(h, axis=-1, initial=0.0)
        found = np.sum(np.abs(a) ** 2, axis=-1) * np.max(sums, axis=0) / np.where(scale == 0, 1, scale)
    return float(np.sqrt(np.max(found, initial=0.0))) if np.all(np.isfinite(found)) else 0.0


def check_magnification(operation: str, system: Any, length: int, always: bool) -> None:
    """Raise where roundings of double precision leave fewer than three digits, if the values may be read."""
    arrays = system.numerator, system.denominator
    readable = all(isinstance(x, np.ndarray) for x in arrays) or (always and not any(map(is_traced, arrays)))
    if not readable:
        return
    system = Rational(*map(to_numpy, arrays))
    b, a = system.numerator, system.denominator
    if length == 0 or 0 in b.shape or np.all(np.sum(np.abs(a[..., 1:]), axis=-1) <= np.abs(a[..., 0])):
        return
    check_digits(operation, magnification(system, length), np.finfo(np.float64).eps / 2, "Run second-order sections "
                 "one after another (scipy.signal.butter(..., output='sos')), each a Rational system.")  # fmt: skip


def check_digits(operation: str, found: float, eps: float, instead: str) -> None:
    """Raise where roundings of eps, magnified so many times, are too large."""
    if found * eps > LARGEST_ERROR:
        raise DomainError(
            f"{operation}: the coefficients are ill-conditioned: they magnify roundings {found:.1e} times, of which "
            f"this precision ({eps:.1e}) can bear {LARGEST_ERROR / eps:.1e}; the system itself may be stable. {instead}"
        )
