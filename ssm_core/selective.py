"""The selective scan of Mamba: a diagonal recurrence whose step, input and output depend on the input."""

from __future__ import annotations

import math

import numpy as np

from ._arrays import (
    Array,
    Namespace,
    computable,
    compute_dtype,
    device,
    floating,
    in_dtype_of,
    is_complex,
    namespace,
    real_dtype,
    real_floating,
    require_arrays,
    to_complex,
)
from ._errors import DomainError, DTypeError, ShapeError, describe, unknown
from ._values import check_finite
from .folding import fold
from .modes.job import steps_within
from .modes.recurrent import gated_scan, steps_at_once
from .recurrence import check_lengths, check_masks
from .special import phi1, silu, softplus

DISCRETIZATIONS = ("mamba", "zoh")


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
    return_state: bool = False,
    chunk: int | None = None,
) -> Array | tuple[Array, Array]:
    """The selective scan of Mamba, without a tensor of all states.

    x_k = exp(dt_k A) x_{k-1} + dt_k B_k u_k,   y_k = C_k x_k + D u_k   (2 Re C x for a complex A),   y_k silu(z_k)

    u, dt, z        (batch, H, L), real: input, steps and gate of H channels; dt + dt_bias, softplus of it if asked for
    A               (H, N), real or complex: one pole stands for its conjugate too
    B, C            (H, N) constant, (batch, N, L) shared by all channels, or (batch, G, N, L): channel h uses group
                    h // (H / G)
    D, dt_bias      (H,)
    discretization  "mamba": dt B as above; "zoh": dt phi1(dt A) B, exact for an input that is held
    initial         x_{-1} (batch, H, N), zero if None
    reset           bool (batch, L): the state is zeroed before that step
    lengths         integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    chunk           steps whose states exist at once; chosen by their size if None
    returns         y (batch, H, L) in u's dtype, with return_state (y, the last state (batch, H, N))

    Memory is that of inputs, outputs and one chunk of states; the backward computes a chunk again. Half precision is
    computed in float32. Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, negative steps) and
    MixedArraysError.
    Source: Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, 2023,
    https://arxiv.org/abs/2312.00752.

    >>> import numpy, ssm_core
    >>> ones = numpy.ones((1, 1, 3))
    >>> ssm_core.selective_scan(ones, ones, numpy.asarray([[-1.0]]), ones, ones).round(3)
    array([[[1.   , 1.368, 1.503]]])
    """
    name = "selective_scan"
    require_arrays(name, u=u, dt=dt, A=A, B=B, C=C)
    optional = {"D": D, "z": z, "dt_bias": dt_bias, "initial": initial, "reset": reset, "lengths": lengths}
    given = {n: x for n, x in optional.items() if x is not None}
    require_arrays(name, **given)
    xp = namespace(name, u=u, dt=dt, A=A, B=B, C=C, **given)
    real_floating(name, u=u, dt=dt, **{n: x for n, x in given.items() if n in ("D", "z", "dt_bias")})
    floating(name, A=A, B=B, C=C, initial=initial)
    shapes = describe(u=u, dt=dt, A=A, B=B, C=C, **given)
    if discretization not in DISCRETIZATIONS:
        raise unknown(name, "discretization", discretization, DISCRETIZATIONS)
    _check_shapes(u, A, {"dt": dt, "z": z}, {"B": B, "C": C}, {"D": D, "dt_bias": dt_bias}, shapes)
    _check_states(u, A, initial, reset, lengths, shapes)
    if is_complex(B) != is_complex(A) and is_complex(B):
        raise DTypeError(f"{name}: B is complex but A is real ({shapes}). A complex A makes complex states.")
    check_finite(name, xp, u=u, dt=dt, A=A, B=B, C=C, initial=initial)
    check_lengths(name, lengths, u.shape[-1])

    signal, dtype = u, real_dtype(compute_dtype(xp, u, dt, A, B, C), xp)
    u, dt, A, B, C, D, z, dt_bias, initial = (
        _as_precise(x, dtype, xp) for x in (u, dt, A, B, C, D, z, dt_bias, initial)
    )
    dt = dt if dt_bias is None else dt + dt_bias[:, None]
    dt = softplus(dt) if dt_softplus else dt
    if isinstance(dt, np.ndarray) and bool((dt < 0).any()):
        raise DomainError(f"{name}: dt is negative at {int((dt < 0).sum())} steps ({shapes}). Use dt_softplus=True.")
    state = xp.zeros((*u.shape[:2], A.shape[-1]), dtype=xp.result_type(A.dtype, dtype), device=device(u))
    state = state if initial is None else state + initial
    if 0 in u.shape:
        y = xp.zeros_like(u)
    else:
        y, state = _chunks(u, dt, A, B, C, state, reset, lengths, discretization, chunk, xp)
        y = y if D is None else y + D[:, None] * u
        y = y if z is None else y * silu(z)
    y = in_dtype_of(signal, y, xp)
    return (y, state) if return_state else y


def _chunks(
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    state: Array,
    reset: Array | None,
    lengths: Array | None,
    discretization: str,
    chunk: int | None,
    xp: Namespace,
) -> tuple[Array, Array]:
    """C x for all steps, and the last state; states of one chunk at a time, time first."""
    L = u.shape[-1]
    named, fixed = {"u": u, "dt": dt}, {}
    for name, x in (("B", B), ("C", C)):
        if x.ndim == 2:
            fixed[name] = x  # (H, N)
        else:
            named[name] = x if x.ndim == 4 else x[:, None, :, :]  # (batch, G, N, L)
    if reset is not None:
        named["reset"] = reset[:, None, :]
    if lengths is not None:
        named["valid"] = steps_within(lengths, L, xp)[:, None, :]

    def body(state: Array, *chunks: Array) -> tuple[Array, Array]:
        given = fixed | dict(zip(named, chunks, strict=True))
        w = given["dt"][..., None] * A  # (T, batch, H, N)
        drive = given["dt"] * given["u"]
        drive = _times_rows(drive, given["B"], xp)
        drive = drive * phi1(w) if discretization == "zoh" else drive
        states = gated_scan(xp.exp(w), drive, state, given.get("reset"), given.get("valid"), xp)
        return states[-1, ...], _read(states, given["C"], xp)

    time_first = tuple(xp.moveaxis(x, -1, 0) for x in named.values())
    count = steps_at_once(math.prod(state.shape), L) if chunk is None else chunk
    y, state = fold(body, state, time_first, chunk=count)
    return xp.moveaxis(y, 0, -1), state


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
    shapes: str,
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


def _check_states(u: Array, A: Array, initial: Array | None, reset: object, lengths: object, shapes: str) -> None:
    batch, H, L = u.shape
    if initial is not None:
        if tuple(initial.shape) != (batch, H, A.shape[1]):
            raise ShapeError(f"selective_scan: initial must be ({batch}, {H}, {A.shape[1]}) ({shapes}).")
        if is_complex(initial) and not is_complex(A):
            raise DTypeError(f"selective_scan: initial is complex, but the states of a real A are real ({shapes}).")
    check_masks("selective_scan", shapes, reset, lengths, None)
    for name, x, wanted in (("reset", reset, (batch, L)), ("lengths", lengths, (batch,))):
        if x is not None and tuple(x.shape) != wanted:  # type: ignore[attr-defined]
            raise ShapeError(f"selective_scan: {name} must be {wanted} ({shapes}).")
