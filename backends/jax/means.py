"""The weighted means of RWKV-4 for JAX, without the derivatives of running maxima, on which no y depends.

The last state depends on its own maximum m alone: num and den are kept over e^m.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from ssm_core.gated.rwkv4 import LOWEST, State, _one_chunk, least_like
from ssm_core.recurrences.fold import in_chunks

FARTHEST = -1e30  # of decays, whose sums over a chunk stay finite


def weighted_means(k: Any, v: Any, g: Any, bonus: Any, state: State, *, valid: Any, chunk: int) -> Any:
    """Fused `ssm_core.gated.rwkv4._weighted_means`."""

    def body(state: State, s: dict[str, Any]) -> tuple[State, Any]:
        y, (num, den, top) = _one_chunk(s, state, jnp, lax.stop_gradient)
        m = _last_maximum(s["k"], s["g"], state)
        slope = m - lax.stop_gradient(m)  # zero, with the derivative of m
        slope = jnp.where(den > 0, slope, 0)
        return (num * jnp.exp(-slope), den * jnp.exp(-slope), top + slope), y

    constants = {"bonus": bonus, "least": least_like(bonus, jnp)}
    return in_chunks(body, state, {"k": k, "v": v, "g": g, "valid": valid}, constants, axis=1, chunk=chunk)


def _last_maximum(k: Any, g: Any, state: State) -> Any:
    """The largest exponent after all steps, of k and g with time first."""
    _, den, top = state
    g, t = jnp.maximum(g, FARTHEST), jnp.arange(k.shape[0])
    after = jnp.tensordot((t[:, None] < t).astype(g.dtype), g, 1, precision="highest")
    first = jnp.where(den > 0, top, LOWEST) + g[0] + after[0]
    return jnp.maximum(first, jnp.max(k + after, axis=0))
