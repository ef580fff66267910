"""."""

from __future__ import annotations

from typing import Any

from .._arrays.errors import ShapeError, describe
from .._arrays.library import (
    Array,
    compute_dtype,
    device,
    is_array,
    namespace,
)
from .linear import _checked_scan


def chunk_summary(a: Any, b: Array, *, axis: int) -> tuple[Array, Array]:
    """What a chunk of steps does to the state before it: (P, s) of x -> P x + s.

    P = a_{T-1} ... a_0 and s = the last state of linear_scan(a, b) from zero, both without axis.
    Neighbours compose: (P2 P1, P2 s1 + s2). Shapes, dtypes and errors as in linear_scan.

    >>> import numpy, ssm_core
    >>> ssm_core.chunk_summary(numpy.full(3, 0.5), numpy.ones(3), axis=0)
    (np.float64(0.125), array(1.75))
    """
    states = _checked_scan("chunk_summary", a, b, axis)
    xp, length = namespace("chunk_summary", states=states), states.shape[axis]
    if length == 0:
        raise ShapeError(f"chunk_summary: a chunk needs at least one step ({describe(a=a, b=b)}).")
    a = a if is_array(a) else xp.asarray(a, dtype=states.dtype, device=device(states))
    gates = xp.broadcast_to(xp.astype(a, compute_dtype(xp, states)), states.shape)
    last = xp.asarray([length - 1], device=device(states))
    through = xp.astype(xp.prod(gates, axis=axis), states.dtype, copy=False)
    return through, xp.squeeze(xp.take(states, last, axis=axis), axis=axis)
