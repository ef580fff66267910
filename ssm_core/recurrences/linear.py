"""Linear recurrences over time: `linear_scan` gives every state, `diagonal_scan` only the outputs.

    x_k = a_k x_{k-1} + b_k

What a chunk of steps does to the state before it, and how chunks compose: `summaries`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.dispatch import dispatched, is_traced
from .._arrays.errors import DTypeError, OptionError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    complex_dtype,
    compute_dtype,
    device,
    floating,
    is_array,
    is_half,
    namespace,
    require_arrays,
)
from .._arrays.numbers import flag, plain
from .._arrays.shapes import broadcast
from .._arrays.values import check_finite

LONGEST_TRACED_LOOP = 64


def linear_scan(
    a: Any, b: Array, *, axis: int, initial: Any = None, reverse: bool = False, backend: str | None = None
) -> Array:
    """All states of the linear recurrence x_k = a_k x_{k-1} + b_k, along one axis.

    a        gate, real or complex; broadcasts against b; size 1 along axis, or a number: constant in time
    b        input, real or complex, any shape
    axis     the axis of time
    initial  x_{-1}: the shape of the result without axis, or what broadcasts to it; zero if None
    reverse  run from the end: x_k = a_k x_{k+1} + b_k, and initial is the state after the last step
    backend  "generic" for the readable reference loop; by default the framework's fused implementation
    returns  x, the broadcast shape of a and b; dtype what a, b and initial promote to, half precision as b's

    The derivative is a scan in the other direction. Raises ShapeError, DTypeError, MixedArraysError, OptionError,
    DomainError (host values: NaN and inf).

    >>> import numpy, ssm_core
    >>> ssm_core.linear_scan(numpy.full(4, 0.5), numpy.ones(4), axis=0)
    array([1.   , 1.5  , 1.75 , 1.875])
    """
    return checked_scan("linear_scan", a, b, axis, initial=initial, reverse=reverse, backend=backend, values=True)


def checked_scan(
    operation: str,
    a: Any,
    b: Array,
    axis: int,
    *,
    initial: Any = None,
    reverse: bool = False,
    backend: str | None = None,
    values: bool = False,
) -> Array:
    """`linear_scan` under the name of the operation that it is part of; host values are checked if asked for."""
    a, initial = (x.item() if isinstance(x, np.generic) else x for x in (a, initial))
    reverse, axis = flag(operation, reverse=reverse), plain(axis)
    require_arrays(operation, b=b)
    xp = namespace(operation, a=a, b=b, initial=initial)
    if a is None or isinstance(a, bool):
        raise DTypeError(f"{operation}: the gate a is {a!r}, but must be an array or a number ({describe(b=b)}).")
    floating(operation, a=a, b=b, initial=initial)
    a = a if is_array(a) else xp.asarray(a, dtype=_gate_dtype(a, b, xp), device=device(b))
    shape = broadcast(operation, a=a.shape, b=b.shape)
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise OptionError(f"{operation}: axis is {axis!r}, but must be a whole number ({describe(a=a, b=b)}).")
    if not -len(shape) <= axis < len(shape):
        raise OptionError(f"{operation}: axis {axis} is outside the {len(shape)} axes ({describe(a=a, b=b)}).")
    axis %= len(shape)
    rest = shape[:axis] + shape[axis + 1 :]
    if initial is not None:
        if not is_array(initial):
            initial = xp.asarray(initial, dtype=_gate_dtype(initial, b, xp), device=device(b))
        if broadcast(operation, state=rest, initial=initial.shape) != rest:
            raise ShapeError(
                f"{operation}: initial has more axes or sizes than a state {rest} ({describe(a=a, b=b)}, "
                f"initial: {tuple(initial.shape)}). A state has the shape of b without axis {axis}."
            )
    if values:
        check_finite(operation, xp, a=a, b=b, initial=initial)
    given, dtype = b.dtype, compute_dtype(xp, a, b, initial)
    half = is_half(b) and dtype == xp.float32
    a, b, initial = (x if x is None else xp.astype(x, dtype, copy=False) for x in (a, b, initial))
    a = xp.reshape(a, (1,) * (len(shape) - a.ndim) + tuple(a.shape))
    x = _linear_scan(a, xp.broadcast_to(b, shape), initial, axis=axis, reverse=reverse, backend=backend)
    return xp.astype(x, given) if half else x


def _gate_dtype(value: Any, b: Array, xp: Namespace) -> Any:
    return complex_dtype(b.dtype, xp) if isinstance(value, complex) else b.dtype


@dispatched
def _linear_scan(a: Array, b: Array, initial: Array | None, *, axis: int, reverse: bool) -> Array:
    """The reference: one step after another. a has b's number of axes, and size 1 or L along axis."""
    xp, length = namespace("linear_scan", b=b), b.shape[axis]
    if length == 0:
        return b
    if length > LONGEST_TRACED_LOOP and is_traced(b):
        raise OptionError(
            f"linear_scan: the generic loop is being traced over {length} steps, which would unroll them all "
            f"(limit {LONGEST_TRACED_LOOP}). Use the framework's own scan: leave out backend='generic', and compile no "
            "forward-mode derivatives in PyTorch."
        )
    gates = xp.unstack(a, axis=axis) if a.shape[axis] == length else (xp.squeeze(a, axis=axis),) * length
    drives = xp.unstack(b, axis=axis)
    order = range(length - 1, -1, -1) if reverse else range(length)
    x = xp.zeros_like(drives[0]) if initial is None else xp.broadcast_to(initial, drives[0].shape)
    states = [x] * length
    for k in order:
        x = gates[k] * x + drives[k]
        states[k] = x
    return xp.stack(states, axis=axis)
