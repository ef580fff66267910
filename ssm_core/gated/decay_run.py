"""Gated linear attention for arrays that are known to fit: over sequences, one step, and what a chunk does to a state.

A normalizer is the same recurrence for one more value, which is always 1. The running maximum m_t = max(g_t + m_{t-1},
i_t) makes a recurrence with log decays g_t + m_{t-1} - m_t and inputs e^{i_t - m_t}, neither of which exceeds 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._arrays.dispatch import dispatched, is_open
from .._arrays.library import Array, Namespace, compute_dtype, device, namespace
from .._arrays.sizes import STEPS
from ..functions.affine import parted
from ..recurrences.fold import in_chunks
from ..recurrences.segments import Segments, Signals
from ..recurrences.summaries import forgotten, through_segments
from .decay_chunk import channel_chunk
from .maxima import maxima
from .memory import faded, seen, written
from .ssd import _ssd

CHUNK = 64
NORMALIZERS = {"sum": 2, "max": 3}  # and the parts of their states
LOWEST = -1e30  # a running maximum of nothing: below all log inputs, and differences of it are 0

State = tuple[Array, ...]


class Rule(NamedTuple):
    """How the state is read: options as of `gated_linear_attention`."""

    exclusive: bool = False
    normalize: str | None = None
    epsilon: float = 1e-6
    scale: float = 1.0


def run_decay(
    v: Signals,
    rule: Rule,
    *,
    segments: Segments,
    initial: State | None = None,
    chunk: int = CHUNK,
    want_state: bool = True,
) -> tuple[Array, State]:
    """y and the parts of the last state, of arrays by their names in `gated_linear_attention`."""
    xp, values = namespace("gated_linear_attention", v=v["v"]), v["v"]
    g, (batch, L, H, _), (G, K) = v.get("log_decay"), values.shape, v["k"].shape[2:]
    if g is None:
        g = xp.zeros((H,), dtype=values.dtype, device=device(values))
    per_channel = g.ndim in (2, 4)
    if g.ndim < 3:
        g = xp.broadcast_to(g, (batch, L, *g.shape))
    if not per_channel and (rule.exclusive or "bonus" in v):
        g, per_channel = xp.broadcast_to(g[..., None], (*g.shape, K)), True
    q, k = v["q"] * rule.scale if rule.scale != 1 else v["q"], v["k"]
    if per_channel and G < H:
        q, k = (xp.repeat(x, H // G, axis=2) for x in (q, k))
    i = v.get("log_input")
    if i is not None and rule.normalize != "max":
        if G < H:
            q, k = (x if x.shape[2] == H else xp.repeat(x, H // G, axis=2) for x in (q, k))
        k, i = k * xp.exp(i)[..., None], None
    if rule.normalize == "max" and i is None:
        i = xp.zeros((batch, L, H), dtype=values.dtype, device=device(values))

    def run(signals: Signals, state: Any, segments: Segments) -> tuple[Array, State]:
        return _in_segments(signals, state, rule, segments, bonus=v.get("bonus"), chunk=chunk)

    def summary(signals: Signals, segments: Segments) -> Memory:
        nothing = nothing_yet(signals["k"], signals["v"]) if rule.normalize == "max" else None
        _, parts = run(signals, nothing, segments)
        return Memory(log_through(signals["g"], signals["v"], segments, xp), parts)

    signals = {"q": q, "k": k, "v": values, "g": g, "i": i}
    options: dict[str, Any] = {"axis": 1, "apart": want_state, "summary": summary}
    return segments.run("gated_linear_attention", run, signals, initial, **options)


def _in_segments(
    signals: Signals,
    state: State | None,
    rule: Rule,
    segments: Segments,
    *,
    bonus: Array | None,
    chunk: int,
) -> tuple[Array, State]:
    xp = namespace("gated_linear_attention", v=signals["v"])
    s = {name: segments.masked(x, 1, xp) for name, x in signals.items() if x is not None and name != "i"}
    if signals["i"] is not None:
        valid = segments.valid(xp)
        s["i"] = signals["i"] if valid is None else xp.where(valid[..., None], signals["i"], LOWEST)
    (batch, L, H, V), K = s["v"].shape, s["k"].shape[-1]
    if state is None:
        like = {"dtype": s["v"].dtype, "device": device(s["v"])}
        sizes = ((batch, H, K, V), (batch, H, K), (batch, H))
        state = tuple(xp.zeros(size, **like) for size in sizes[: NORMALIZERS.get(rule.normalize or "", 1)])
    if L == 0:
        return s["v"], state
    return _normalized(s, state, rule, segments, bonus=bonus, chunk=chunk)


def _normalized(
    s: Signals, state: State, rule: Rule, segments: Segments, *, bonus: Array | None, chunk: int
) -> tuple[Array, State]:
    xp = namespace("gated_linear_attention", v=s["v"])
    options: dict[str, Any] = {"segments": segments, "chunk": chunk}
    g, v, S, gain = s["g"], s["v"], state[0], None
    if rule.normalize is None:
        if g.ndim == 4:
            y, S = _channel_decay(s["q"], s["k"], v, g, S, bonus=bonus, exclusive=rule.exclusive, **options)
        else:
            y, S = _one_decay(s["q"], s["k"], v, g, S, xp, **options)
        return y, (S,)
    m = None
    if rule.normalize == "max":
        m, before = running_maximum(g, s["i"], state[2], segments.reset, xp)
        g, gain = g + before - m, xp.exp(s["i"] - m)[..., None]
    one = xp.ones((*v.shape[:3], 1), dtype=v.dtype, device=device(v)) if gain is None else gain
    v = xp.concat([v if gain is None else v * gain, one], axis=-1)
    S = xp.concat([S, state[1][..., None]], axis=-1)
    if g.ndim == 4:
        y, S = _channel_decay(s["q"], s["k"], v, g, S, bonus=None, exclusive=False, **options)
    else:
        y, S = _one_decay(s["q"], s["k"], v, g, S, xp, **options)
    last = (S[..., :-1], S[..., -1])
    return divided(y, m, rule, xp), last if m is None else (*last, m[:, -1, :])


def _one_decay(
    q: Array, k: Array, v: Array, g: Array, S: Array, xp: Namespace, *, segments: Segments, chunk: int
) -> tuple[Array, Array]:
    """One decay a head: the state space dual, whose state is the transposed one."""
    y, S = _ssd(v, g, k, q, xp.matrix_transpose(S), segments=segments, chunk=chunk)
    return y, xp.matrix_transpose(S)


@dispatched
def _channel_decay(
    q: Array,
    k: Array,
    v: Array,
    g: Array,
    state: Array,
    *,
    bonus: Array | None,
    exclusive: bool,
    segments: Segments,
    chunk: int,
) -> tuple[Array, Array]:
    """Signals (batch, L, H, ...) that are zero beyond the lengths, so that no step there moves a state."""
    xp = namespace("gated_linear_attention", v=v)

    def body(state: Array, s: Signals) -> tuple[Array, Array]:
        weight = None if "bonus" not in s else s["bonus"] + (0.0 if exclusive else 1.0)
        if weight is None and exclusive:
            weight = xp.zeros(s["k"].shape[2:], dtype=state.dtype, device=device(state))
        y, state = channel_chunk(
            s["q"], s["k"], s["v"], s["g"], state, xp=xp, weight=weight, reset=s.get("reset"), exclusive=exclusive
        )
        return state, y

    signals = {"q": q, "k": k, "v": v, "g": g, "reset": segments.reset}
    return in_chunks(body, state, signals, {"bonus": bonus}, axis=1, chunk=chunk)


def running_maximum(g: Array, i: Array, first: Array, reset: Array | None, xp: Namespace) -> tuple[Array, Array]:
    """m_t = max(g_t + m_{t-1}, i_t) along axis 1, and m_{t-1}: 0 after a reset, first `first` (batch, H)."""
    through, largest = g, i
    if reset is not None:
        begins = reset[..., None]
        largest = xp.where(begins, xp.maximum(g, i), i)
        through = xp.where(begins, -math.inf, g)

    def body(first: Array, s: Signals) -> tuple[Array, Array]:
        m = maxima(s["through"], s["largest"], first, xp)
        return m[-1, ...], m

    signals, length = {"through": through, "largest": largest}, g.shape[1]
    chunk = STEPS if is_open(g, length) else length  # loops have a number of turns
    m, _ = in_chunks(body, first, signals, axis=1, chunk=chunk, recompute=False)
    before = xp.concat([first[:, None, :], m], axis=1)[:, :-1, :]
    return m, before if reset is None else xp.where(reset[..., None], xp.zeros_like(before), before)


def divided(y: Array, m: Array | None, rule: Rule, xp: Namespace) -> Array:
    """Values by the last of them, which is the normalizer."""
    y, n = parted(y, y.shape[-1] - 1, 1)
    return _over(y, n, m, rule, xp)


def _over(y: Array, n: Array, m: Array | None, rule: Rule, xp: Namespace) -> Array:
    """y over the normalizer n (..., 1), which over e^m is at least 1."""
    if m is not None:
        largest = 700.0 if m.dtype == xp.float64 else 87.0  # of an exponent: what is divided by more vanishes anyway
        n = xp.maximum(xp.abs(n), xp.exp(xp.clip(-m, max=largest))[..., None])
    return y / (n + rule.epsilon)


def step_decay(v: Signals, state: State, rule: Rule) -> tuple[Array, State]:
    """One step of arrays by their names, without the axis of time; `decay` is what a stepper holds, e^g."""
    xp, values, before = namespace("gated_linear_attention", v=v["v"]), v["v"], state[0]
    H, G = values.shape[1], v["k"].shape[1]
    q, k, g, i = v["q"], v["k"], v.get("log_decay"), v.get("log_input")
    q = q if rule.scale == 1 else rule.scale * q
    if G < H:
        q, k = (xp.repeat(x, H // G, axis=1) for x in (q, k))
    m = None
    if rule.normalize == "max":
        g = xp.zeros_like(state[2]) if g is None else g
        i = xp.zeros_like(state[2]) if i is None else i
        m = xp.maximum(g + state[2], i)
        g, i = g + state[2] - m, i - m
    k = k if i is None else k * xp.exp(i)[..., None]
    S = written(v["decay"] * before if "decay" in v else faded(before, g, xp), k, values)
    y = seen(before if rule.exclusive else S, q)
    if "bonus" in v:
        y = y + xp.sum(q * v["bonus"] * k, axis=-1, keepdims=True) * values
    if rule.normalize is None:
        return y, (S,)
    decay = 1.0 if g is None else xp.exp(g if g.ndim == 3 else g[..., None])
    n = decay * state[1] + k
    y = _over(y, xp.sum(q * n, axis=-1, keepdims=True), m, rule, xp)
    return y, (S, n) if m is None else (S, n, m)


class Memory(NamedTuple):
    """The summary of steps by log decays (batch, H, K), or (batch, H, 1), and the last state from zero.

    Of states over e^m, the larger m wins, and the other state shrinks to it.
    """

    log_through: Array
    state: State

    def after(self, state: State) -> State:
        xp = namespace("after", S=state[0])
        g, (own, *rest) = self.log_through, self.state
        state = forgotten(xp.all(xp.all(g == -math.inf, axis=-1), axis=-1), state, xp)
        if not rest:
            return (xp.exp(g)[..., None] * state[0] + own,)
        own_n, *top = rest
        if not top:
            P = xp.exp(g)
            return P[..., None] * state[0] + own, P * state[1] + own_n
        m = xp.maximum(g[..., 0] + state[2], top[0])
        P, Q = xp.exp(g + (state[2] - m)[..., None]), xp.exp(top[0] - m)[..., None]
        return P[..., None] * state[0] + Q[..., None] * own, P * state[1] + Q * own_n, m

    def then(self, later: Memory) -> Memory:
        return Memory(self.log_through + later.log_through, later.after(self.state))


def nothing_yet(k: Array, v: Array) -> State:
    """The state before all inputs, whose running maximum is below all of them; 0 is that of a sequence that begins."""
    xp, (batch, _, H, V), K = namespace("gated_linear_attention", v=v), v.shape, k.shape[-1]
    like = {"dtype": compute_dtype(xp, k, v), "device": device(v)}
    return (
        xp.zeros((batch, H, K, V), **like),
        xp.zeros((batch, H, K), **like),
        xp.full((batch, H), LOWEST, **like),
    )


def log_through(g: Array | None, v: Array, segments: Segments, xp: Namespace) -> Array:
    """The sum of the log decays of the steps that count, (batch, H, K) or (batch, H, 1); -inf through a reset."""
    batch, L, H, _ = v.shape
    if g is None:
        g = xp.zeros((H,), dtype=v.dtype, device=device(v))
    g = xp.broadcast_to(g, (batch, L, *g.shape)) if g.ndim < 3 else g
    total = xp.sum(segments.masked(g, 1, xp), axis=1)
    total = total[..., None] if total.ndim == 2 else total
    if segments.reset is None:
        return total
    through = through_segments(xp.ones_like(total), segments, 2, xp)
    return xp.where(through > 0, total, -math.inf)
