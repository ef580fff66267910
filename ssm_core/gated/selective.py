"""The selective scan of Mamba: a diagonal recurrence whose step, input and output depend on the input."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.dispatch import dispatched
from .._arrays.errors import DTypeError, ShapeError, describe, unknown
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    compute_dtype,
    device,
    exp,
    floating,
    in_dtype_of,
    is_complex,
    moved,
    namespace,
    real_dtype,
    real_floating,
    require_arrays,
    to_complex,
)
from .._arrays.values import check_finite, overflow_ignored
from ..functions.special import phi1, silu
from ..recurrences.diagonal import gated_scan, steps_at_once
from ..recurrences.fold import fold
from ..recurrences.segments import check_cu_seqlens, check_lengths, check_masks, resets_of, side_by_side, steps_within
from .checks import check_chunk, check_no_overflow, steps_of

DISCRETIZATIONS = ("mamba", "zoh", "trapezoidal")


def selective_scan(
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    *,
    D: Array | None = None,
    z: Array | None = None,
    dt_bias: Array | None = None,
    dt_softplus: bool = False,
    discretization: str = "mamba",
    initial: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
    chunk: int | None = None,
) -> Array | tuple[Array, Array]:
    """The selective scan of Mamba, without a tensor of all states.

    x_k = exp(dt_k A) x_{k-1} + dt_k B_k u_k,   y_k = C_k x_k + D u_k   (2 Re C x for a complex A),   y_k silu(z_k)

    u, dt, z        (batch, H, L), real: input, steps and gate of H channels; dt + dt_bias, softplus of it if asked for
    A               (H, N), real or complex: one pole stands for its conjugate too. Positive real parts grow, until
                    they overflow
    B, C            (H, N) constant, (batch, N, L) shared by all channels, or (batch, G, N, L): channel h uses group
                    h // (H / G)
    D, dt_bias      (H,)
    discretization  "mamba": dt B as above; "zoh": dt phi1(dt A) B, exact for an input that is held; "trapezoidal":
                    x_k = exp(dt_k A) (x_{k-1} + dt_k/2 B_{k-1} u_{k-1}) + dt_k/2 B_k u_k, of second order in dt
    initial         x_{-1} (batch, H, N), zero if None; trapezoidal: (x, B u) of the step before (batch, H, 2 N)
    reset           bool (batch, L): the state is zeroed before that step
    lengths         integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens      integer (n + 1,) with batch 1: n sequences packed one after another; initial and states (n, H, N)
    chunk           steps whose states exist at once; chosen by their size if None
    returns         y (batch, H, L) in u's dtype, with return_state (y, the last state, of initial's shape)

    Memory is that of inputs, outputs and one chunk of states; the backward computes a chunk again. Half precision is
    computed in float32. Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, negative steps,
    an overflow) and MixedArraysError.
    Source: Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, 2023,
    https://arxiv.org/abs/2312.00752.

    >>> import numpy, ssm_core
    >>> ones = numpy.ones((1, 1, 3))
    >>> ssm_core.selective_scan(ones, ones, numpy.asarray([[-1.0]]), ones, ones).round(3)
    array([[[1.   , 1.368, 1.503]]])
    """
    name = "selective_scan"
    require_arrays(name, u=u, dt=dt, A=A, B=B, C=C)
    optional = {
        "D": D, "z": z, "dt_bias": dt_bias, "initial": initial, "reset": reset, "lengths": lengths,
        "cu_seqlens": cu_seqlens,
    }  # fmt: skip
    given = {n: x for n, x in optional.items() if x is not None}
    require_arrays(name, **given)
    xp = namespace(name, u=u, dt=dt, A=A, B=B, C=C, **given)
    real_floating(name, u=u, dt=dt, **{n: x for n, x in given.items() if n in ("D", "z", "dt_bias")})
    floating(name, A=A, B=B, C=C, initial=initial)
    shapes = describe(u=u, dt=dt, A=A, B=B, C=C, **given)
    if discretization not in DISCRETIZATIONS:
        raise unknown(name, "discretization", discretization, DISCRETIZATIONS)
    _check_shapes(u, A, {"dt": dt, "z": z}, {"B": B, "C": C}, {"D": D, "dt_bias": dt_bias}, shapes)
    n = u.shape[0]
    if cu_seqlens is not None:
        check_cu_seqlens(name, cu_seqlens, n, u.shape[-1], reset=reset, lengths=lengths)
        n = cu_seqlens.shape[0] - 1
    state_shape = (n, u.shape[1], A.shape[1] * (2 if discretization == "trapezoidal" else 1))
    _check_states(u, A, initial, state_shape, reset, lengths, shapes)
    for row, x in (("B", B), ("C", C)):
        if is_complex(x) and not is_complex(A):
            raise DTypeError(f"{name}: {row} is complex but A is real ({shapes}). A complex A makes complex states.")
    if chunk is not None:
        check_chunk(name, chunk)
    check_finite(name, xp, u=u, dt=dt, A=A, B=B, C=C, D=D, z=z, dt_bias=dt_bias, initial=initial)
    check_lengths(name, lengths, u.shape[-1])

    signal, dtype = u, real_dtype(compute_dtype(xp, u, dt, A, B, C), xp)
    u, dt, A, B, C, D, z, dt_bias, initial = (
        _as_precise(x, dtype, xp) for x in (u, dt, A, B, C, D, z, dt_bias, initial)
    )
    bias = None if dt_bias is None else dt_bias[:, None]
    dt = steps_of(name, dt, bias, dt_softplus, (0.0, math.inf), shapes, xp)
    if initial is not None:
        initial = initial + xp.zeros(state_shape, dtype=xp.result_type(A.dtype, dtype), device=device(u))
    with overflow_ignored(u):
        packed = cu_seqlens is not None and (return_state or initial is not None)
        if packed:
            constant = {n: x for n, x in (("B", B), ("C", C)) if x.ndim == 2}

            def one_each(signals: tuple[Any, ...], lengths: Array) -> tuple[Array, Array]:
                u, dt, B, C = signals
                rows = {"B": B, "C": C} | constant
                return in_chunks(u, dt, A, rows["B"], rows["C"], initial, None, lengths, discretization, chunk, xp)

            signals = (u, dt, *(None if n in constant else x for n, x in (("B", B), ("C", C))))
            y, state = side_by_side(name, one_each, signals, cu_seqlens, -1)
        else:
            reset = reset if cu_seqlens is None else resets_of(cu_seqlens, u.shape[-1], xp)
            y, state = in_chunks(u, dt, A, B, C, initial, reset, lengths, discretization, chunk, xp)
    check_no_overflow(name, y, -1, lengths, shapes)
    y = y if D is None else y + D[:, None] * u
    y = y if z is None else y * silu(z)
    y = in_dtype_of(signal, y, xp)
    return (y, state) if return_state else y


def in_chunks(
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    initial: Array | None,
    reset: Array | None,
    lengths: Array | None,
    discretization: str,
    chunk: int | None,
    xp: Namespace,
) -> tuple[Array, Array]:
    """C x for all steps, and the last state, of arrays that are known to fit."""
    if initial is None:
        dtype = xp.result_type(A.dtype, u.dtype)
        width = A.shape[1] * (2 if discretization == "trapezoidal" else 1)
        initial = xp.zeros((*u.shape[:2], width), dtype=dtype, device=device(u))
    if 0 in u.shape:
        return xp.zeros_like(u), initial
    B, C = (x[:, None, :, :] if x.ndim == 3 else x for x in (B, C))  # (batch, G, N, L), or constant (H, N)
    return _selective_scan(u, dt, A, B, C, initial, reset, lengths, discretization=discretization, chunk=chunk)


@dispatched
def _selective_scan(
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    state: Array,
    reset: Array | None,
    lengths: Array | None,
    *,
    discretization: str,
    chunk: int | None,
) -> tuple[Array, Array]:
    """States of one chunk at a time."""
    xp, L = namespace("selective_scan", u=u), u.shape[-1]
    named: dict[str, Array] = {"u": u, "dt": dt}
    fixed: dict[str, Array] = {}
    for name, x in (("B", B), ("C", C)):
        (fixed if x.ndim == 2 else named)[name] = x
    if reset is not None:
        named["reset"] = reset[:, None, :]
    if lengths is not None:
        named["valid"] = steps_within(lengths, L, xp)[:, None, :]

    names = (*named, "A", *fixed)

    def body(state: Array, *chunks: Array) -> tuple[Array, Array]:
        v = dict(zip(names, chunks, strict=True))
        reset, valid = v.get("reset"), v.get("valid")
        w = v["dt"][..., None] * v["A"]  # (T, batch, H, N)
        gate, before = exp(w), None
        if discretization == "trapezoidal":
            state, drive, before = _trapezoid(v, gate, state, xp)
        else:
            drive = _times_rows(v["dt"] * v["u"], v["B"], xp)
            drive = drive * phi1(w) if discretization == "zoh" else drive
        states = gated_scan(gate, drive, state, reset, valid, xp)
        last = states[-1, ...]
        return last if before is None else xp.concat([last, before], axis=-1), _read(states, v["C"], xp)

    time_first = tuple(moved(x, -1, 0, xp) for x in named.values())
    count = steps_at_once(math.prod(u.shape[:2]) * A.shape[1], L) if chunk is None else chunk
    y, state = fold(body, state, time_first, (A, *fixed.values()), chunk=count)
    return moved(y, 0, -1, xp), state


def _trapezoid(v: dict[str, Array], gate: Array, state: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """x before the chunk, what is added to gate x in every step of it, and the last B u, from the state (x, B u)."""
    reset, valid = v.get("reset"), v.get("valid")
    N = gate.shape[-1]
    own = _times_rows(v["u"], v["B"], xp)
    own = own + xp.zeros_like(gate)  # (T, batch, H, N), whatever the rows
    inputs = xp.concat([state[None, ..., N:], own], axis=0)
    late = inputs[:-1, ...] if reset is None else xp.where(reset[..., None], xp.zeros_like(own), inputs[:-1, ...])
    drive = v["dt"][..., None] / 2 * (gate * late + own)
    if valid is None:
        return state[..., :N], drive, own[-1, ...]
    count = xp.sum(xp.astype(valid, xp.int32), axis=0)  # valid steps come first
    k = xp.arange(inputs.shape[0], device=device(own))
    last = xp.where((xp.astype(k, count.dtype)[:, None, None] == count)[..., None], inputs, xp.zeros_like(inputs))
    return state[..., :N], drive, xp.sum(last, axis=0)


def _times_rows(x: Array, rows: Array, xp: Namespace) -> Array:
    """x (T, batch, H) times rows (H, N), or (T, batch, G, N) of the groups of channels: (T, batch, H, N)."""
    if rows.ndim == 2:
        return x[..., None] * rows
    T, batch, G, N = rows.shape
    product = xp.reshape(x, (T, batch, G, -1))[..., None] * rows[..., None, :]
    return xp.reshape(product, (T, batch, x.shape[-1], N))


def _read(states: Array, rows: Array, xp: Namespace) -> Array:
    """sum_n rows_n x_n, or 2 Re of it, for states (T, batch, H, N): (T, batch, H)."""
    if rows.ndim == 2:
        y = xp.sum(rows * states, axis=-1)
    else:
        T, batch, G, N = rows.shape
        grouped = xp.reshape(states, (T, batch, G, -1, N))
        columns = to_complex(rows, xp) if is_complex(states) else rows
        y = xp.matmul(grouped, columns[..., None])[..., 0]
        y = xp.reshape(y, (T, batch, states.shape[2]))
    return 2 * xp.real(y) if is_complex(y) else y


def _as_precise(x: Array | None, dtype: object, xp: Namespace) -> Array | None:
    """x in the precision of a real dtype."""
    if x is None:
        return None
    x = computable(x, xp)
    wide = (xp.complex128 if dtype == xp.float64 else xp.complex64) if is_complex(x) else dtype
    return xp.astype(x, wide, copy=False)


def _check_shapes(
    u: Array, A: Array, signals: dict[str, Array | None], rows: dict[str, Array], vectors: dict[str, Array | None],
    shapes: object,
) -> None:  # fmt: skip
    if u.ndim != 3:
        raise ShapeError(f"selective_scan: u must be (batch, H, L) ({shapes}).")
    batch, H, L = u.shape
    if A.ndim != 2 or A.shape[0] != H:
        raise ShapeError(f"selective_scan: A must be ({H}, N), a row of poles for each channel of u ({shapes}).")
    N = A.shape[1]
    for name, x in signals.items():
        if x is not None and tuple(x.shape) != (batch, H, L):
            raise ShapeError(f"selective_scan: {name} must be ({batch}, {H}, {L}) as u is ({shapes}).")
    for name, x in vectors.items():
        if x is not None and tuple(x.shape) != (H,):
            raise ShapeError(f"selective_scan: {name} must be ({H},) ({shapes}).")
    for name, x in rows.items():
        fits = tuple(x.shape) in ((H, N), (batch, N, L)) or (
            x.ndim == 4 and (x.shape[0], *x.shape[2:]) == (batch, N, L) and x.shape[1] >= 1
        )
        if not fits:
            raise ShapeError(
                f"selective_scan: {name} must be ({H}, {N}), ({batch}, {N}, {L}) or ({batch}, groups, {N}, {L}) "
                f"({shapes})."
            )
        if x.ndim == 4 and H % x.shape[1]:
            raise ShapeError(f"selective_scan: {x.shape[1]} groups of {name} do not divide {H} channels ({shapes}).")


def _check_states(
    u: Array, A: Array, initial: Array | None, shape: tuple[int, ...], reset: object, lengths: object, shapes: object
) -> None:
    batch, _, L = u.shape
    if initial is not None:
        if tuple(initial.shape) != shape:
            raise ShapeError(f"selective_scan: initial must be {shape} ({shapes}).")
        if is_complex(initial) and not is_complex(A):
            raise DTypeError(f"selective_scan: initial is complex, but the states of a real A are real ({shapes}).")
    check_masks("selective_scan", shapes, reset, lengths, None)
    for name, x, wanted in (("reset", reset, (batch, L)), ("lengths", lengths, (batch,))):
        if x is not None and tuple(x.shape) != wanted:  # type: ignore[attr-defined]
            raise ShapeError(f"selective_scan: {name} must be {wanted} ({shapes}).")
