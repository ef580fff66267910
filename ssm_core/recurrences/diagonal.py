"""The diagonal recurrence that emits outputs only, with gates constant or given for every step, and its algebra.

x_k = A x_{k-1} + B u_k, y_k = C x_k, elementwise in the states; with conjugate pairs y = 2 Re(C x).
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.dispatch import is_open
from .._arrays.errors import DTypeError, ShapeError, describe
from .._arrays.idioms import matmul_shared, moved
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    device,
    floating,
    in_dtype_of,
    is_complex,
    namespace,
    owned,
    real_dtype,
    require_arrays,
)
from .._arrays.numbers import flag, whole
from .._arrays.shapes import broadcast, with_axes
from .._arrays.sizes import STEPS
from .._arrays.values import check_finite
from .broken import Broken, kept_apart
from .fold import in_chunks
from .linear import checked_scan
from .pairs import joined, real_rows
from .segments import Segments, checked_segments
from .summaries import Elementwise, through_segments

STATES_AT_ONCE = 2**18


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
    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN and inf), MixedArraysError.

    >>> import numpy, ssm_core
    >>> ssm_core.diagonal_scan(numpy.ones(3), numpy.asarray([0.5]), numpy.ones(1), numpy.ones(1))[0]
    array([1.  , 1.5 , 1.75])
    """
    arrays = {"u": u, "Ab": Ab, "Bb": Bb, "C": C}
    options: dict[str, Any] = {"reset": reset, "conj_pairs": conj_pairs, "per_step": per_step, "chunk": chunk}
    y, state = _checked_scan("diagonal_scan", arrays, initial=initial, **options)
    return in_dtype_of(u, y, namespace("diagonal_scan", u=u)), state


