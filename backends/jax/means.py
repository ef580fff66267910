"""The weighted means of RWKV-4 for JAX, without the derivatives of running maxima, on which no y depends.

The last state depends on its own maximum m alone: num and den are kept over e^m.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssm_core.gated.rwkv4 import LOWEST, State, _mean, _one_chunk, least_like
from ssm_core.recurrences.fold import in_chunks

FARTHEST = -1e30  # of decays, whose sums over a chunk stay finite


def weighted_means(k: Any, v: Any, g: Any, bonus: Any, state: State, *, valid: Any, chunk: int) -> Any:
    """Fused `ssm_core.gated.rwkv4._weighted_means`."""

    def body(state: State, s: dict[str, Any]) -> tuple[State, Any]:
        if on_host:
            y, (num, den, top), m = _by_steps(s, state)
        else:
            y, (num, den, top) = _one_chunk(s, state, jnp, lax.stop_gradient)
            m = _last_maximum(s["k"], s["g"], state)
        slope = m - lax.stop_gradient(m)  # zero, with the derivative of m
        slope = jnp.where(den > 0, slope, 0)
        return (num * jnp.exp(-slope), den * jnp.exp(-slope), top + slope), y

    on_host = jax.default_backend() == "cpu"
    constants = {"bonus": bonus, "least": least_like(bonus, jnp)}
    return in_chunks(body, state, {"k": k, "v": v, "g": g, "valid": valid}, constants, axis=1, chunk=chunk)


def _by_steps(s: dict[str, Any], state: State) -> tuple[Any, State, Any]:
    """`_one_chunk` of the generic body step by step, and the last maximum with its derivative.

    On a CPU XLA makes one pass over the state of each step.
    """
    signals = {name: s[name] for name in ("k", "v", "g", "valid") if name in s}

    def step(carry: tuple[State, Any], at: dict[str, Any]) -> tuple[tuple[State, Any], Any]:
        return _step(*carry, **at, bonus=s["bonus"], least=s["least"])

    (state, m), y = lax.scan(step, (state, state[2]), signals)
    return y, state, m


def _step(
    state: State, maximum: Any, *, k: Any, v: Any, g: Any, bonus: Any, least: Any, valid: Any = None
) -> tuple[tuple[State, Any], Any]:
    num, den, top = state
    before = jnp.where(den > 0, top, least)
    y, _ = _mean((num, den, jnp.where(g > least / 2, before, least)), k + bonus, v, jnp, lax.stop_gradient)
    m = lax.stop_gradient(jnp.maximum(before + g, k))
    maximum = jnp.maximum(jnp.where(den > 0, maximum, least) + g, k)
    kept, new = jnp.exp(before + g - m), jnp.exp(k - m)
    new = new if valid is None else jnp.where(valid, new, 0)
    num, den = kept * num + new * v, kept * den + new
    return ((num, den, jnp.where(den > 0, m, top)), maximum), y


def _last_maximum(k: Any, g: Any, state: State) -> Any:
    """The largest exponent after all steps, of k and g with time first."""
    _, den, top = state
    g, t = jnp.maximum(g, FARTHEST), jnp.arange(k.shape[0])
    after = jnp.tensordot((t[:, None] < t).astype(g.dtype), g, 1, precision="highest")
    first = jnp.where(den > 0, top, LOWEST) + g[0] + after[0]
    return jnp.maximum(first, jnp.max(k + after, axis=0))
