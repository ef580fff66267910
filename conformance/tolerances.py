"""How far a result may be from the truth, and the one comparison that the suite makes.

Errors are relative to the largest entry of the expected array: `max |actual - expected| / max |expected|`.

    tolerance = eps (BASE sqrt(terms) + phase) [+ eps_half / 2 for a result that is rounded to half precision]

eps    the rounding unit of the dtype that is computed in: half precision computes in float32
terms  the numbers that a sum accumulates or the steps that a recurrence takes: independent roundings grow with the
       square root of their number
phase  what long powers z^l lose: the rounding of an exponent w l is eps |w l|, and the power itself decays with
       e^(l Re w), so relative to the largest tap it costs |w| min(L, 1/|Re w|)

The truth is computed in double precision or better from the same rounded inputs. Numbers of other implementations
(golden) were computed in double precision, whose own error the files put at 1e-13 or less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .backends import HALF, STANDARD, Backend
from .recording import Comparison, record

EPS = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}
BASE = 16.0  # roundings that one operation of a chain may add up to
GOLDEN = {"float64": 1e-11, "float32": 1e-4}  # the numbers themselves are promised to 1e-9, and hold 1e-13


def tolerance(dtype: str, *, terms: float = 1, phase: float = 0.0) -> float:
    """The largest error allowed for a result computed from inputs of this dtype (formula above)."""
    half = EPS[dtype] / 2 if dtype in HALF else 0.0
    return half + EPS[precision(dtype)] * (BASE * max(terms, 1) ** 0.5 + phase)


def phase_budget(w: Any, length: int) -> float:
    """|w| min(L, 1/|Re w|), the largest over all exponents w = dt * poles."""
    w = np.asarray(w)
    with np.errstate(divide="ignore"):
        return float(np.max(np.abs(w) * np.minimum(length, 1 / np.abs(w.real)), initial=0.0))


def precision(dtype: str) -> str:
    """The real dtype that numbers of this dtype are computed in."""
    return "float64" if dtype in ("float64", "complex128") else "float32"


def of_kind(dtype: str, like: np.ndarray) -> str:
    """The name of the real or complex dtype, whichever `like` is, in the precision of dtype."""
    return STANDARD[STANDARD.index(precision(dtype)) + (2 if np.iscomplexobj(like) else 0)]


def relative_error(actual: np.ndarray, expected: np.ndarray, scale: float | None = None) -> float:
    """max |actual - expected| / max |expected| (or scale), absolute where that is 0; inf for NaN."""
    if expected.size == 0:
        return 0.0
    error, scale = np.max(np.abs(actual - expected)), np.max(np.abs(expected)) if scale is None else scale
    return float(error / scale) if scale > 0 and np.isfinite(error) else float(error if np.isfinite(error) else np.inf)


def assert_close(
    actual: Any,
    expected: Any,
    backend: Backend,
    dtype: str,
    *,
    function: str,
    terms: float = 1,
    phase: float = 0.0,
    allowed: float | None = None,
    half: bool = False,
) -> None:
    """Check the library, device, dtype, shape and values of a result, and note its error for the report.

    dtype     that of the inputs; the result must have its precision, and be real or complex as `expected` is
    half      the result comes back in the half precision of the input
    function  the row of the report
    allowed   a tolerance that replaces the one of `terms` and `phase`
    """
    expected = np.asarray(expected)
    wanted = dtype if half and dtype in HALF else of_kind(dtype, expected)
    problem = _mismatch(actual, expected.shape, backend, wanted)
    if problem:
        record(Comparison(function, backend.name, dtype, float("inf"), 0.0))
        raise AssertionError(f"{function} on {backend} in {dtype}: {problem}")
    compare(backend.to_numpy(actual), expected, backend, dtype, function=function, terms=terms, phase=phase,
            allowed=allowed)  # fmt: skip


def _mismatch(actual: Any, shape: tuple[int, ...], backend: Backend, dtype: str) -> str | None:
    """What is wrong with a result, its values apart."""
    if not backend.owns(actual):
        return f"the result is a {type(actual).__module__}.{type(actual).__name__}"
    if not backend.on_device(actual):
        return f"the result is on {backend.device_of(actual)}, not on {backend.device}"
    if actual.dtype != backend.dtype(dtype):
        return f"the result has dtype {actual.dtype}, not {dtype}"
    if tuple(actual.shape) != shape:
        return f"the result has shape {tuple(actual.shape)}, not {shape}"
    return None


def compare(
    actual: np.ndarray,
    expected: np.ndarray,
    backend: Backend,
    dtype: str,
    *,
    function: str,
    terms: float = 1,
    phase: float = 0.0,
    allowed: float | None = None,
    scale: float | None = None,
) -> None:
    """Check values that are on the host already; relative to scale instead of the largest entry where it is given."""
    assert actual.shape == expected.shape, f"{function}: shape {actual.shape}, not {expected.shape}"
    allowed = tolerance(dtype, terms=terms, phase=phase) if allowed is None else allowed
    error = relative_error(actual, expected, scale)
    record(Comparison(function, backend.name, dtype, error, allowed))
    assert error <= allowed, f"{function} on {backend} in {dtype}: error {error:.2e} > {allowed:.2e}"