def _checked_scan(
    operation: str,
    required: dict[str, Array],
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    conj_pairs: bool = False,
    per_step: bool = False,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """`diagonal_scan` in the name of the operation that it is part of; without C, of one output that is not meant."""
    arrays = required | {"initial": initial, "reset": reset}
    require_arrays(operation, **{n: x for n, x in arrays.items() if x is not None or n in required})
    xp = namespace(operation, **arrays)
    floating(operation, **required, initial=initial)
    v = {name: computable(x, xp) for name, x in arrays.items() if x is not None and name != "reset"}
    shapes = describe(**v, reset=reset)
    v.setdefault("C", v["Ab"])
    conj_pairs, per_step = flag(operation, conj_pairs=conj_pairs), flag(operation, per_step=per_step)
    chunk = None if chunk is None else whole(operation, chunk=chunk)
    _check(operation, v, conj_pairs, per_step, shapes)
    signals = ("u", "initial") if reset is None else ()  # which may hold anything before a reset
    check_finite(operation, xp, **{n: x for n, x in v.items() if n in ("Ab", "Bb", "C", *signals)})
    segments = checked_segments(operation, shapes, None, v["u"].shape[-1], reset=reset)
    batch = _batch(operation, v, segments.reset, int(per_step))
    v, broken = (v, Broken()) if reset is None else _apart(v, segments, len(batch), xp)
    y, state = _diagonal_scan(v, segments.reset, batch, conj_pairs=conj_pairs, per_step=per_step, chunk=chunk)
    return broken.marked(y, -1, xp), broken.marked_state(owned(state), xp)


def _diagonal_scan(
    v: dict[str, Array],
    reset: Array | None,
    batch: tuple[int, ...],
    *,
    conj_pairs: bool,
    per_step: bool,
    chunk: int | None,
) -> tuple[Array, Array]:
    """The scan of arrays by name that are known to fit; y and the last state."""
    u, gate, C = v["u"], v["Ab"], v["C"]
    xp, N, L = namespace("diagonal_scan", u=u), gate.shape[-1], u.shape[-1]
    several_inputs, several_outputs = v["Bb"].ndim - gate.ndim, C.ndim - gate.ndim
    dtype = xp.result_type(*(x.dtype for name, x in v.items() if name != "C"))
    state = xp.zeros((*batch, N), dtype=dtype, device=device(u))
    state = state + v["initial"] if "initial" in v else state
    if L == 0:
        dtype = xp.result_type(state.dtype, C.dtype)
        dtype = real_dtype(dtype, xp) if conj_pairs else dtype
        return xp.zeros((*batch, *C.shape[C.ndim - 1 - several_outputs : -1], 0), dtype=dtype, device=device(u)), state
    axes = 1 + several_inputs
    signals = {"u": xp.broadcast_to(u, (*batch, *u.shape[u.ndim - axes :])), "reset": reset}
    if reset is not None:
        signals["reset"] = xp.broadcast_to(reset, (*batch, L))
    if is_open(u, L):  # zeros follow, which leave the state
        signals["valid"] = xp.ones((*batch, L), dtype=xp.bool, device=device(u))
    constants = {}
    for name, tail in (("Ab", 1), ("Bb", 1 + several_inputs), ("C", 1 + several_outputs)):
        x = v[name]
        if not per_step:
            constants[name] = x
            continue
        x = moved(x, x.ndim - 1 - tail, 0, xp)
        lead = len(batch) + tail - (x.ndim - 1)
        x = xp.reshape(x, (x.shape[0], *(1,) * lead, *x.shape[1:]))
        if x.shape[0] == 1:
            constants[name] = x
        else:
            signals[name] = moved(x, 0, -1, xp)

    def body(state: Array, x: dict[str, Any]) -> tuple[Array, Array]:
        drive = driven(x["Bb"], x["u"], several_inputs, xp)
        states = gated_scan(x["Ab"], drive, state, x.get("reset"), x.get("valid"), xp)
        return states[-1, ...], observed(x["C"], states, several_outputs, conj_pairs, xp)

    chunk = steps_at_once(N * math.prod(batch), L, u) if chunk is None else chunk
    return in_chunks(body, state, signals, constants, axis=-1, chunk=chunk)


def diagonal_summary(
    u: Array, Ab: Array, Bb: Array, *, reset: Array | None = None, per_step: bool = False, chunk: int | None = None
) -> Elementwise:
    """What these steps of `diagonal_scan` do to the state before them: (P, s) of x -> P x + s.

    P = Ab_{T-1} ... Ab_0, or zero with a reset among them, and s (..., N) the last state from zero. Arguments are those
    of `diagonal_scan`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError (chunk), MixedArraysError.
    Source: Blelloch, Prefix sums and their applications, 1990, section 1.4.

    >>> import numpy, ssm_core
    >>> half = ssm_core.diagonal_summary(numpy.ones(3), numpy.asarray([0.5]), numpy.ones(1))
    >>> half.through, half.state
    (array([0.125]), array([1.75]))
    """
    arrays = {"u": u, "Ab": Ab, "Bb": Bb}
    _, state = _checked_scan("diagonal_summary", arrays, reset=reset, per_step=per_step, chunk=chunk)
    xp, L = namespace("diagonal_summary", u=u), u.shape[-1]
    P = computable(Ab, xp)
    if per_step:
        P = xp.broadcast_to(P, (*P.shape[:-2], L, P.shape[-1]))
    P = xp.prod(P, axis=-2) if per_step else P**L
    return Elementwise(through_segments(P, Segments(L, reset), 1, xp), state)


def _check(operation: str, v: dict[str, Array], conj_pairs: bool, per_step: bool, shapes: object) -> None:
    """Raise for arrays by name that do not fit each other, batch axes apart."""
    u, gate, B, C = v["u"], v["Ab"], v["Bb"], v["C"]
    for name, x in (("Bb", B), ("C", C)):
        if x.ndim - gate.ndim not in (0, 1):
            raise ShapeError(f"{operation}: {name} needs the {gate.ndim} axes of Ab, or one more ({shapes}).")
    several_inputs = B.ndim - gate.ndim
    if conj_pairs and is_complex(u):
        raise DTypeError(
            f"{operation}: u has dtype {u.dtype}, but a system of conj_pairs is a real one ({shapes}). Run it over "
            f"the real and over the imaginary part."
        )
    if u.ndim < 1 + several_inputs or gate.ndim < 1 + int(per_step):
        raise ShapeError(f"{operation}: too few axes ({shapes}).")
    N, L = gate.shape[-1], u.shape[-1]
    if B.shape[-1 - several_inputs] != N or C.shape[-1] != N:
        raise ShapeError(f"{operation}: Bb and C must have the {N} states of Ab ({shapes}).")
    if several_inputs and u.shape[-2] != B.shape[-1]:
        raise ShapeError(f"{operation}: u has {u.shape[-2]} inputs but Bb has {B.shape[-1]} ({shapes}).")
    if "initial" in v and (v["initial"].ndim < 1 or v["initial"].shape[-1] != N):
        raise ShapeError(f"{operation}: initial must end with {N} states ({shapes}).")
    for name, x, tail in (("Ab", gate, 1), ("Bb", B, 1 + several_inputs), ("C", C, 1 + C.ndim - gate.ndim)):
        if per_step and x.shape[x.ndim - 1 - tail] not in (1, L):
            raise ShapeError(f"{operation}: {name} must have 1 or {L} entries along the axis of time ({shapes}).")


def _apart(v: dict[str, Array], segments: Segments, axes: int, xp: Namespace) -> tuple[dict[str, Array], Broken]:
    """The arrays with zero for what is not finite in the signal and the first state, and what that breaks."""
    ports = v["Bb"].ndim - v["Ab"].ndim
    u, initial = with_axes(v["u"], axes + ports + 1, xp), with_axes(v.get("initial"), axes + 1, xp)
    segments = Segments(segments.length, with_axes(segments.reset, axes + 1, xp))
    clean, initial, broken = kept_apart(segments, {"u": u}, initial, xp, axis=-1, kept=tuple(range(axes)))
    return v | clean | ({} if initial is None else {"initial": initial}), broken


def _batch(operation: str, v: dict[str, Array], reset: Array | None, time: int) -> tuple[int, ...]:
    """The common batch axes."""
    gate, several_inputs = v["Ab"], v["Bb"].ndim - v["Ab"].ndim
    return broadcast(
        operation,
        u=v["u"].shape[: v["u"].ndim - 1 - several_inputs],
        **{name: v[name].shape[: gate.ndim - 1 - time] for name in ("Ab", "Bb", "C")},
        initial=v["initial"].shape[:-1] if "initial" in v else (),
        reset=() if reset is None else reset.shape[:-1],
    )


def steps_at_once(width: int, length: int, like: Array) -> int:
    """Steps of a chunk whose states, `width` numbers a step, stay small; a fixed number where a trace knows neither."""
    if is_open(like, length) or is_open(like, width):
        return STEPS
    return max(1, min(length, STATES_AT_ONCE // max(1, width)))


def driven(B: Array, u: Array, several_inputs: bool | int, xp: Namespace) -> Array:
    """B u for a chunk u (T, ...[, P]): (T, ..., N); B with or without the axis of time."""
    if not several_inputs:
        return B * u[..., None]
    columns, n = xp.matrix_transpose(B), B.shape[-2]
    if is_complex(u) or not is_complex(B):
        return matmul_shared(u[..., None, :], columns, xp)[..., 0, :]
    halves = matmul_shared(u[..., None, :], joined(columns, xp), xp)[..., 0, :]
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
    return checked_scan("linear_scan", gate, drive, axis=0, initial=state)


def observed(C: Array, states: Array, several_outputs: bool | int, conj_pairs: bool, xp: Namespace) -> Array:
    """C x, or 2 Re of it with conj_pairs, for states (T, ..., N): (T, ...[, M])."""
    paired = conj_pairs and is_complex(states)
    if several_outputs:
        if paired:  # in real arithmetic
            C, states = real_rows(C, xp), joined(states, xp)
        y = matmul_shared(states[..., None, :], xp.matrix_transpose(C), xp)[..., 0, :]
    elif paired and is_complex(C):
        y = xp.sum(xp.real(C) * xp.real(states), axis=-1) - xp.sum(xp.imag(C) * xp.imag(states), axis=-1)
        return 2 * y
    else:
        y = xp.sum(C * states, axis=-1)
    if not conj_pairs or (paired and several_outputs):
        return y
    return 2 * xp.real(y) if is_complex(y) else 2 * y
