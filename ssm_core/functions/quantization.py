"""Sound as whole numbers: linear and mu-law quantization of clips, as SaShiMi and its predecessors have them.

    z = (law(x) + 1) / 2,   q = floor(V z),   x = law^-1(2 q / V - 1)
    linear  law(x) = x
    mu_law  law(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),   mu = V - 1

x lies in [-1, 1], q in [0, V). Silence is V / 2 and comes back as 0; what comes back is quantized to the same q again.
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.errors import DomainError, DTypeError, ShapeError, describe, unknown
from .._arrays.idioms import clip
from .._arrays.library import Array, Namespace, computable, device, dtype_name, namespace, real_floating, require_arrays
from .._arrays.numbers import flag, whole
from .._arrays.values import bounds, check_finite

LAWS = ("mu_law", "linear")
SLACK = 0.005  # of a cell: what comes back lies on an edge of its cell, give or take a rounding error


def quantize(x: Array, *, law: str = "mu_law", levels: int = 256, minmax: bool = False) -> Array:
    """Samples of sound as whole numbers in [0, levels).

    q = floor(levels (law(x) + 1) / 2), at most levels - 1;   mu_law(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)

    x        (..., L)  real floating, in [-1, 1]; what lies beyond is clipped
    law      "mu_law", with mu = levels - 1, or "linear"
    levels   V, 2 ** bits
    minmax   first every clip x[..., :] is stretched to [-1, 1] from its smallest to its largest sample, a silent one
             to 0
    returns  (..., L)  integer

    Raises DTypeError, OptionError, ShapeError (minmax of clips of no samples) and DomainError (NaN or inf in NumPy).
    Source: ITU-T G.711; the cells are those of state-spaces/s4, but for a hundredth of a cell at their edges.

    >>> import numpy, ssm_core
    >>> ssm_core.quantize(numpy.asarray([-1.0, -0.01, 0.0, 0.01, 1.0]))
    array([  0,  98, 128, 157, 255])
    >>> ssm_core.quantize(numpy.asarray([-1.0, -0.01, 0.0, 0.01, 1.0]), law="linear")
    array([  0, 126, 128, 129, 255])
    """
    require_arrays("quantize", x=x)
    xp = namespace("quantize", x=x)
    real_floating("quantize", x=x)
    levels = _checked("quantize", law, levels)
    check_finite("quantize", xp, x=x)
    y = computable(x, xp)
    if flag("quantize", minmax=minmax):
        y = _stretched(y, xp)
    y = clip(y, -1.0, 1.0)
    if law == "mu_law":
        y = xp.sign(y) * xp.log1p((levels - 1) * xp.abs(y)) / math.log(levels)
    q = xp.floor((y + 1) * (levels / 2) + SLACK)
    return xp.astype(clip(q, 0.0, float(levels - 1)), xp.arange(1).dtype)


def dequantize(q: Array, *, law: str = "mu_law", levels: int = 256, dtype: Any = None) -> Array:
    """Samples of sound in [-1, 1) from whole numbers in [0, levels): the inverse of `quantize`.

    y = 2 q / levels - 1;   x = y, or of mu_law sign(y) ((1 + mu)^|y| - 1) / mu

    q        (...)  integer; where it cannot be read, what lies outside is clipped
    law      "mu_law", with mu = levels - 1, or "linear"
    levels   V
    dtype    of the result; float32 if None
    returns  (...)  dtype

    Raises DTypeError, OptionError and DomainError (levels that there are not).
    Source: ITU-T G.711, as in `quantize`.

    >>> import numpy, ssm_core
    >>> ssm_core.dequantize(numpy.asarray([0, 128, 192]), law="linear")
    array([-1. ,  0. ,  0.5], dtype=float32)
    >>> ssm_core.dequantize(numpy.asarray([0, 128, 192])).round(4)
    array([-1.    ,  0.    ,  0.0588], dtype=float32)
    """
    require_arrays("dequantize", q=q)
    xp = namespace("dequantize", q=q)
    if "int" not in dtype_name(q):
        raise DTypeError(f"dequantize: q has dtype {dtype_name(q)}, but levels of sound are integers.")
    levels = _checked("dequantize", law, levels)
    found = bounds(q)
    if found is not None and not 0 <= found[0] <= found[1] < levels:
        raise DomainError(
            f"dequantize: q must lie in [0, {levels}) (smallest: {found[0]}, largest: {found[1]}). Give the levels "
            "that it was quantized with."
        )
    y = clip(xp.astype(q, xp.float32 if dtype is None else dtype), 0.0, float(levels - 1)) * (2 / levels) - 1
    if law == "linear":
        return y
    return xp.sign(y) * xp.expm1(xp.abs(y) * math.log(levels)) / (levels - 1)


def _checked(operation: str, law: Any, levels: Any) -> int:
    if not isinstance(law, str) or law not in LAWS:
        raise unknown(operation, "law", law, LAWS)
    return whole(operation, 2, levels=levels)


def _stretched(x: Array, xp: Namespace) -> Array:
    """Every clip (..., L) from [its smallest, its largest sample] to [-1, 1]; one that does not move to 0."""
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ShapeError(f"quantize: minmax needs clips of at least one sample ({describe(x=x)}).")
    low, high = xp.min(x, axis=-1, keepdims=True), xp.max(x, axis=-1, keepdims=True)
    moves = high > low
    one = xp.ones((), dtype=x.dtype, device=device(x))
    return xp.where(moves, 2 * (x - low) / xp.where(moves, high - low, one) - 1, xp.zeros_like(x))
