"""The recurrence of Mamba-3: trapezoidal steps, states that rotate, and one or several inputs a step.

    S_k = a_k S_{k-1} + (1 - l_k) dt_k a_k x_{k-1} K_{k-1}^T + l_k dt_k x_k K_k^T,    a_k = exp(dt_k A_k)

Seen from a later step i > j, input j has entered with weight l_j dt_j + (1 - l_{j+1}) dt_{j+1}, decayed from j to i; in
its own step with l_j dt_j alone. So it is `ssd` without the diagonal of its matrix, plus that diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._arrays.errors import OptionError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    compute_dtype,
    device,
    in_dtype_of,
    moved,
    namespace,
    real_floating,
    require_arrays,
)
from .._arrays.values import check_finite, overflow_ignored
from ..functions.special import sigmoid, silu
from ..recurrences.fold import fold
from ..recurrences.linear import linear_scan
from ..recurrences.segments import check_cu_seqlens, check_lengths, check_masks, resets_of, side_by_side, steps_within
from .checks import check_chunk, check_given, check_no_overflow, check_rows, steps_of
from .ssd import CHUNK, one_chunk

Mamba3State = tuple[Array, Array, Array, Array]


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

    rot turns neighbouring features (0, 1), (2, 3), ... by their angles; the others stay.

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
    operation = "mamba3_scan"
    require_arrays(operation, x=x, dt=dt, A=A, B=B, C=C, trap=trap, angles=angles)
    _check_tuples(operation, {"rank_maps": (rank_maps, 3), "initial": (initial, 4)})
    entering = dict(zip(("t", "S", "K", "before"), initial or (), strict=False))
    require_arrays(operation, **entering)
    optional = {
        "B_bias": B_bias, "C_bias": C_bias, "D": D, "z": z, "reset": reset, "lengths": lengths,
        "cu_seqlens": cu_seqlens,
        **dict(zip(("x_map", "z_map", "out_map"), rank_maps or (), strict=False)),
        **entering,
    }  # fmt: skip
    given = {name: v for name, v in optional.items() if v is not None}
    require_arrays(operation, **given)
    arrays = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "trap": trap, "angles": angles, **given}
    xp = namespace(operation, **arrays)
    whole = ("reset", "lengths", "cu_seqlens")
    real_floating(operation, **{name: v for name, v in arrays.items() if name not in whole})
    shapes = describe(**arrays)
    if x.ndim != 4:
        raise ShapeError(f"{operation}: x must be (batch, L, H, P) ({shapes}).")
    batch, L, H, P = x.shape
    several = B.ndim == 5
    R = B.shape[2] if several else 1
    check_rows(operation, {"B": B, "C": C}, (batch, L, R) if several else (batch, L), H, shapes)
    _check_rank(operation, several, rank_maps, z, shapes)
    N, M, n = B.shape[-1], angles.shape[-1] if angles.ndim else 0, batch
    if cu_seqlens is not None:
        check_cu_seqlens(operation, cu_seqlens, batch, L, reset=reset, lengths=lengths)
        n = cu_seqlens.shape[0] - 1
    ranked = (R,) if several else ()
    per_step, per_head = ((batch, L, H),), ((H, *ranked, P),)
    wanted: dict[str, Any] = {
        "dt": per_step, "A": ((H,), *per_step), "trap": per_step, "angles": ((batch, L, H, M), (batch, L, 1, M)),
        "B_bias": ((H, *ranked, N),), "C_bias": ((H, *ranked, N),), "D": ((H,),), "z": ((batch, L, H, P),),
        "x_map": per_head, "z_map": per_head, "out_map": per_head, "t": ((n, H, M),), "S": ((n, H, P, N),),
        "K": ((n, H, *ranked, N),), "before": ((n, H, *ranked, P),), "reset": ((batch, L),), "lengths": ((batch,),),
    }  # fmt: skip
    check_given(operation, arrays, wanted, shapes)
    if 2 * M > N:
        raise ShapeError(f"{operation}: {M} angles turn {2 * M} features, but there are {N} states ({shapes}).")
    check_masks(operation, shapes, reset, lengths, None)
    check_chunk(operation, chunk)
    check_finite(operation, xp, **{name: v for name, v in arrays.items() if name not in whole})
    check_lengths(operation, lengths, L)

    dtype = compute_dtype(xp, *(v for name, v in arrays.items() if name not in whole))
    v = {name: a if name in whole else xp.astype(a, dtype, copy=False) for name, a in arrays.items()}
    advice = "Use ssm_core.special.softplus(dt)."
    v["dt"] = steps_of(operation, v["dt"], None, False, (0.0, math.inf), shapes, xp, advice=advice)
    share = sigmoid(v["trap"])
    inputs = v["x"][:, :, None, ...]  # (batch, L, R, H, P)
    if rank_maps is not None:
        inputs = inputs * _rank_first(v["x_map"], xp)
    rows = {name: v[name] if several else v[name][:, :, None, ...] for name in ("B", "C")}
    biases = [None if b not in v else _rank_first(v[b], xp, several) for b in ("B_bias", "C_bias")]
    signals = (inputs, v["dt"] * v["A"], share * v["dt"], (1 - share) * v["dt"], rows["B"], rows["C"],
               math.pi * xp.tanh(v["angles"]) * v["dt"][..., None])  # fmt: skip
    first = None if initial is None else _inner(tuple(v[name] for name in entering), several, xp)
    with overflow_ignored(x):
        if cu_seqlens is not None and (return_state or initial is not None):

            def one_each(signals: tuple[Any, ...], lengths: Array) -> tuple[Array, Any]:
                return in_chunks(signals, biases, first, None, lengths, chunk, xp)

            y, state = side_by_side(operation, one_each, signals, cu_seqlens, 1)
        else:
            reset = reset if cu_seqlens is None else resets_of(cu_seqlens, L, xp)
            y, state = in_chunks(signals, biases, first, reset, lengths, chunk, xp)
    check_no_overflow(operation, y, 1, lengths, shapes)
    y = y if D is None else y + v["D"][:, None] * inputs
    if z is not None:
        gate = v["z"][:, :, None, ...]
        y = y * silu(gate if rank_maps is None else gate * _rank_first(v["z_map"], xp))
    y = y[:, :, 0, ...] if rank_maps is None else xp.sum(y * _rank_first(v["out_map"], xp), axis=2)
    y = in_dtype_of(x, y, xp)
    return (y, _outer(state, several, xp)) if return_state else y


def in_chunks(
    signals: tuple[Array, ...],
    biases: list[Array | None],
    initial: Mamba3State | None,
    reset: Array | None,
    lengths: Array | None,
    chunk: int,
    xp: Namespace,
) -> tuple[Array, Mamba3State]:
    """S Q for all steps (batch, L, R, H, P), and the last state, of arrays that are known to fit.

    signals: inputs (batch, L, R, H, P), dt A, l dt and (1 - l) dt (batch, L, H), B and C (batch, L, R, G, N), and
    turns (batch, L, H or 1, M); biases (R, H, N). The state holds its K and inputs as (batch, R, H, ...).
    """
    inputs, B, turns = signals[0], signals[4], signals[6]
    batch, L, R, H, P = inputs.shape
    N = B.shape[-1]
    if initial is None:
        like = {"dtype": inputs.dtype, "device": device(inputs)}
        sizes = ((batch, H, turns.shape[-1]), (batch, H, P, N), (batch, R, H, N), (batch, R, H, P))
        initial = tuple(xp.zeros(size, **like) for size in sizes)
    if L == 0:
        return inputs, initial
    names = ["x", "log_gates", "own", "late", "B", "C", "turns"]
    given = list(signals)
    valid = None if lengths is None else steps_within(lengths, L, xp)
    if reset is not None:
        names.append("reset")
        given.append(reset if valid is None else reset & valid)
    if valid is not None:
        names.append("valid")
        given.append(valid)

    def body(state: Mamba3State, *parts: Array) -> tuple[Mamba3State, Array]:
        return _one_chunk(state, dict(zip(names, parts, strict=False)), parts[len(names) :], xp)

    time_first = tuple(moved(v, 1, 0, xp) for v in given)
    y, state = fold(body, initial, time_first, tuple(biases), chunk=chunk)
    return moved(y, 0, 1, xp), state


def _one_chunk(
    state: Mamba3State, v: dict[str, Array], biases: Sequence[Array | None], xp: Namespace
) -> tuple[Mamba3State, Array]:
    """A chunk with time first."""
    angle, S, K_before, x_before = state
    reset, valid = v.get("reset"), v.get("valid")
    if valid is not None:  # what is beyond changes nothing, NaN neither
        for name in ("x", "log_gates", "own", "late", "B", "turns"):
            within = xp.reshape(valid, (*valid.shape, *(1,) * (v[name].ndim - 2)))
            v = v | {name: xp.where(within, v[name], xp.zeros_like(v[name]))}
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
    K, Q = (_rotated(v[name], bias, theta, heads, xp) for name, bias in zip(("B", "C"), biases, strict=True))
    following = xp.concat([late[1:, ...], xp.zeros_like(late[:1, ...])], axis=0)
    entering = x * (own + following)[:, :, None, :, None]
    S = S + late[0, ...][..., None, None] * _outer_products(x_before, K_before, xp)
    y, S = one_chunk(entering, log_gates, K, Q, S, reset, xp, strict=True)
    scores = xp.matmul(moved(Q, 2, 3, xp), xp.matrix_transpose(moved(K, 2, 3, xp)))  # (T, batch, H, R, R)
    same = xp.matmul(scores, moved(x, 2, 3, xp)) * own[..., None, None]
    y = y + moved(same, 3, 2, xp)
    turned = theta[-1, ...] - 2 * math.pi * xp.floor(theta[-1, ...] / (2 * math.pi))
    turned = xp.broadcast_to(turned, angle.shape)
    if valid is None:
        return (turned, S, K[-1, ...], x[-1, ...]), y
    return (turned, S, _last_valid(K_before, K, valid, xp), _last_valid(x_before, x, valid, xp)), y


def _held(start: Array, reset: Array, xp: Namespace) -> Array:
    """The value of `start` (T, batch, ...) at the last reset up to every step."""
    return linear_scan(xp.astype(~reset, start.dtype)[..., None, None], start, axis=0)


def _rotated(rows: Array, bias: Array | None, theta: Array, H: int, xp: Namespace) -> Array:
    """rows (T, batch, R, G, N) for all heads, biased, the pairs of their first features turned: (T, batch, R, H, N)."""
    M, G = theta.shape[-1], rows.shape[3]
    rows = rows if G == H else xp.repeat(rows, H // G, axis=3)
    rows = rows if bias is None else rows + bias
    if M == 0:
        return rows
    cos, sin = xp.cos(theta)[:, :, None, ...], xp.sin(theta)[:, :, None, ...]
    first, second = rows[..., 0 : 2 * M : 2], rows[..., 1 : 2 * M : 2]
    pairs = xp.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
    turned = xp.reshape(pairs, (*rows.shape[:-1], 2 * M))
    return turned if rows.shape[-1] == 2 * M else xp.concat([turned, rows[..., 2 * M :]], axis=-1)


def _outer_products(x: Array, K: Array, xp: Namespace) -> Array:
    """sum_r x_r K_r^T for x (batch, R, H, P) and K (batch, R, H, N): (batch, H, P, N)."""
    return xp.matmul(xp.permute_dims(x, (0, 2, 3, 1)), xp.permute_dims(K, (0, 2, 1, 3)))


def _last_valid(before: Array, values: Array, valid: Array, xp: Namespace) -> Array:
    """The value (batch, ...) at the last valid step of values (T, batch, ...), or what was before."""
    count = xp.sum(xp.astype(valid, xp.int32), axis=0)  # valid steps come first
    k = xp.arange(values.shape[0] + 1, device=device(values))
    chosen = xp.astype(k, count.dtype)[:, None] == count
    every = xp.concat([before[None, ...], values], axis=0)
    chosen = xp.reshape(chosen, (*chosen.shape, *(1,) * (every.ndim - 2)))
    return xp.sum(xp.where(chosen, every, xp.zeros_like(every)), axis=0)


def _rank_first(m: Array, xp: Namespace, several: bool = True) -> Array:
    """(H, R, ...) as (R, H, ...); (H, ...) as (1, H, ...)."""
    return moved(m, 1, 0, xp) if several else m[None, ...]


def _inner(state: tuple[Array, ...], several: bool, xp: Namespace) -> Any:
    """The state with the rank before the heads."""
    angle, S, K, x = state
    if several:
        return angle, S, moved(K, 2, 1, xp), moved(x, 2, 1, xp)
    return angle, S, K[:, None, ...], x[:, None, ...]


def _outer(state: Mamba3State, several: bool, xp: Namespace) -> Mamba3State:
    """The state as it is given out."""
    angle, S, K, x = state
    if several:
        return angle, S, moved(K, 1, 2, xp), moved(x, 1, 2, xp)
    return angle, S, K[:, 0, ...], x[:, 0, ...]


def _check_tuples(operation: str, given: dict[str, tuple[Any, int]]) -> None:
    """Raise for what should be None or a tuple of so many arrays."""
    for name, (found, n) in given.items():
        several = isinstance(found, tuple | list)
        if found is not None and (not several or len(found) != n):
            what = f"{len(found)} of them" if several else f"a {type(found).__name__}"
            raise ShapeError(f"{operation}: {name} must be a tuple of {n} arrays, not {what}.")


def _check_rank(operation: str, several: bool, rank_maps: Any, z: Any, shapes: object) -> None:
    if several != (rank_maps is not None):
        raise OptionError(
            f"{operation}: B and C (batch, L, R, G, N) of R inputs a step go with rank_maps, and without them they "
            f"are (batch, L, G, N) ({shapes})."
        )
    if rank_maps is not None and (
        rank_maps[0] is None or rank_maps[2] is None or (rank_maps[1] is None) != (z is None)
    ):
        raise OptionError(f"{operation}: rank_maps are arrays, the second one None exactly where z is ({shapes}).")
