"""The recurrence of Mamba-3: trapezoidal steps, states that rotate, and one or several inputs a step.

    S_k = a_k S_{k-1} + (1 - l_k) dt_k a_k x_{k-1} K_{k-1}^T + l_k dt_k x_k K_k^T,    a_k = exp(dt_k A_k)

Seen from a later step i > j, input j has entered with weight l_j dt_j + (1 - l_{j+1}) dt_{j+1}, decayed from j to i; in
its own step with l_j dt_j alone. So it is `ssd` without the diagonal of its matrix, plus that diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._arrays.errors import ShapeError, describe
from .._arrays.idioms import matmul, moved
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
from ..functions.special import sigmoid, silu
from ..recurrences.broken import Broken
from ..recurrences.fold import in_chunks
from ..recurrences.linear import checked_scan
from ..recurrences.segments import Segments, Signals, checked_segments
from .checks import (
    check_given,
    check_no_overflow,
    check_rank,
    check_rows,
    check_tuples,
    kept_finite,
    shapes_of_mamba3,
    steps_of,
)
from .ssd import one_chunk
from .turning import Mamba3State, RankFirst, Turning, heads_before_ranks, ranks_before_heads, turned, turning

CHUNK = 128  # steps of a chunk, whose many operations cost more than the products of twice as many steps


def mamba3_scan(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    *,
    trap: Array,
    angles: Array,
    B_bias: Array | None = None,
    C_bias: Array | None = None,
    D: Array | None = None,
    z: Array | None = None,
    rank_maps: tuple[Array, Array | None, Array] | None = None,
    initial: Mamba3State | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
    chunk: int = CHUNK,
) -> Array | tuple[Array, Mamba3State]:
    """The recurrence of Mamba-3, by chunks: the exponential-trapezoidal rule on states that rotate.

    t_k = t_{k-1} + pi tanh(angles_k) dt_k,   K_k = rot(t_k) (B_k + B_bias),   Q_k = rot(t_k) (C_k + C_bias)
    S_k = a_k (S_{k-1} + (1 - l_k) dt_k x_{k-1} K_{k-1}^T) + l_k dt_k x_k K_k^T,   a = exp(dt A), l = sigmoid(trap)
    y_k = S_k Q_k + D x_k,   y_k silu(z_k)

    rot turns neighboring features (0, 1), (2, 3), ... by their angles; the others stay.

    x, z            (batch, L, H, P), real: H heads of P features, and their gate
    dt, A, trap     (batch, L, H); A may be (H,); dt is not negative
    B, C            (batch, L, G, N), or with R inputs a step (batch, L, R, G, N): head h uses group h // (H / G)
    angles          (batch, L, H, M), M <= N / 2, or (batch, L, 1, M) for all heads
    B_bias, C_bias  (H, N), or (H, R, N)
    D               (H,)
    rank_maps       with R inputs: how x enters, z gates and outputs join, three arrays (H, R, P):
                    input r is x map_0r, output r is gated by silu(z map_1r) (None without z), y = sum_r map_2r output_r
    initial         (t (batch, H, M), S (batch, H, P, N), the last K (batch, H, N) or (batch, H, R, N), and the last
                    inputs (batch, H, P) or (batch, H, R, P)), zero if None
    reset           bool (batch, L): the whole state is zeroed before that step
    lengths         integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens      integer (n + 1,) with batch 1: n sequences packed one after another; states of batch n
    chunk           steps of a chunk; the result does not depend on it
    returns         y (batch, L, H, P) in x's dtype, with return_state (y, the last state)

    Angles in the state lie in [0, 2 pi). Half precision is computed in float32. Raises ShapeError, DTypeError,
    OptionError, DomainError (host values: NaN, negative steps, an overflow) and MixedArraysError.
    Source: Lahoti et al., Mamba-3: improved sequence modeling using state space principles, ICLR 2026.

    >>> import numpy, ssm_core
    >>> x, dt = numpy.ones((1, 3, 1, 1)), numpy.ones((1, 3, 1))
    >>> B, zero = numpy.ones((1, 3, 1, 2)), numpy.zeros((1, 3, 1, 1))
    >>> y = ssm_core.mamba3_scan(x, dt, numpy.asarray([-1.0]), B, B, trap=0 * dt, angles=zero)
    >>> y[0, :, 0, 0].round(3)  # half of an input enters at once, half with the next
    array([1.   , 1.736, 2.006])
    """
    operation, chunk = "mamba3_scan", whole("mamba3_scan", chunk=chunk)
    return_state = flag(operation, return_state=return_state)
    required = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "trap": trap, "angles": angles}
    require_arrays(operation, **required)
    check_tuples(operation, {"rank_maps": (rank_maps, 3), "initial": (initial, 4)})
    entering = dict(zip(("t", "S", "K", "before"), initial or (), strict=False))
    require_arrays(operation, **entering)
    maps = dict(zip(("x_map", "z_map", "out_map"), rank_maps or (), strict=False))
    masks = {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    optional = {"B_bias": B_bias, "C_bias": C_bias, "D": D, "z": z, **entering}
    v, segments, broken, shapes = _checked(operation, required, optional, maps, masks)
    xp, several = namespace(operation, x=x), B.ndim == 5
    first = None if initial is None else ranks_before_heads(tuple(v[name] for name in entering), several, xp)
    options: dict[str, Any] = {"segments": segments, "initial": first, "chunk": chunk, "want_state": return_state}
    y, state = _outputs(operation, v, shapes, several, **options)
    y = in_dtype_of(x, broken.marked(y, 1, xp), xp)
    return (y, broken.marked_state(heads_before_ranks(state, several, xp), xp)) if return_state else y


def _checked(
    operation: str,
    required: dict[str, Array],
    optional: dict[str, Array | None],
    maps: dict[str, Any],
    masks: dict[str, Array | None],
) -> tuple[dict[str, Array], Segments, Broken, object]:
    """The arrays that are given, in the precision of the states, with the log gates dt A; and their shapes."""
    given = {name: v for name, v in (optional | maps).items() if v is not None}
    cuts = {name: v for name, v in masks.items() if v is not None}
    require_arrays(operation, **required, **given, **cuts)
    arrays = required | given
    xp = namespace(operation, **arrays, **cuts)
    real_floating(operation, **arrays)
    shapes = describe(**arrays, **cuts)
    x, B, angles = (required[name] for name in ("x", "B", "angles"))
    if x.ndim != 4:
        raise ShapeError(f"{operation}: x must be (batch, L, H, P) ({shapes}).")
    several = B.ndim == 5
    lead = (*x.shape[:2], B.shape[2]) if several else tuple(x.shape[:2])
    check_rows(operation, {name: v for name, v in required.items() if name in ("B", "C")}, lead, x.shape[2], shapes)
    check_rank(operation, several, maps, optional.get("z"), shapes, "rank_maps" if "C" in required else "x_map")
    segments = checked_segments(operation, shapes, tuple(x.shape[:1]), x.shape[1], of=x, **masks)
    check_given(operation, arrays, shapes_of_mamba3(x, B, angles, segments), shapes)
    if 2 * angles.shape[-1] > B.shape[-1]:
        raise ShapeError(
            f"{operation}: {angles.shape[-1]} angles turn {2 * angles.shape[-1]} features, but there are "
            f"{B.shape[-1]} states ({shapes})."
        )
    dtype = compute_dtype(xp, *arrays.values())
    signals = ("x", "dt", "B", "C", "trap", "angles", "z", *(("A",) if required["A"].ndim == 3 else ()))
    rows: dict[str, Any] = {"axis": 1, "kept": (0, 2), "signals": signals, "state": ("t", "S", "K", "before")}
    arrays, broken = kept_finite(operation, arrays, segments, xp, **rows)
    v = {name: xp.astype(a, dtype, copy=False) for name, a in arrays.items()}
    v["dt"] = steps_of(operation, v["dt"], shapes, xp, advice="Use ssm_core.special.softplus(dt).")
    v["log_gates"] = v["dt"] * v["A"]
    return v, segments, broken, shapes


def _outputs(
    operation: str, v: dict[str, Array], shapes: object, several: bool, **options: Any
) -> tuple[Array, Mamba3State]:
    """`run_trapezoid` of one or several inputs a step, refused where it overflows; without C some outputs."""
    v = {"C": v["B"], **({"out_map": v["x_map"]} if "x_map" in v else {}), **v}
    for name in ("B", "C"):
        v[name] = v[name] if several else v[name][:, :, None, ...]
    for name in ("B_bias", "C_bias"):
        if name in v:
            v[name] = v[name] if several else v[name][:, None, :]
    with overflow_ignored(v["x"]):
        y, state = run_trapezoid(v, **options)
    check_no_overflow(operation, y, 1, options["segments"].lengths, shapes)
    return y, state


def mamba3_summary(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    *,
    trap: Array,
    angles: Array,
    B_bias: Array | None = None,
    x_map: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    chunk: int = CHUNK,
) -> Turning:
    """What these steps of `mamba3_scan` do to the state before them; x_map is the first of its rank_maps.

    S -> P (S + w x K^T) + rot(t) s,   P = exp(sum_k dt_k A_k), w = (1 - l_0) dt_0

    with the last K and input of the state before, (t, S, K, x), and the last state from zero, which turns by the angles
    that came before it. Arguments are those of `mamba3_scan`; composition as in `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN, negative steps, an overflow) and
    MixedArraysError.
    Source: Lahoti et al., Mamba-3: improved sequence modeling using state space principles, ICLR 2026.

    >>> import numpy, ssm_core
    >>> x, dt = numpy.ones((1, 3, 1, 1)), numpy.ones((1, 3, 1))
    >>> B, zero = numpy.ones((1, 3, 1, 2)), numpy.zeros((1, 3, 1, 1))
    >>> ssm_core.mamba3_summary(x, dt, numpy.asarray([-1.0]), B, trap=0 * dt, angles=zero).through.round(3)
    array([[[[0.05]]]])
    """
    operation, required = "mamba3_summary", {"x": x, "dt": dt, "A": A, "B": B, "trap": trap, "angles": angles}
    maps, masks = {} if x_map is None else {"x_map": x_map}, {"reset": reset, "lengths": lengths}
    v, segments, broken, shapes = _checked(operation, required, {"B_bias": B_bias}, maps, masks)
    xp, several = namespace(operation, x=x), B.ndim == 5
    _, state = _outputs(operation, v, shapes, several, segments=segments, chunk=whole(operation, chunk=chunk))
    state = broken.marked_state(heads_before_ranks(state, several, xp), xp)
    late = (1 - sigmoid(v["trap"])) * v["dt"]
    return turning(state, v["log_gates"], late, segments, xp)


def run_trapezoid(
    v: dict[str, Array],
    *,
    segments: Segments,
    initial: Mamba3State | None = None,
    chunk: int = CHUNK,
    want_state: bool = True,
    normalize: Callable[[Array], Array] | None = None,
) -> tuple[Array, Mamba3State]:
    """y (batch, L, H, P) and the last state, of arrays by name that are known to fit.

    Those of `mamba3_scan` with dt A as log_gates, B and C (batch, L, R, G, N), biases and maps (H, R, ...), where there
    are any. The state holds its K and inputs as (batch, R, H, ...). `normalize` acts on outputs before their gate.
    """
    xp = namespace("mamba3_scan", x=v["x"])
    rank_first = {n: moved(v[n], 1, 0, xp) for n in ("B_bias", "C_bias", "x_map", "z_map", "out_map") if n in v}
    share, x = sigmoid(v["trap"]), _times(v["x"][:, :, None, ...], rank_first.get("x_map"))
    signals = {
        "x": x,
        "log_gates": v["log_gates"],
        "own": share * v["dt"],
        "late": (1 - share) * v["dt"],
        "B": v["B"],
        "C": v["C"],
        "turns": math.pi * xp.tanh(v["angles"]) * v["dt"][..., None],
    }
    biases: Signals = {name: x for name, x in rank_first.items() if name.endswith("bias")}

    def run(signals: Signals, state: Any, segments: Segments) -> tuple[Array, Any]:
        return _in_segments({n: segments.masked(a, 1, xp) for n, a in signals.items()}, biases, state, segments, chunk)

    def summary(signals: Signals, segments: Segments) -> RankFirst:
        state = heads_before_ranks(run(signals, None, segments)[1], True, xp)
        return RankFirst(turning(state, signals["log_gates"], signals["late"], segments, xp))

    y, state = segments.run("mamba3_scan", run, signals, initial, axis=1, apart=want_state, summary=summary)
    y = y + v["D"][:, None] * x if "D" in v else y
    y = y if normalize is None else normalize(y)
    y = y * silu(_times(v["z"][:, :, None, ...], rank_first.get("z_map"))) if "z" in v else y
    if "out_map" in v:
        return xp.sum(y * rank_first["out_map"], axis=2), state
    return xp.reshape(y, v["x"].shape), state  # not a slice, whose backward is a copy


def _times(x: Array, factor: Array | None) -> Array:
    return x if factor is None else x * factor


def _in_segments(
    signals: Signals, biases: dict[str, Array], state: Mamba3State | None, segments: Segments, chunk: int
) -> tuple[Array, Mamba3State]:
    """S Q for all steps (batch, L, R, H, P), and the last state, of signals that are zero beyond the lengths."""
    x, turns = signals["x"], signals["turns"]
    xp, (batch, L, R, H, P), N = namespace("mamba3_scan", x=x), x.shape, signals["B"].shape[-1]
    if state is None:
        like = {"dtype": x.dtype, "device": device(x)}
        sizes = ((batch, H, turns.shape[-1]), (batch, H, P, N), (batch, R, H, N), (batch, R, H, P))
        state = tuple(xp.zeros(size, **like) for size in sizes)
    if L == 0:
        return x, state

    def body(state: Mamba3State, v: Signals) -> tuple[Mamba3State, Array]:
        return _one_chunk(state, v, xp)

    masks = {"reset": segments.reset, "valid": segments.valid(xp)}
    return in_chunks(body, state, signals | masks, biases, axis=1, chunk=chunk)


def _one_chunk(state: Mamba3State, v: Signals, xp: Namespace) -> tuple[Mamba3State, Array]:
    """A chunk with time first."""
    angle, S, K_before, x_before = state
    reset, valid = v.get("reset"), v.get("valid")
    x, log_gates, own, late, turns = (v[name] for name in ("x", "log_gates", "own", "late", "turns"))
    through = xp.cumulative_sum(turns, axis=0)  # (T, batch, H or 1, M)
    if reset is None:
        theta = angle + through
    else:  # angles count from the last reset
        late = xp.where(reset[..., None], xp.zeros_like(late), late)
        count = xp.cumulative_sum(xp.astype(reset, xp.int32), axis=0)
        start = xp.where((reset[..., None, None]), through - turns, xp.zeros_like(through))
        theta = xp.where(count[..., None, None] == 0, angle + through, through - _held(start, reset, xp))
    heads = x.shape[3]
    K, Q = (_rotated(v[name], v.get(f"{name}_bias"), theta, heads, xp) for name in ("B", "C"))
    following = xp.concat([late[1:, ...], xp.zeros_like(late[:1, ...])], axis=0)
    entering = x * (own + following)[:, :, None, :, None]
    S = S + late[0, ...][..., None, None] * _outer_products(x_before, K_before, xp)
    y, S = one_chunk(entering, log_gates, K, Q, S, xp=xp, reset=reset, strict=True)
    scores = matmul(moved(Q, 2, 3, xp), xp.matrix_transpose(moved(K, 2, 3, xp)), xp)  # (T, batch, H, R, R)
    same = matmul(scores, moved(x, 2, 3, xp), xp) * own[..., None, None]
    y = y + moved(same, 3, 2, xp)
    full = 6.283185307179586  # 2 pi, as a number: torch.compile makes a symbol of the name
    turned = theta[-1, ...] - full * xp.floor(theta[-1, ...] / full)
    turned = xp.broadcast_to(turned, angle.shape)
    if valid is None:
        return (turned, S, K[-1, ...], x[-1, ...]), y
    return (turned, S, _last_valid(K_before, K, valid, xp), _last_valid(x_before, x, valid, xp)), y


def _held(start: Array, reset: Array, xp: Namespace) -> Array:
    """The value of `start` (T, batch, ...) at the last reset up to every step."""
    return checked_scan("linear_scan", xp.astype(~reset, start.dtype)[..., None, None], start, axis=0)


def _rotated(rows: Array, bias: Array | None, theta: Array, H: int, xp: Namespace) -> Array:
    """rows (T, batch, R, G, N) for all heads, biased, the pairs of their first features turned: (T, batch, R, H, N)."""
    G = rows.shape[3]
    rows = rows if G == H else xp.repeat(rows, H // G, axis=3)
    rows = rows if bias is None else rows + bias
    return turned(rows, theta[:, :, None, ...], xp)


def _outer_products(x: Array, K: Array, xp: Namespace) -> Array:
    """sum_r x_r K_r^T for x (batch, R, H, P) and K (batch, R, H, N): (batch, H, P, N)."""
    return matmul(xp.permute_dims(x, (0, 2, 3, 1)), xp.permute_dims(K, (0, 2, 1, 3)), xp)


def _last_valid(before: Array, values: Array, valid: Array, xp: Namespace) -> Array:
    """The value (batch, ...) at the last valid step of values (T, batch, ...), or what was before."""
    count = xp.sum(xp.astype(valid, xp.int32), axis=0)  # valid steps come first
    k = xp.arange(values.shape[0] + 1, device=device(values))
    chosen = xp.astype(k, count.dtype)[:, None] == count
    every = xp.concat([before[None, ...], values], axis=0)
    chosen = xp.reshape(chosen, (*chosen.shape, *(1,) * (every.ndim - 2)))
    return xp.sum(xp.where(chosen, every, xp.zeros_like(every)), axis=0)
