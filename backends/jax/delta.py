"""The gated delta rule for JAX: a loop over chunks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ssm_core.gated.delta_chunk import Writes, through_chunk, walk
from ssm_core.gated.delta_run import in_substeps, of_every_head, power, rule
from ssm_core.recurrences.segments import Segments

from .loops import Arrays, over_chunks


def gated_delta(
    q: Any,
    k: Any,
    v: Any,
    log_decay: Any,
    state: Any,
    *,
    beta: Any,
    erase: Any,
    write: Any,
    a: Any,
    b: Any,
    segments: Segments,
    scale: float,
    chunk: int,
) -> Any:
    """Fused `ssm_core.gated.delta_run._gated_delta`."""
    _, L, *several, H, _ = v.shape
    if not isinstance(L, int):
        return NotImplemented
    R = several[0] if several else 1
    steps = min(max(1, power(chunk) // R), L)
    T = power(steps * R)
    g, beta = log_decay if log_decay.ndim == 4 else log_decay[..., None], None if beta is None else beta[..., None]
    given = {"q": q, "k": k, "v": v, "g": g, "beta": beta, "erase": erase, "write": write, "a": a, "b": b}
    given["reset"] = segments.reset

    def body(state: Any, s: Arrays) -> tuple[Any, Any]:
        s = {name: _in_turn(x, R, T) for name, x in s.items()}
        s = {name: x if name == "reset" else of_every_head(x, H, jnp) for name, x in s.items()}
        t = rule(s, scale, jnp)
        steps_of = walk(t["reads"], t["q"], Writes(t["solved"], t.get("given")), t["g"], jnp)
        y, state = through_chunk(steps_of, t["values"], state, jnp)
        return state, y[:, :, R - 1 : steps * R : R]

    signals = {name: _side_by_side(in_substeps(name, x, R, jnp)) for name, x in given.items() if x is not None}
    return over_chunks(body, state, signals, steps)


def _side_by_side(x: Any) -> Any:
    """Substeps (batch, L, R, heads, D) as (batch, L, heads, R D)."""
    batch, L, R, heads, D = x.shape
    return x.swapaxes(2, 3).reshape(batch, L, heads, R * D)


def _in_turn(x: Any, R: int, T: int) -> Any:
    """(batch, heads, steps, R D) as (batch, heads, T, D), with zeros behind."""
    batch, heads, steps, D = x.shape
    x = x.reshape(batch, heads, steps * R, D // R)
    return jnp.pad(x, ((0, 0), (0, 0), (0, T - steps * R), (0, 0)))
