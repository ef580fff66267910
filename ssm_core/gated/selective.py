"""The selective scan of Mamba: a diagonal recurrence whose step, input and output depend on the input."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.dispatch import dispatched
from .._arrays.errors import DTypeError, ShapeError, describe, unknown
from .._arrays.idioms import exp, matmul
from .._arrays.library import (
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
from .._arrays.numbers import flag, whole
from .._arrays.values import overflow_ignored
from ..functions.special import phi1, silu
from ..recurrences.broken import Broken
from ..recurrences.diagonal import gated_scan, steps_at_once
from ..recurrences.fold import in_chunks
from ..recurrences.segments import Segments, Signals, checked_segments
from ..recurrences.summaries import Carried, Elementwise, through_segments, without_steps
from .checks import check_given, check_no_overflow, kept_finite, steps_of

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
    required = {"u": u, "dt": dt, "A": A, "B": B, "C": C}
    optional = {"D": D, "z": z, "dt_bias": dt_bias, "initial": initial}
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    operation = "selective_scan"
    chunk = None if chunk is None else whole(operation, chunk=chunk)
    dt_softplus, return_state = flag(operation, dt_softplus=dt_softplus), flag(operation, return_state=return_state)
    options: dict[str, Any] = {"softplus": dt_softplus, "discretization": discretization}
    v, segments, broken, shapes = _checked(operation, required, optional, masks, **options)
    options = {"discretization": discretization, "chunk": chunk, "want_state": return_state}
    y, state = _outputs(operation, v, segments, shapes, **options)
    y = y if D is None else y + v["D"][:, None] * v["u"]
    y = y if z is None else y * silu(v["z"])
    xp = namespace(operation, u=u)
    y = in_dtype_of(u, broken.marked(y, -1, xp), xp)
    return (y, broken.marked_state(state, xp)) if return_state else y


def _checked(
    operation: str,
    required: dict[str, Array],
    optional: dict[str, Array | None],
    masks: dict[str, Array | None],
    *,
    softplus: bool,
    discretization: str,
) -> tuple[dict[str, Array], Segments, Broken, object]:
    """The arrays that are given, in the precision of the states, dt as the steps that it means; and their shapes."""
    require_arrays(operation, **required)
    given = {name: x for name, x in optional.items() if x is not None}
    cuts = {name: x for name, x in masks.items() if x is not None}
    require_arrays(operation, **given, **cuts)
    arrays = required | given
    xp = namespace(operation, **arrays, **cuts)
    real_floating(operation, **{name: x for name, x in arrays.items() if name in ("u", "dt", "D", "z", "dt_bias")})
    floating(operation, **{name: x for name, x in arrays.items() if name in ("A", "B", "C", "initial")})
    shapes, A = describe(**arrays, **cuts), required["A"]
    if not isinstance(discretization, str) or discretization not in DISCRETIZATIONS:
        raise unknown(operation, "discretization", discretization, DISCRETIZATIONS)
    _check_shapes(operation, arrays, shapes)
    u = required["u"]
    segments = checked_segments(operation, shapes, tuple(u.shape[:1]), u.shape[-1], of=u, **masks)
    width = A.shape[1] * (2 if discretization == "trapezoidal" else 1)
    check_given(operation, given, {"initial": ((segments.count(u.shape[0]), u.shape[1], width),)}, shapes)
    for name in ("B", "C"):
        if name in arrays and is_complex(arrays[name]) and not is_complex(A):
            raise DTypeError(
                f"{operation}: {name} is complex but A is real ({shapes}). A complex A makes complex states."
            )
    if "initial" in given and is_complex(given["initial"]) and not is_complex(A):
        raise DTypeError(f"{operation}: initial is complex, but the states of a real A are real ({shapes}).")
    signals = ("u", "dt", "z", *(name for name in ("B", "C") if name in arrays and arrays[name].ndim > 2))
    arrays, broken = kept_finite(operation, arrays, segments, xp, axis=-1, kept=(0, 1), signals=signals)
    dtype = real_dtype(compute_dtype(xp, *required.values()), xp)
    v = {name: _as_precise(x, dtype, xp) for name, x in arrays.items()}
    if "initial" in v:
        v["initial"] = xp.astype(v["initial"], xp.result_type(v["A"].dtype, dtype), copy=False)
    bias = v["dt_bias"][:, None] if "dt_bias" in v else None
    v["dt"] = steps_of(operation, v["dt"], shapes, xp, bias=bias, with_softplus=softplus)
    return v, segments, broken, shapes


def _outputs(
    operation: str, v: dict[str, Array], segments: Segments, shapes: object, **options: Any
) -> tuple[Array, Array]:
    """C x for all steps and the last state, refused where they overflow."""
    initial = v.get("initial")
    with overflow_ignored(v["u"]):
        y, state = run_selective(
            v["u"], v["dt"], v["A"], v["B"], v.get("C", v["B"]), segments=segments, initial=initial, **options
        )
    check_no_overflow(operation, y, -1, segments.lengths, shapes)
    return y, state


def run_selective(
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    *,
    segments: Segments,
    initial: Array | None = None,
    discretization: str = "mamba",
    chunk: int | None = None,
    want_state: bool = True,
) -> tuple[Array, Array]:
    """C x for all steps, and the last state, of arrays that are known to fit."""
    constant: Signals = {}
    xp, signals = namespace("selective_scan", u=u), {"u": u, "dt": dt}
    for name, x in (("B", B), ("C", C)):
        (constant if x.ndim == 2 else signals)[name] = x[:, None, :, :] if x.ndim == 3 else x  # (batch, G, N, L)
    width = A.shape[1] * (2 if discretization == "trapezoidal" else 1)

    def run(signals: Signals, initial: Array | None, segments: Segments) -> tuple[Array, Array]:
        v = {name: segments.masked(x, -1, xp) for name, x in signals.items()} | constant
        state = initial
        if state is None:
            state_dtype = xp.result_type(A.dtype, u.dtype)
            state = xp.zeros((*v["u"].shape[:2], width), dtype=state_dtype, device=device(u))
        if 0 in v["u"].shape:
            return xp.zeros_like(v["u"]), state
        options = {"state": state, "segments": segments, "discretization": discretization, "chunk": chunk}
        return _selective_scan(v["u"], v["dt"], A, v["B"], v["C"], **options)

    def summary(signals: Signals, segments: Segments) -> Elementwise | Carried:
        return _summarized(run(signals, None, segments)[1], signals["dt"], A, discretization, segments)

    return segments.run("selective_scan", run, signals, initial, axis=-1, apart=want_state, summary=summary)


def selective_summary(
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    *,
    dt_bias: Array | None = None,
    dt_softplus: bool = False,
    discretization: str = "mamba",
    reset: Array | None = None,
    lengths: Array | None = None,
    chunk: int | None = None,
) -> Elementwise | Carried:
    """What these steps of `selective_scan` do to the state before them: (P, s) of x -> P x + s.

    P = exp(A sum_k dt_k) (batch, H, N), or zero with a reset among them, and s the last state from zero; for the
    trapezoidal rule, whose state holds B u of the step before, a `Carried` summary. Arguments are those of
    `selective_scan`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, negative steps, an overflow) and
    MixedArraysError.
    Source: Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, 2023,
    https://arxiv.org/abs/2312.00752, section 3.3.

    >>> import numpy, ssm_core
    >>> ones = numpy.ones((1, 1, 3))
    >>> ssm_core.selective_summary(ones, ones, numpy.asarray([[-1.0]]), ones).through.round(3)
    array([[[0.05]]])
    """
    operation, required = "selective_summary", {"u": u, "dt": dt, "A": A, "B": B}
    masks, optional = {"reset": reset, "lengths": lengths}, {"dt_bias": dt_bias}
    dt_softplus = flag(operation, dt_softplus=dt_softplus)
    chunk = None if chunk is None else whole(operation, chunk=chunk)
    options: dict[str, Any] = {"discretization": discretization}
    v, segments, broken, shapes = _checked(operation, required, optional, masks, softplus=dt_softplus, **options)
    options["chunk"] = chunk
    xp = namespace(operation, u=u)
    state = broken.marked_state(_outputs(operation, v, segments, shapes, **options)[1], xp)
    return _summarized(state, v["dt"], v["A"], discretization, segments)


def _summarized(state: Array, dt: Array, A: Array, discretization: str, segments: Segments) -> Elementwise | Carried:
    """The summary of steps dt (batch, H, L) that lead from zero to the state."""
    xp = namespace("selective_summary", dt=dt)
    dt = segments.masked(dt, -1, xp)
    P = through_segments(exp(xp.sum(dt, axis=-1)[..., None] * A), segments, 2, xp)
    if discretization != "trapezoidal":
        return Elementwise(P, state)
    first = dt[..., :1] if segments.length else xp.zeros_like(dt[:, :, :0].sum(-1)[..., None])
    return Carried(P, P * first / 2, without_steps(segments, P, xp), state)


@dispatched
def _selective_scan(
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    *,
    state: Array,
    segments: Segments,
    discretization: str,
    chunk: int | None,
) -> tuple[Array, Array]:
    """States of one chunk at a time; signals are zero beyond the lengths, so that no step there moves a state."""
    xp, L = namespace("selective_scan", u=u), u.shape[-1]
    signals, constants = {"u": u, "dt": dt}, {"A": A}
    for name, x in (("B", B), ("C", C)):
        (constants if x.ndim == 2 else signals)[name] = x
    signals["reset"] = None if segments.reset is None else segments.reset[:, None, :]
    trapezoidal = discretization == "trapezoidal"
    valid = segments.valid(xp)
    if trapezoidal and valid is not None:  # the last B u is one of a step that counts
        signals["valid"] = valid[:, None, :]

    def body(state: Array, v: Signals) -> tuple[Array, Array]:
        w = v["dt"][..., None] * v["A"]  # (T, batch, H, N)
        gate, before = exp(w), None
        if trapezoidal:
            state, drive, before = _trapezoid(v, gate, state, xp)
        else:
            drive = _times_rows(v["dt"] * v["u"], v["B"], xp)
            drive = drive * phi1(w) if discretization == "zoh" else drive
        states = gated_scan(gate, drive, state, v.get("reset"), None, xp)
        last = states[-1, ...]
        return last if before is None else xp.concat([last, before], axis=-1), _read(states, v["C"], xp)

    count = steps_at_once(math.prod(u.shape[:2]) * A.shape[1], L, u) if chunk is None else chunk
    return in_chunks(body, state, signals, constants, axis=-1, chunk=count)


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
        y = matmul(grouped, columns[..., None], xp)[..., 0]
        y = xp.reshape(y, (T, batch, states.shape[2]))
    return 2 * xp.real(y) if is_complex(y) else y


def _as_precise(x: Array, dtype: object, xp: Namespace) -> Array:
    """x in the precision of a real dtype."""
    x = computable(x, xp)
    wide = (xp.complex128 if dtype == xp.float64 else xp.complex64) if is_complex(x) else dtype
    return xp.astype(x, wide, copy=False)


def _check_shapes(operation: str, v: dict[str, Array], shapes: object) -> None:
    """Raise for arrays by name that do not fit each other; the first state apart."""
    u, A = v["u"], v["A"]
    if u.ndim != 3:
        raise ShapeError(f"{operation}: u must be (batch, H, L) ({shapes}).")
    batch, H, L = u.shape
    if A.ndim != 2 or A.shape[0] != H:
        raise ShapeError(f"{operation}: A must be ({H}, N), a row of poles for each channel of u ({shapes}).")
    N, signal, vector = A.shape[1], ((batch, H, L),), ((H,),)
    check_given(operation, v, {"dt": signal, "z": signal, "D": vector, "dt_bias": vector}, shapes)
    for name, x in v.items():
        if name not in ("B", "C"):
            continue
        grouped = x.ndim == 4 and (x.shape[0], *x.shape[2:]) == (batch, N, L) and x.shape[1] >= 1
        if not grouped and tuple(x.shape) not in ((H, N), (batch, N, L)):
            raise ShapeError(
                f"{operation}: {name} must be ({H}, {N}), ({batch}, {N}, {L}) or ({batch}, groups, {N}, {L}) "
                f"({shapes})."
            )
        if grouped and H % x.shape[1]:
            raise ShapeError(f"{operation}: {x.shape[1]} groups of {name} do not divide {H} channels ({shapes}).")
