"""Delta rules for arrays that are known to fit: over sequences, and one step."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.dispatch import dispatched
from .._arrays.library import Array, Namespace, device, namespace
from ..recurrences.fold import in_chunks
from ..recurrences.segments import Segments, Signals
from ..recurrences.summaries import Columns
from .delta_chunk import Writes, blocked, through_chunks, walk
from .memory import faded, seen, written

CHUNK = 64
OPTIONAL = ("beta", "erase", "write", "a", "b")
BLOCKS = 8  # chunks whose products are made at once


def run_delta(
    v: Signals,
    *,
    scale: float = 1.0,
    segments: Segments,
    initial: Array | None = None,
    chunk: int = CHUNK,
    want_state: bool = True,
) -> tuple[Array, Array]:
    """y and the last state, of arrays by their names in `gated_delta` (`log_decay` among them).

    Signals are (batch, L, heads, ...); those of several substeps have an axis more behind time.
    """
    xp = namespace("gated_delta", v=v["v"])
    (batch, L), (H, V) = v["v"].shape[:2], v["v"].shape[-2:]
    signals = {name: x for name, x in v.items() if x is not None}
    g = signals.get("log_decay")
    g = xp.zeros((H,), dtype=v["v"].dtype, device=device(v["v"])) if g is None else g
    signals["log_decay"] = xp.broadcast_to(g, (batch, L, *g.shape)) if g.ndim < 3 else g

    def run(signals: Signals, state: Array | None, segments: Segments) -> tuple[Array, Array]:
        s = {name: segments.masked(x, 1, xp) for name, x in signals.items()}
        (rows, steps), K = s["v"].shape[:2], s["k"].shape[-1]
        if state is None:
            state = xp.zeros((rows, H, K, V), dtype=s["v"].dtype, device=device(s["v"]))
        if steps == 0:
            return xp.zeros((rows, 0, H, s["v"].shape[-1]), dtype=state.dtype, device=device(state)), state
        optional = {name: s.get(name) for name in OPTIONAL}
        options: dict[str, Any] = {"segments": segments, "scale": scale, "chunk": chunk}
        return _gated_delta(s["q"], s["k"], s["v"], s["log_decay"], state, **optional, **options)

    def summary(signals: Signals, segments: Segments) -> Columns:
        wide = dict(signals)
        _, state = run(wide, widened(wide, wide["k"].shape[-1], xp), segments)
        return Columns(state[..., V:], state[..., :V])

    return segments.run("gated_delta", run, signals, initial, axis=1, apart=want_state, summary=summary)


def widened(s: Signals, K: int, xp: Namespace) -> Array:
    """Values with K columns of zeros more, in place, and the state (0, I) before them.

    The columns of a state do not meet: those of the unit matrix turn into P, what the steps do to any state.
    """
    v = s["v"]
    like = {"dtype": v.dtype, "device": device(v)}
    for name in ("v", "write"):
        if name in s:
            s[name] = xp.concat([s[name], xp.zeros((*v.shape[:-1], K), **like)], axis=-1)
    unit = xp.concat([xp.zeros((K, v.shape[-1]), **like), xp.eye(K, **like)], axis=-1)
    return xp.broadcast_to(unit, (v.shape[0], v.shape[-2], *unit.shape))


@dispatched
def _gated_delta(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    state: Array,
    *,
    beta: Array | None,
    erase: Array | None,
    write: Array | None,
    a: Array | None,
    b: Array | None,
    segments: Segments,
    scale: float,
    chunk: int,
) -> tuple[Array, Array]:
    """Signals are zero beyond the lengths, so that no step there moves a state."""
    xp = namespace("gated_delta", v=v)
    width, like = power(chunk), {"beta": beta, "erase": erase, "write": write, "a": a, "b": b}
    several = {"k": k, "v": v} | {name: x for name, x in like.items() if x is not None}
    several["beta"] = None if beta is None else beta[..., None]
    if v.ndim == 4:
        several = {name: None if x is None else x[:, :, None, ...] for name, x in several.items()}
    substeps = several["v"].shape[2]
    g = log_decay if log_decay.ndim == 4 else log_decay[..., None]
    signals = {"q": q, "g": g, **several, "reset": segments.reset}

    def body(state: Array, s: Signals) -> tuple[Array, Array]:
        return some_chunks(s, state, scale=scale, width=width, xp=xp)

    y, state = in_chunks(body, state, signals, {}, axis=1, chunk=max(1, BLOCKS * width // substeps))
    return y, state


def power(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()


def some_chunks(s: Signals, state: Array, *, scale: float, width: int, xp: Namespace) -> tuple[Array, Array]:
    """The state after chunks of at most `width` substeps, and y (T, batch, H, V).

    Signals have time first: k, v, beta, erase, write, a and b (T, batch, R, heads, .) of R substeps, of which the first
    has the decay of its step and the reset, and the last q (T, batch, heads, .).
    """
    T, batch, R, H, V = s["v"].shape
    width = min(width, power(T * R))
    t = rule({name: heads_first(name, x, R, H, xp) for name, x in s.items()}, scale, xp)
    t = {name: blocked(x, width, xp) for name, x in t.items()}
    chunks = walk(t["reads"], t["q"], Writes(t["solved"], t.get("given")), t["g"], xp)
    y, state = through_chunks(chunks, t["values"], state, xp)
    y = xp.reshape(y, (batch, H, y.shape[2] * width, V))[:, :, : T * R, :]
    y = y if R == 1 else xp.reshape(y, (batch, H, T, R, V))[..., -1, :]
    return state, xp.permute_dims(y, (2, 0, 1, 3))


def heads_first(name: str, x: Array, R: int, H: int, xp: Namespace) -> Array:
    """(T, batch, [R,] heads, D) as (batch, H, T R, D), each head with what its group has; resets (batch, 1, T R, 1)."""
    x = in_substeps(name, x, R, xp)
    T, batch, _, heads, D = x.shape
    x = xp.reshape(xp.permute_dims(x, (1, 3, 0, 2, 4)), (batch, heads, T * R, D))
    return x if name == "reset" else of_every_head(x, H, xp)


def in_substeps(name: str, x: Array, R: int, xp: Namespace) -> Array:
    """(., ., R, heads, D) with zeros in substeps that have none, of (., ., [R,] heads, D) or of resets (., .)."""
    x = x[..., None, None] if name == "reset" else x
    if x.ndim == 5:
        return x
    x = x[:, :, None, ...]
    if R == 1:
        return x
    rest = xp.zeros((*x.shape[:2], R - 1, *x.shape[3:]), dtype=x.dtype, device=device(x))
    return xp.concat([rest, x] if name == "q" else [x, rest], axis=2)


def of_every_head(x: Array, H: int, xp: Namespace) -> Array:
    """x (batch, heads, ...), each head with what its group has."""
    return x if x.shape[1] == H else xp.repeat(x, H // x.shape[1], axis=1)


def rule(s: Signals, scale: float, xp: Namespace) -> Signals:
    """The keys that read before the decay, those that are written with, and the values, of signals (batch, H, M, D)."""
    g, k, values, reset = s["g"], s["k"], s["v"], s.get("reset")
    values = values if "write" not in s else s["write"] * values
    values = values if "beta" not in s else s["beta"] * values
    if "a" in s:
        reads = s["a"] if "b" in s else -s["a"]
    else:
        reads = -k * xp.exp(g) if "erase" not in s else -s["erase"] * k * xp.exp(g)
    if "b" not in s and "beta" in s:
        reads = s["beta"] * reads
    if reset is not None:
        reads = xp.where(reset, xp.zeros_like(reads), reads)
        g = xp.where(reset, xp.full_like(g, -math.inf), g)
    found = {"reads": reads, "q": s["q"] * scale, "g": g, "values": values}
    return found | ({"solved": s["b"], "given": k} if "b" in s else {"solved": k})


def step_delta(v: Signals, state: Array, *, scale: float, xp: Namespace) -> tuple[Array, Array]:
    """One step of arrays by their names in `gated_delta_update`: y (batch, H, V) and the state after it."""
    H, g, several = state.shape[1], v.get("log_decay"), v["v"].ndim == 4
    if g is not None and g.ndim == 3 and g.shape[1] != H:
        g = xp.repeat(g, H // g.shape[1], axis=1)
    s, heads = {name: x for name, x in v.items() if x is not None and name not in ("q", "log_decay")}, 1 + several
    s = {name: x if x.shape[heads] == H else xp.repeat(x, H // x.shape[heads], axis=heads) for name, x in s.items()}
    if not several:
        state = _substep(s, state, g, xp)
    else:
        for j in range(s["v"].shape[1]):
            state = _substep({name: x[:, j, ...] for name, x in s.items()}, state, None if j else g, xp)
    q = v["q"] if v["q"].shape[1] == H else xp.repeat(v["q"], H // v["q"].shape[1], axis=1)
    return scale * seen(state, q), state


def _substep(s: Signals, before: Array, g: Array | None, xp: Namespace) -> Array:
    """The state after one erasure and one write, of signals (batch, H, .)."""
    k, values, beta = s["k"], s["v"], s.get("beta")
    values = values if "write" not in s else s["write"] * values
    state = faded(before, g, xp)
    if "b" in s:
        state = written(state, s["b"], seen(before, s["a"]))
    elif "a" in s:
        values = values - seen(before, s["a"])
    else:
        values = values - seen(state, k if "erase" not in s else s["erase"] * k)
    return written(state, k, values if beta is None else beta[..., None] * values)
