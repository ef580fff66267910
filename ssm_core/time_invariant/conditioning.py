"""How much a rational system magnifies roundings, and what is refused for it.

Each step of a * h = b rounds sum_j a_j h_{k-j}; the roundings reach later taps through g = 1/a. They are independent,
of size eps |a|_2 |h_j|. Those of the coefficients are the same at every step: of a they add up to a * (g * h), of b to
b * g. So, with one number each for the steps, a and b,

    error_k = eps m_k max|h|,   m_k^2 = |a|_2^2 (sum_j |g_{k-j} h_j|^2 + |(g * h)_k|^2) / max|h|^2
                                        + |b|_2^2 max|g|^2 / max|h|^2

Filters whose poles are clustered near the circle have large m: 1e7 for `butter(4, 0.01)`, 1e13 for `butter(8, 0.01)`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.errors import DomainError
from .._arrays.library import Array, namespace, to_numpy
from .._arrays.values import at_hand
from ..systems.companion import coefficients
from ..systems.records import Rational
from .rational import impulse_response, in_double

# Relative to the largest tap; estimates are those of errors that all add up, mostly larger than found.
LARGEST_ERROR = 3e-3
LONGEST = 2**14  # steps that are looked at

Stored = tuple[bytes, Any, tuple[int, ...]]  # of an array, its numbers, dtype and shape


def magnification(system: Rational, length: int) -> float:
    """The largest m_k of the systems of a batch on the host, over the first steps, up to `length`."""
    arrays = (np.asarray(x, np.result_type(x, np.float64)) for x in (system.numerator, system.denominator))
    b, a = coefficients(Rational(*arrays), compat)
    return _magnification(*((x.tobytes(), x.dtype, x.shape) for x in (b, a)), min(length, LONGEST))


@lru_cache(maxsize=32)  # a filter meets many signals
def _magnification(numerator: Stored, denominator: Stored, length: int) -> float:
    b, a = (np.frombuffer(numbers, dtype).reshape(shape) for numbers, dtype, shape in (numerator, denominator))
    batch, n = np.broadcast_shapes(b.shape[:-1], a.shape[:-1]), max(b.shape[-1], 1)
    both = np.zeros((2, *batch, n), np.result_type(a, b))
    both[0, ..., : b.shape[-1]], both[1, ..., 0] = b, 1
    with np.errstate(all="ignore"):
        h, g = impulse_response(both, a, length, compat)
        twice = impulse_response(h, a, length, compat)
        h, g, twice = (np.abs(x) ** 2 for x in (h, g, twice))
        ends = [*(2**i for i in range(length.bit_length())), length]
        sums = [np.sum(h[..., :k] * g[..., k - 1 :: -1] if k < length else h * g[..., ::-1], axis=-1) for k in ends]
        scale = np.max(h, axis=-1, initial=0.0)
        of_a = np.sum(np.abs(a) ** 2, axis=-1) * (np.max(sums, axis=0) + np.max(twice, axis=-1, initial=0.0))
        of_b = np.sum(np.abs(b) ** 2, axis=-1) * np.max(g, axis=-1, initial=0.0)
        found = (of_a + of_b) / np.where(scale == 0, 1, scale)
    return float(np.sqrt(np.max(found, initial=0.0))) if np.all(np.isfinite(found)) else 0.0


def check_magnification(operation: str, system: Any, length: int, always: bool) -> None:
    """Raise where roundings leave fewer than two or three digits, if the values are at hand or are to be read."""
    arrays = system.numerator, system.denominator
    if not looked_at(arrays, always):
        return
    eps = roundings(*arrays)
    system = Rational(*map(to_numpy, arrays))
    b, a = system.numerator, system.denominator
    if length == 0 or 0 in b.shape or np.all(np.sum(np.abs(a[..., 1:]), axis=-1) <= np.abs(a[..., 0])):
        return
    instead = "Run second-order sections one after another (scipy.signal.butter(..., output='sos')), each Rational"
    instead += "." if eps < 1e-10 else ", or compute in double precision (JAX: jax_enable_x64)."
    check_digits(operation, magnification(system, length), eps, instead)


def looked_at(arrays: tuple[Array, ...], always: bool) -> bool:
    """Whether the digits of a result are judged by these arrays: silence costs more here than to look at a CPU's."""
    return all(map(at_hand, arrays)) or (always and not any(map(is_traced, arrays)))


def roundings(*arrays: Array) -> float:
    """Half the distance from 1 to the next number, in double precision where the library has it."""
    xp = namespace("roundings", **{str(i): x for i, x in enumerate(arrays)})
    return float(xp.finfo(in_double(arrays[0], xp).dtype).eps) / 2


def check_digits(operation: str, found: float, eps: float, instead: str) -> None:
    """Raise where roundings of eps, magnified so many times, are too large."""
    if found * eps > LARGEST_ERROR:
        raise DomainError(
            f"{operation}: the coefficients are ill-conditioned: they magnify roundings {found:.1e} times, of which "
            f"this precision ({eps:.1e}) can bear {LARGEST_ERROR / eps:.1e}; the system itself may be stable. {instead}"
        )
