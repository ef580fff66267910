"""The gated delta rule for JAX: a loop over chunks, each of which is computed again in the backward.

Signals are cut into chunks and turned to the order of products of matrices once, before the loop: inside, every turn
would be a pass of its own.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssm_core.gated.delta_chunk import Writes, through_chunk, walk
from ssm_core.gated.delta_run import in_substeps, of_every_head, power, rule
from ssm_core.recurrences.segments import Segments


def gated_delta(
    q: Any,
    k: Any,
    v: Any,
    log_decay: Any,
    beta: Any,
    erase: Any,
    write: Any,
    a: Any,
    b: Any,
    state: Any,
    *,
    segments: Segments,
    scale: float,
    chunk: int,
) -> Any:
    """Fused `ssm_core.gated.delta_run._gated_delta`."""
    batch, L, *several, H, V = v.shape
    if not isinstance(L, int):
        return NotImplemented
    R = several[0] if several else 1
    steps = min(max(1, power(chunk) // R), L)
    n, T = -(-L // steps), power(steps * R)
    g, beta = log_decay if log_decay.ndim == 4 else log_decay[..., None], None if beta is None else beta[..., None]
    signals = {"q": q, "k": k, "v": v, "g": g, "beta": beta, "erase": erase, "write": write, "a": a, "b": b}
    signals["reset"] = segments.reset

    def cut(name: str, x: Any) -> Any:
        """(n, batch, heads, T, D)."""
        x = in_substeps(name, x, R, jnp)
        x = jnp.pad(x, [(0, 0), (0, n * steps - L), *[(0, 0)] * 3])
        x = x.reshape(batch, n, steps, *x.shape[2:]).transpose(1, 0, 4, 2, 3, 5)
        x = x.reshape(*x.shape[:3], steps * R, x.shape[-1])
        return jnp.pad(x, [*[(0, 0)] * 3, (0, T - steps * R), (0, 0)])

    @jax.checkpoint
    def body(state: Any, s: dict[str, Any]) -> tuple[Any, Any]:
        s = {name: x if name == "reset" else of_every_head(x, H, jnp) for name, x in s.items()}
        t = rule(s, scale, jnp)
        steps = walk(t["reads"], t["q"], Writes(t["solved"], t.get("given")), t["g"], jnp)
        y, state = through_chunk(steps, t["values"], state, jnp)
        return state, y

    last, y = lax.scan(body, state, {name: cut(name, x) for name, x in signals.items() if x is not None})
    y = y[..., : steps * R, :].reshape(n, batch, H, steps, R, V)[:, :, :, :, -1]
    return y.transpose(1, 0, 3, 2, 4).reshape(batch, n * steps, H, V)[:, :L], last
