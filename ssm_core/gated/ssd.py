"""The dual form of Mamba-2: a scalar gate a head and a step makes the recurrence a masked product of matrices.

Within a chunk of T steps the outputs are one product with the (T, T) matrix of C_i B_j times the decay between j and i;
between chunks go the states.
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.dispatch import dispatched
from .._arrays.errors import ShapeError, describe
from .._arrays.idioms import clip, matmul
from .._arrays.library import (
    Array,
    Namespace,
    compute_dtype,
    device,
    in_dtype_of,
    namespace,
    real_floating,
    require_arrays,
)
from .._arrays.numbers import flag, whole
from .._arrays.values import overflow_ignored
from ..functions.special import silu
from ..recurrences.broken import Broken
from ..recurrences.fold import in_chunks
from ..recurrences.segments import Segments, Signals, checked_segments
from ..recurrences.summaries import Elementwise, through_segments
from .checks import check_given, check_limit, check_no_overflow, check_rows, kept_finite, steps_of

FLOOR = -750.0  # of log gates: exp(FLOOR) is 0
CHUNK = 64


def ssd(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    *,
    D: Array | None = None,
    z: Array | None = None,
    dt_bias: Array | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    initial: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
    chunk: int = CHUNK,
) -> Array | tuple[Array, Array]:
    """The state space dual of Mamba-2, by chunks: products of matrices inside, states between.

    S_k = exp(dt_k A) S_{k-1} + dt_k x_k B_k^T,   y_k = S_k C_k + D x_k,   y_k silu(z_k)

    x, z        (batch, L, H, P), real: H heads of P features, and their gate
    dt          (batch, L, H): dt + dt_bias, softplus of it if asked for, and that clipped to dt_limit
    A           (H,), or (batch, L, H) where it depends on the input; positive ones grow, until they overflow
    B, C        (batch, L, G, N): head h uses group h // (H / G)
    D           (H,) or (H, P)
    dt_bias     (H,)
    initial     S_{-1} (batch, H, P, N), zero if None
    reset       bool (batch, L): the state is zeroed before that step
    lengths     integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens  integer (n + 1,) with batch 1: n sequences packed one after another; initial and states (n, H, P, N)
    chunk       steps of a chunk; the result does not depend on it, and L need not be a multiple
    returns     y (batch, L, H, P) in x's dtype, with return_state (y, the last state (batch, H, P, N))

    Memory is that of inputs, outputs and one chunk; the backward computes a chunk again. Triton's kernels, which have
    chunks of their own, hold the states between all of them while they run. Half precision is computed in float32.
    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, negative steps, an overflow) and
    MixedArraysError.
    Source: Dao and Gu, Transformers are SSMs, ICML 2024, https://arxiv.org/abs/2405.21060.

    >>> import numpy, ssm_core
    >>> x, dt, ones = numpy.ones((1, 3, 1, 1)), numpy.ones((1, 3, 1)), numpy.ones((1, 3, 1, 1))
    >>> ssm_core.ssd(x, dt, numpy.asarray([-1.0]), ones, ones)[0, :, 0, 0].round(3)
    array([1.   , 1.368, 1.503])
    """
    required = {"x": x, "dt": dt, "A": A, "B": B, "C": C}
    optional = {"D": D, "z": z, "dt_bias": dt_bias, "initial": initial}
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    operation, chunk = "ssd", whole("ssd", chunk=chunk)
    return_state = flag(operation, return_state=return_state)
    options = {"softplus": flag(operation, dt_softplus=dt_softplus), "limit": check_limit(operation, dt_limit)}
    v, segments, broken, shapes = _checked(operation, required, optional, masks, **options)
    xp = namespace(operation, x=x)
    y, state = _outputs(operation, v, segments, shapes, chunk=chunk, want_state=return_state)
    if D is not None:
        y = y + (v["D"] if D.ndim == 2 else v["D"][:, None]) * v["x"]
    y = broken.marked(y if z is None else y * silu(v["z"]), 1, xp)
    y = in_dtype_of(x, y, xp)
    return (y, broken.marked_state(state, xp)) if return_state else y


def _checked(
    operation: str,
    required: dict[str, Array],
    optional: dict[str, Array | None],
    masks: dict[str, Array | None],
    *,
    softplus: Any,
    limit: Any,
) -> tuple[dict[str, Array], Segments, Broken, object]:
    """The arrays that are given, in the precision of the states, dt as the steps that it means; and their shapes."""
    require_arrays(operation, **required)
    given = {name: v for name, v in optional.items() if v is not None}
    cuts = {name: v for name, v in masks.items() if v is not None}
    require_arrays(operation, **given, **cuts)
    arrays = required | given
    xp = namespace(operation, **arrays, **cuts)
    real_floating(operation, **arrays)
    shapes = describe(**arrays, **cuts)
    x, B = required["x"], required["B"]
    if x.ndim != 4:
        raise ShapeError(f"{operation}: x must be (batch, L, H, P) ({shapes}).")
    batch, L, H, P = x.shape
    check_rows(operation, {name: required[name] for name in ("B", "C") if name in required}, (batch, L), H, shapes)
    segments = checked_segments(operation, shapes, (batch,), L, of=x, **masks)
    wanted: dict[str, tuple[tuple[int, ...], ...]] = {
        "dt": ((batch, L, H),),
        "A": ((H,), (batch, L, H)),
        "D": ((H,), (H, P)),
        "z": ((batch, L, H, P),),
        "dt_bias": ((H,),),
        "initial": ((segments.count(batch), H, P, B.shape[-1]),),
    }
    check_given(operation, {name: v for name, v in arrays.items() if name in wanted}, wanted, shapes)
    signals = ("x", "dt", "B", "C", "z", *(("A",) if required["A"].ndim == 3 else ()))
    arrays, broken = kept_finite(operation, arrays, segments, xp, axis=1, kept=(0, 2), signals=signals)
    dtype = compute_dtype(xp, *arrays.values())
    v = {name: xp.astype(a, dtype, copy=False) for name, a in arrays.items()}
    v["dt"] = steps_of(operation, v["dt"], shapes, xp, bias=v.get("dt_bias"), with_softplus=softplus, limit=limit)
    return v, segments, broken, shapes


def _outputs(
    operation: str, v: dict[str, Array], segments: Segments, shapes: object, *, chunk: int, want_state: bool
) -> tuple[Array, Array]:
    """S C for all steps and the last state, refused where they overflow."""
    with overflow_ignored(v["x"]):
        y, state = run_ssd(
            v["dt"][..., None] * v["x"], v["dt"] * v["A"], v["B"], v.get("C", v["B"]), segments=segments,
            initial=v.get("initial"), chunk=chunk, want_state=want_state,
        )  # fmt: skip
    check_no_overflow(operation, y, 1, segments.lengths, shapes)
    return y, state


def ssd_summary(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    *,
    dt_bias: Array | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    reset: Array | None = None,
    lengths: Array | None = None,
    chunk: int = CHUNK,
) -> Elementwise:
    """What these steps of `ssd` do to the state before them: (P, s) of S -> P S + s.

    P = exp(sum_k dt_k A_k) (batch, H, 1, 1), or zero with a reset among them, and s (batch, H, P, N) the last state
    from zero. Arguments are those of `ssd`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, negative steps, an overflow) and
    MixedArraysError.
    Source: Dao and Gu, Transformers are SSMs, ICML 2024, https://arxiv.org/abs/2405.21060, section 6.

    >>> import numpy, ssm_core
    >>> x, dt, B = numpy.ones((1, 3, 1, 1)), numpy.ones((1, 3, 1)), numpy.ones((1, 3, 1, 1))
    >>> ssm_core.ssd_summary(x, dt, numpy.asarray([-1.0]), B).through.round(3)
    array([[[[0.05]]]])
    """
    operation, required = "ssd_summary", {"x": x, "dt": dt, "A": A, "B": B}
    masks, optional = {"reset": reset, "lengths": lengths}, {"dt_bias": dt_bias}
    chunk = whole(operation, chunk=chunk)
    options = {"softplus": flag(operation, dt_softplus=dt_softplus), "limit": check_limit(operation, dt_limit)}
    v, segments, broken, shapes = _checked(operation, required, optional, masks, **options)
    xp = namespace(operation, x=x)
    state = broken.marked_state(_outputs(operation, v, segments, shapes, chunk=chunk, want_state=True)[1], xp)
    return _summarized(state, v["dt"] * v["A"], segments, xp)


def _summarized(state: Array, log_gates: Array, segments: Segments, xp: Namespace) -> Elementwise:
    """The summary of steps that lead from zero to the state."""
    P = xp.exp(xp.sum(segments.masked(log_gates, 1, xp), axis=1))[..., None, None]
    return Elementwise(through_segments(P, segments, 3, xp), state)


def run_ssd(
    drive: Array,
    log_gates: Array,
    B: Array,
    C: Array,
    *,
    segments: Segments,
    initial: Array | None = None,
    chunk: int = CHUNK,
    want_state: bool = True,
) -> tuple[Array, Array]:
    """S_k = exp(log_gates_k) S_{k-1} + drive_k B_k^T and S_k C_k, for arrays that are known to fit."""
    xp = namespace("ssd", drive=drive)

    def run(signals: Signals, state: Array | None, segments: Segments) -> tuple[Array, Array]:
        v = {name: segments.masked(x, 1, xp) for name, x in signals.items()}
        batch, L, H, P = v["drive"].shape
        if state is None:
            state = xp.zeros((batch, H, P, B.shape[-1]), dtype=drive.dtype, device=device(drive))
        if L == 0:
            return v["drive"], state
        return _ssd(v["drive"], v["log_gates"], v["B"], v["C"], state, segments=segments, chunk=chunk)

    def summary(signals: Signals, segments: Segments) -> Elementwise:
        return _summarized(run(signals, None, segments)[1], signals["log_gates"], segments, xp)

    signals = {"drive": drive, "log_gates": log_gates, "B": B, "C": C}
    return segments.run("ssd", run, signals, initial, axis=1, apart=want_state, summary=summary)


@dispatched
def _ssd(
    drive: Array, log_gates: Array, B: Array, C: Array, state: Array, *, segments: Segments, chunk: int
) -> tuple[Array, Array]:
    """The chunk bounds memory, and does not change the result: a fused implementation may have one of its own.

    Signals are zero beyond the lengths, so that no step there moves a state.
    """
    xp = namespace("ssd", drive=drive)
    rank = (slice(None), slice(None), None, ...)  # of one

    def body(state: Array, v: Signals) -> tuple[Array, Array]:
        x, B, C = (v[name][rank] for name in ("drive", "B", "C"))
        y, state = one_chunk(x, v["log_gates"], B, C, state, reset=v.get("reset"), xp=xp)
        return state, y[:, :, 0, ...]

    signals = {"drive": drive, "log_gates": log_gates, "B": B, "C": C, "reset": segments.reset}
    return in_chunks(body, state, signals, {}, axis=1, chunk=chunk)


def one_chunk(
    x: Array,
    log_gates: Array,
    B: Array,
    C: Array,
    state: Array,
    *,
    xp: Namespace,
    reset: Array | None = None,
    entering: Array | None = None,
    strict: bool = False,
) -> tuple[Array, Array]:
    """One chunk of T steps, each of R inputs and outputs, and the state after it.

    x (T, batch, R, H, P), log_gates (T, batch, H), B and C (T, batch, R, G, N), state (batch, H, P, N), reset
    (T, batch). `entering` is x as it enters the state, where that differs; `strict` leaves the input of the same step
    out of the output.
    """
    T, batch, R, H, P = x.shape
    G, N = B.shape[-2:]
    J, M = H // G, T * R

    def rows(m: Array) -> Array:
        return xp.reshape(xp.permute_dims(m, (1, 3, 0, 2, 4)), (batch, G, M, N))

    def columns(m: Array) -> Array:
        return xp.reshape(xp.permute_dims(m, (1, 3, 0, 2, 4)), (batch, G, J, M, P))

    def per_row(m: Array) -> Array:
        """(batch, H, T) for all R rows of a step: (batch, G, J, M, 1)."""
        m = m if R == 1 else xp.repeat(m, R, axis=-1)
        return xp.reshape(m, (batch, G, J, M, 1))

    # Sums of sixteenths are exact, so that small gates keep their digits beside large ones; the rest sums up to little.
    log_gates = clip(log_gates, -750.0)  # FLOOR, as a number: torch.compile makes a symbol of the name
    coarse = xp.round(16 * log_gates) / 16
    h, s = (xp.permute_dims(xp.cumulative_sum(m, axis=0), (1, 2, 0)) for m in (coarse, log_gates - coarse))
    # A step and itself have nothing between them: differences there, of whatever they are, would leave the roundings of
    # their derivatives, which drown those of strong decays.
    k = xp.arange(T, device=device(x))
    before, same = k[:, None] > k, k[:, None] == k
    apart = xp.full((T,), -math.inf, dtype=x.dtype, device=device(x))
    nothing = apart if strict else xp.where(same, xp.zeros_like(apart), apart)
    following = xp.where(k < T - 1, (h[..., -1:] - h) + (s[..., -1:] - s), xp.zeros_like(h))
    through, left = xp.exp(h + s), xp.exp(following)  # (batch, H, T)
    if reset is not None:
        segment = xp.permute_dims(xp.cumulative_sum(xp.astype(reset, xp.int32), axis=0), (1, 0))[:, None, :]
        before = before & (segment[..., :, None] == segment[..., None, :])  # (batch, 1, T, T)
        through = xp.where(segment == 0, through, xp.zeros_like(through))
        left = xp.where(segment == segment[..., -1:], left, xp.zeros_like(left))
    between = (h[..., :, None] - h[..., None, :]) + (s[..., :, None] - s[..., None, :])
    decay = xp.exp(xp.where(before, between, nothing))  # (batch, H, T, T)
    if R > 1:
        decay = xp.repeat(xp.repeat(decay, R, axis=-1), R, axis=-2)
    B, C = rows(B), rows(C)
    scores = matmul(C, xp.matrix_transpose(B), xp)[:, :, None, ...]
    y = matmul(scores * xp.reshape(decay, (batch, G, J, M, M)), columns(x), xp)
    carried = matmul(C, xp.matrix_transpose(xp.reshape(state, (batch, G, J * P, N))), xp)
    carried = xp.permute_dims(xp.reshape(carried, (batch, G, M, J, P)), (0, 1, 3, 2, 4))
    y = xp.reshape(y + per_row(through) * carried, (batch, H, T, R, P))
    kept = columns(x if entering is None else entering) * per_row(left)
    kept = xp.reshape(xp.matrix_transpose(kept), (batch, G, J * P, M))
    state = through[..., -1][..., None, None] * state + xp.reshape(matmul(kept, B, xp), (batch, H, P, N))
    return xp.permute_dims(y, (2, 0, 3, 1, 4)), state
