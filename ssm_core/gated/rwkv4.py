"""RWKV-4: a weighted mean of all values so far, whose weights decay; kept over its largest weight.

With m_t = max(m_{t-1} + w, k_t), the largest exponent so far, no exponential exceeds 1, whatever the keys are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .._arrays.dispatch import dispatched, is_open
from .._arrays.idioms import clip
from .._arrays.library import Array, Namespace, device, in_dtype_of, namespace
from .._arrays.numbers import flag, whole
from ..recurrences.fold import in_chunks
from ..recurrences.linear import linear_scan
from ..recurrences.segments import Segments, Signals
from ..recurrences.summaries import forgotten
from .checks import check_tuples
from .maxima import maxima
from .vectors import checked_step, checked_vectors

CHUNK = 64
LOWEST = -1e38  # an exponent below all others, whose sums with decays are finite in float32
State = tuple[Array, Array, Array]
NAMES = ("num", "den", "max")


def rwkv4(
    k: Array,
    v: Array,
    log_decay: Array,
    bonus: Array,
    *,
    initial: State | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    return_state: bool = False,
    chunk: int = CHUNK,
) -> Array | tuple[Array, State]:
    """The recurrence of RWKV-4, by chunks: means of values with weights e^k that decay, the newest one raised by u.

    num_t = e^w num_{t-1} + e^{k_t} v_t,   den_t = e^w den_{t-1} + e^{k_t}
    y_t = (num_{t-1} + e^{u + k_t} v_t) / (den_{t-1} + e^{u + k_t})

    k, v        (batch, L, W), real
    log_decay   w (W,); RWKV's is -exp(time_decay)
    bonus       u (W,)
    initial     (num, den, max), each (batch, W): num and den over e^max; den = 0, or None, before all steps
    reset       bool (batch, L): the state is zeroed before that step
    lengths     integer (batch,): steps beyond do not touch the state; y beyond is unspecified
    cu_seqlens  integer (n + 1,) with batch 1: n sequences packed one after another; initial and states (n, W)
    chunk       steps of a chunk; the result does not depend on it
    returns     y (batch, L, W) in v's dtype, with return_state (y, the last state)

    Means are exact at keys of any size. Memory is that of inputs, outputs and one chunk; the backward computes a chunk
    again. Half precision is computed in float32. Raises ShapeError, DTypeError, OptionError, DomainError (host values:
    NaN) and MixedArraysError.
    Source: Peng et al., RWKV: Reinventing RNNs for the Transformer era, 2023, https://arxiv.org/abs/2305.13048.

    >>> import numpy, ssm_core
    >>> k, zero = numpy.zeros((1, 3, 1)), numpy.zeros(1)
    >>> ssm_core.rwkv4(k, k + [[[1.0], [2.0], [6.0]]], zero, zero)[0, :, 0]
    array([1. , 1.5, 3. ])
    """
    operation, masks = "rwkv4", {"reset": reset, "lengths": lengths, "cu_seqlens": cu_seqlens}
    check_tuples(operation, {"initial": (initial, 3)})
    state = {} if initial is None else dict(zip(NAMES, initial, strict=True))
    chunk, return_state = whole(operation, chunk=chunk), flag(operation, return_state=return_state)
    constants = {"log_decay": log_decay, "bonus": bonus}
    a, segments, broken, _ = checked_vectors(operation, {"k": k, "v": v}, constants, state, masks)
    first: Any = tuple(a[name] for name in state) or None
    y, last = run_rwkv4(a, segments=segments, initial=first, chunk=chunk, want_state=return_state)
    xp = namespace(operation, v=v)
    y = in_dtype_of(v, broken.marked(y, 1, xp), xp)
    return (y, broken.marked_state(last, xp)) if return_state else y


def rwkv4_update(state: State, k: Array, v: Array, log_decay: Array, bonus: Array) -> tuple[Array, State]:
    """One step of `rwkv4`: what generation runs for every token.

    state             (num, den, max), each (batch, W)
    k, v              (batch, W)
    log_decay, bonus  (W,)
    returns           (y (batch, W) in v's dtype, the new state); the state given is not written to

    Raises ShapeError, DTypeError, DomainError (host values: NaN) and MixedArraysError.
    Source: as of `rwkv4`.

    >>> import numpy, ssm_core
    >>> one, zero = numpy.ones((1, 1)), numpy.zeros(1)
    >>> ssm_core.rwkv4_update((2 * one, 2 * one, 0 * one), 0 * one, 4 * one, zero, zero)[0]
    array([[2.]])
    """
    operation = "rwkv4_update"
    check_tuples(operation, {"state": (() if state is None else state, 3)})
    constants, parts = {"log_decay": log_decay, "bonus": bonus}, dict(zip(NAMES, state, strict=True))
    a = checked_step(operation, {"k": k, "v": v}, constants, parts)
    y, last = step_rwkv4(a, tuple(a[name] for name in NAMES))
    return in_dtype_of(v, y, namespace(operation, v=v)), last


def rwkv4_summary(
    k: Array,
    v: Array,
    log_decay: Array,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
    chunk: int = CHUNK,
) -> Weighted:
    """What these steps of `rwkv4` do to the state before them.

    (num, den) -> P (num, den) + s, kept over the larger of their exponents: log P = L w (batch, W), LOWEST with a reset
    among them, and s (num, den, max) the last state from nothing. Arguments are those of `rwkv4`; composition as in
    `chunk_summary`.

    Raises ShapeError, DTypeError, OptionError, DomainError (host values: NaN) and MixedArraysError.
    Source: as of `rwkv4`.

    >>> import numpy, ssm_core
    >>> one = numpy.ones((1, 3, 1))
    >>> ssm_core.rwkv4_summary(0 * one, one, numpy.asarray([-1.0])).state[0].round(3)
    array([[1.503]])
    """
    operation, masks = "rwkv4_summary", {"reset": reset, "lengths": lengths}
    chunk = whole(operation, chunk=chunk)
    a, segments, broken, _ = checked_vectors(operation, {"k": k, "v": v}, {"log_decay": log_decay}, {}, masks)
    xp = namespace(operation, k=k)
    _, state = run_rwkv4(a | {"bonus": xp.zeros_like(a["log_decay"])}, segments=segments, chunk=chunk)
    return _summarized(broken.marked_state(state, xp), a["k"], a["log_decay"], segments, xp)


def _summarized(state: State, k: Array, w: Array, segments: Segments, xp: Namespace) -> Weighted:
    """The summary of steps that lead from nothing to the state."""
    return Weighted(clip(xp.sum(_decays(k, w, segments, xp), axis=1), LOWEST), state)


class Weighted(NamedTuple):
    """The summary of steps of `rwkv4`: the exponent (batch, W) of what goes through, the last state from nothing."""

    log_through: Array
    state: State

    def after(self, state: State) -> State:
        xp = namespace("after", state=state[0])
        state = forgotten(xp.all(self.log_through <= LOWEST, axis=-1), state, xp)
        return _joined(state, self.log_through, self.state, xp)

    def then(self, later: Weighted) -> Weighted:
        return Weighted(clip(self.log_through + later.log_through, LOWEST), later.after(self.state))


def run_rwkv4(
    a: dict[str, Array],
    *,
    segments: Segments,
    initial: State | None = None,
    chunk: int = CHUNK,
    want_state: bool = True,
) -> tuple[Array, State]:
    """y and the last state, for arrays by name that are known to fit."""
    xp, w, bonus = namespace("rwkv4", k=a["k"]), a["log_decay"], a["bonus"]

    def run(signals: Signals, state: Any, segments: Segments) -> tuple[Array, State]:
        k, v = (segments.masked(signals[name], 1, xp) for name in ("k", "v"))
        if state is None:
            zero = xp.zeros((k.shape[0], k.shape[2]), dtype=k.dtype, device=device(k))
            state = (zero, zero, zero)
        if k.shape[1] == 0:
            return v, state
        valid, unknown = segments.valid(xp), is_open(k, k.shape[1])
        if valid is None and unknown:  # the zeros behind an unknown length would weigh
            valid = xp.ones(k.shape[:2], dtype=xp.bool, device=device(k))
        g = w if segments.reset is None and valid is None else _decays(k, w, segments, xp)
        k = k if valid is None else xp.where(valid[..., None], k, LOWEST)

        valid = None if valid is None else valid[..., None]
        return _weighted_means(k, v, g, bonus, tuple(state), valid=valid, chunk=chunk)

    def summary(signals: Signals, segments: Segments) -> Weighted:
        return _summarized(run(signals, None, segments)[1], signals["k"], w, segments, xp)

    signals = {"k": a["k"], "v": a["v"]}
    return segments.run("rwkv4", run, signals, initial, axis=1, apart=want_state, summary=summary)


@dispatched
def _weighted_means(
    k: Array, v: Array, g: Array, bonus: Array, state: State, *, valid: Array | None, chunk: int
) -> tuple[Array, State]:
    """y and the last state of signals (batch, L, W) with log decays g into every step; valid (batch, L, 1).

    g is (batch, L, W), or (W,) where all steps have the same.
    """
    xp = namespace("rwkv4", k=k)

    def body(state: State, s: Signals) -> tuple[State, Array]:
        y, state = _one_chunk(s, state, xp)
        return state, y

    signals, constants = by_time(k, v, g, bonus, valid, xp)
    return in_chunks(body, state, signals, constants, axis=1, chunk=chunk)


def by_time(
    k: Array, v: Array, g: Array, bonus: Array, valid: Array | None, xp: Namespace
) -> tuple[dict[str, Array | None], dict[str, Array]]:
    """The signals of chunks, and what is the same in all of them."""
    signals = {"k": k, "v": v, "valid": valid}
    constants = {"bonus": bonus, "least": least_like(bonus, xp)}
    return (signals, constants | {"g": g}) if g.ndim == 1 else (signals | {"g": g}, constants)


def least_like(x: Array, xp: Namespace) -> Array:
    """LOWEST as an array, which the loops of every compiler take."""
    return xp.full((), LOWEST, dtype=x.dtype, device=device(x))


def step_rwkv4(a: dict[str, Array], state: State) -> tuple[Array, State]:
    """One step of arrays by their names, without the axis of time."""
    xp, k, v = namespace("rwkv4", k=a["k"]), a["k"], a["v"]
    num, den, top = state
    top = xp.where(den > 0, top, LOWEST)
    y, _ = _mean((num, den, top), k + a["bonus"], v, xp)
    _, last = _mean((num, den, top + a["log_decay"]), k, v, xp)
    return y, last


def _one_chunk(
    s: Signals, state: State, xp: Namespace, held: Callable[[Array], Array] = lambda m: m
) -> tuple[Array, State]:
    """A chunk with time first: y (T, batch, W), and the state after it. `held` may stop the derivatives of maxima, on
    which no y depends."""
    k, v, valid, least = s["k"], s["v"], s.get("valid"), s["least"]
    num, den, top = state
    k, g = k if valid is None else xp.where(valid, k, least), xp.broadcast_to(s["g"], k.shape)
    first = xp.where(den > 0, top, least)
    m = held(maxima(g, k, first, xp, least))
    before = xp.concat([first[None, ...], m[:-1, ...]], axis=0)
    gate, weight = xp.exp(g + before - m), xp.exp(k - m)
    weight = weight if valid is None else xp.where(valid, weight, 0.0)
    drive = xp.stack([weight * v, weight], axis=1)  # (T, 2, batch, W)
    states = linear_scan(gate[:, None, ...], drive, axis=0, initial=xp.stack([num, den]))
    earlier = xp.concat([xp.stack([num, den])[None, ...], states[:-1, ...]], axis=0)
    before = xp.where(g > least / 2, before, least)  # nothing, where a sequence begins
    y, _ = _mean((earlier[:, 0, ...], earlier[:, 1, ...], before), k + s["bonus"], v, xp, held)
    num, den = states[-1, 0, ...], states[-1, 1, ...]
    return y, (num, den, xp.where(den > 0, m[-1, ...], top))


def _mean(
    state: State, k: Array, v: Array, xp: Namespace, held: Callable[[Array], Array] = lambda m: m
) -> tuple[Array, State]:
    """(num + e^k v) / (den + e^k), of a state whose num and den are over e^top, and the sums with their exponent."""
    num, den, top = state
    m = held(xp.maximum(top, k))
    kept, new = xp.exp(top - m), xp.exp(k - m)
    num, den = kept * num + new * v, kept * den + new
    return num / den, (num, den, m)


def _joined(state: State, log_through: Array, later: State, xp: Namespace) -> State:
    """The state after what goes through by e^log_through, and what has been added since."""
    num, den, top = state
    new_num, new_den, new_top = later
    old = xp.where(den > 0, top, LOWEST) + log_through
    new = xp.where(new_den > 0, new_top, LOWEST)
    m = xp.maximum(old, new)
    kept, added = xp.exp(old - m), xp.exp(new - m)
    kept = xp.where((den > 0) | (new_den <= 0), kept, 0.0)
    num, den = kept * num + added * new_num, kept * den + added * new_den
    return num, den, xp.where(den > 0, m, top)


def _decays(k: Array, w: Array, segments: Segments, xp: Namespace) -> Array:
    """The log decay into every step (batch, L, W): LOWEST where a sequence begins, 0 beyond the lengths."""
    g = segments.masked(xp.broadcast_to(w, k.shape), 1, xp)
    if segments.reset is None:
        return g
    return xp.where(segments.reset[..., None], LOWEST, g)
