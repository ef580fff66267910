"""The diagonal recurrence that emits outputs only, with gates constant or given for every step."""

from __future__ import annotations

import math

from .._arrays.errors import DTypeError, OptionError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    device,
    floating,
    in_dtype_of,
    is_complex,
    matmul_shared,
    moved,
    namespace,
    real_dtype,
    require_arrays,
    to_complex,
)
from .._arrays.shapes import broadcast
from .fold import fold
from .linear import linear_scan


def diagonal_scan(
    u: Array,
    Ab: Array,
    Bb: Array,
    C: Array,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    conj_pairs: bool = False,
    per_step: bool = False,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """Outputs of x_k = Ab x_{k-1} + Bb u_k, y_k = C x_k (2 Re with conj_pairs), without keeping the states.

    u         (..., L), several inputs (..., P, L)
    Ab        gate (..., N)
    Bb        (..., N), several inputs (..., N, P)
    C         (..., N), several outputs (..., M, N)
    initial   x_{-1} (..., N), zero if None
    reset     bool (..., L): the state is zeroed before that step
    per_step  Ab, Bb and C have an axis of time, of size L or 1, before these last axes: (..., L, N) and so on
    chunk     steps whose states exist at once; chosen by their size if None
    returns   y (..., L) or (..., M, L), half precision as u's, and the last state (..., N)

    Memory is that of the inputs, the outputs and one chunk of states; the backward computes a chunk again. Whether
    there are several inputs or outputs is told by Bb and C having one axis more than Ab.
    Raises ShapeError, DTypeError, MixedArraysError.

    >>> import numpy, ssm_core
    >>> ssm_core.diagonal_scan(numpy.ones(3), numpy.asarray([0.5]), numpy.ones(1), numpy.ones(1))[0]
    array([1.  , 1.5 , 1.75])
    """
    require_arrays("diagonal_scan", u=u, Ab=Ab, Bb=Bb, C=C)
    require_arrays("diagonal_scan", **{n: x for n, x in (("initial", initial), ("reset", reset)) if x is not None})
    xp = namespace("diagonal_scan", u=u, Ab=Ab, Bb=Bb, C=C, initial=initial, reset=reset)
    floating("diagonal_scan", u=u, Ab=Ab, Bb=Bb, C=C, initial=initial)
    given = u
    u, Ab, Bb, C, initial = (computable(x, xp) for x in (u, Ab, Bb, C, initial))
    shapes = describe(u=u, Ab=Ab, Bb=Bb, C=C, initial=initial, reset=reset)
    several_inputs, several_outputs = _extra_axis(Ab, Bb, "Bb", shapes), _extra_axis(Ab, C, "C", shapes)
    if conj_pairs and is_complex(u):
        raise DTypeError(
            f"diagonal_scan: u has dtype {u.dtype}, but a system of conj_pairs is a real one ({shapes}). Run it over "
            f"the real and over the imaginary part."
        )
    axes, time = (2 if several_inputs else 1), int(per_step)
    if u.ndim < axes or Ab.ndim < 1 + time:
        raise ShapeError(f"diagonal_scan: too few axes ({shapes}).")
    N, L = Ab.shape[-1], u.shape[-1]
    if Bb.shape[-2 if several_inputs else -1] != N or C.shape[-1] != N:
        raise ShapeError(f"diagonal_scan: Bb and C must have the {N} states of Ab ({shapes}).")
    if several_inputs and u.shape[-2] != Bb.shape[-1]:
        raise ShapeError(f"diagonal_scan: u has {u.shape[-2]} inputs but Bb has {Bb.shape[-1]} ({shapes}).")
    if reset is not None and not str(reset.dtype).endswith("bool"):
        raise DTypeError(f"diagonal_scan: reset has dtype {reset.dtype}, but must be bool ({shapes}).")
    if initial is not None and (initial.ndim < 1 or initial.shape[-1] != N):
        raise ShapeError(f"diagonal_scan: initial must end with {N} states ({shapes}).")
    if reset is not None and (reset.ndim < 1 or reset.shape[-1] != L):
        raise ShapeError(f"diagonal_scan: reset must have one entry a step, (..., {L}) ({shapes}).")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise OptionError(f"diagonal_scan: chunk = {chunk!r} must be a whole number of at least 1 step.")
    batch = broadcast(
        "diagonal_scan",
        u=u.shape[:-axes],
        Ab=Ab.shape[: Ab.ndim - 1 - time],
        Bb=Bb.shape[: Bb.ndim - 1 - time - several_inputs],
        C=C.shape[: C.ndim - 1 - time - several_outputs],
        initial=() if initial is None else initial.shape[:-1],
        reset=() if reset is None else reset.shape[:-1],
    )
    dtype = xp.result_type(*(x.dtype for x in (u, Ab, Bb, initial) if x is not None))
    state = xp.zeros((*batch, N), dtype=dtype, device=device(u))
    state = state if initial is None else state + initial
    if L == 0:
        M = (C.shape[-2],) if several_outputs else ()
        dtype = xp.result_type(state.dtype, C.dtype)
        y = xp.zeros((*batch, *M, 0), dtype=real_dtype(dtype, xp) if conj_pairs else dtype, device=device(u))
        return in_dtype_of(given, y, xp), state

    xs = {"u": moved(xp.broadcast_to(u, (*batch, *u.shape[u.ndim - axes :])), -1, 0, xp)}
    if reset is not None:
        xs["reset"] = moved(xp.broadcast_to(reset, (*batch, L)), -1, 0, xp)
    fixed = {}
    for name, x, tail in (("Ab", Ab, 1), ("Bb", Bb, 1 + several_inputs), ("C", C, 1 + several_outputs)):
        if not per_step:
            fixed[name] = x
            continue
        x = moved(x, x.ndim - 1 - tail, 0, xp)
        lead = len(batch) + tail - (x.ndim - 1)
        x = xp.reshape(x, (x.shape[0], *(1,) * lead, *x.shape[1:]))
        if x.shape[0] == 1:
            fixed[name] = x
        elif x.shape[0] == L:
            xs[name] = x
        else:
            raise ShapeError(f"diagonal_scan: {name} must have 1 or {L} entries along the axis of time ({shapes}).")

    names = (*xs, *fixed)

    def body(state: Array, *chunks: Array) -> tuple[Array, Array]:
        x = dict(zip(names, chunks, strict=True))
        drive = driven(x["Bb"], x["u"], several_inputs, xp)
        states = gated_scan(x["Ab"], drive, state, x.get("reset"), None, xp)
        return states[-1, ...], observed(x["C"], states, several_outputs, conj_pairs, xp)

    chunk = steps_at_once(N * math.prod(batch), L) if chunk is None else chunk
    y, state = fold(body, state, tuple(xs.values()), tuple(fixed.values()), chunk=chunk)
    y = moved(y, 0, -1, xp)
    return in_dtype_of(given, y, xp), state


def _extra_axis(gate: Array, x: Array, name: str, shapes: object) -> int:
    """1 if x has one axis more than the gate, for several inputs or outputs, 0 if not."""
    if x.ndim - gate.ndim not in (0, 1):
        raise ShapeError(f"diagonal_scan: {name} needs the {gate.ndim} axes of Ab, or one more ({shapes}).")
    return x.ndim - gate.ndim


STATES_AT_ONCE = 2**18


def steps_at_once(width: int, length: int) -> int:
    """Steps of a chunk whose states, `width` numbers a step, stay small."""
    return max(1, min(length, STATES_AT_ONCE // max(1, width)))


def driven(B: Array, u: Array, several_inputs: bool | int, xp: Namespace) -> Array:
    """B u for a chunk u (T, ...[, P]): (T, ..., N); B with or without the axis of time."""
    if not several_inputs:
        return B * u[..., None]
    columns, n = xp.matrix_transpose(B), B.shape[-2]
    if is_complex(u) or not is_complex(B):
        return matmul_shared(u[..., None, :], columns, xp)[..., 0, :]
    halves = matmul_shared(u[..., None, :], xp.concat([xp.real(columns), xp.imag(columns)], axis=-1), xp)[..., 0, :]
    return halves[..., :n] + 1j * halves[..., n:]  # in real arithmetic


def gated_scan(
    gate: Array, drive: Array, state: Array, reset: Array | None, valid: Array | None, xp: Namespace
) -> Array:
    """All states of a chunk (T, ..., N): the gate is 0 at resets, and 1 without drive where not valid."""
    if reset is not None:
        gate = xp.where(reset[..., None], xp.zeros_like(gate), gate)
    if valid is not None:
        gate = xp.where(valid[..., None], gate, xp.ones_like(gate))
        drive = xp.where(valid[..., None], drive, xp.zeros_like(drive))
    return linear_scan(gate, drive, axis=0, initial=state)


def observed(C: Array, states: Array, several_outputs: bool | int, conj_pairs: bool, xp: Namespace) -> Array:
    """C x, or 2 Re of it, for states (T, ..., N): (T, ...[, M])."""
    if several_outputs and conj_pairs and is_complex(states):
        C = to_complex(C, xp)
        C = xp.concat([2 * xp.real(C), -2 * xp.imag(C)], axis=-1)
        states = xp.concat([xp.real(states), xp.imag(states)], axis=-1)
        return matmul_shared(states[..., None, :], xp.matrix_transpose(C), xp)[..., 0, :]  # in real arithmetic
    if several_outputs:
        y = matmul_shared(states[..., None, :], xp.matrix_transpose(C), xp)[..., 0, :]
        return 2 * xp.real(y) if conj_pairs and is_complex(y) else 2 * y if conj_pairs else y
    if conj_pairs and is_complex(states) and is_complex(C):
        return 2 * (xp.sum(xp.real(C) * xp.real(states), axis=-1) - xp.sum(xp.imag(C) * xp.imag(states), axis=-1))
    y = xp.sum(C * states, axis=-1)
    return 2 * xp.real(y) if conj_pairs and is_complex(y) else 2 * y if conj_pairs else y
