"""The weighted means of RWKV-4 for JAX, whose maxima are held fixed: no y depends on them.

What the last state has of its largest exponent is added once, at the end: e^m num and e^m den do not depend on m.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssm_core.gated.rwkv4 import LOWEST, State, _mean, _one_chunk, by_time
from ssm_core.recurrences.fold import in_chunks

FARTHEST = -1e30  # of decays, whose sums over a sequence stay finite


def weighted_means(k: Any, v: Any, g: Any, bonus: Any, state: State, *, valid: Any, chunk: int) -> Any:
    """Fused `ssm_core.gated.rwkv4._weighted_means`."""

    def body(state: State, s: dict[str, Any]) -> tuple[State, Any]:
        y, state = _by_steps(s, state) if on_host else _one_chunk(s, state, jnp, lax.stop_gradient)
        return state, y

    on_host = jax.default_backend() == "cpu"
    signals, constants = by_time(k, v, g, bonus, valid, jnp)
    y, last = in_chunks(body, state, signals, constants, axis=1, chunk=chunk)
    return y, _with_slope(last, k, g, state)


def _by_steps(s: dict[str, Any], state: State) -> tuple[Any, State]:
    """`_one_chunk` of the generic body step by step: on a CPU XLA makes one pass over the state of each."""
    constants = {name: s.pop(name) for name in ("g", "bonus", "least") if name != "g" or s["g"].ndim == 1}

    def step(state: State, at: dict[str, Any]) -> tuple[State, Any]:
        return _step(state, **at, **constants)

    state, y = lax.scan(step, state, s)
    return y, state


def _step(state: State, *, k: Any, v: Any, g: Any, bonus: Any, least: Any, valid: Any = None) -> tuple[State, Any]:
    num, den, top = state
    k = k if valid is None else jnp.where(valid, k, least)
    before = jnp.where(den > 0, top, least)
    y, _ = _mean((num, den, jnp.where(g > least / 2, before, least)), k + bonus, v, jnp, lax.stop_gradient)
    m = lax.stop_gradient(jnp.maximum(before + g, k))
    kept, new = jnp.exp(before + g - m), jnp.exp(k - m)
    new = new if valid is None else jnp.where(valid, new, 0)
    num, den = kept * num + new * v, kept * den + new
    return (num, den, jnp.where(den > 0, m, top)), y


@jax.custom_jvp
def _with_slope(last: State, k: Any, g: Any, first: State) -> State:
    """The last state as it is, with the derivative of its largest exponent."""
    return last


@_with_slope.defjvp
def _slope(primals: Any, tangents: Any) -> tuple[State, State]:
    (num, den, top), *source = primals
    (d_num, d_den, d_top), *moved = tangents
    dm = jax.jvp(_last_maximum, tuple(source), tuple(moved))[1]
    dm = jnp.where(den > 0, dm, 0)
    return (num, den, top), (d_num - num * dm, d_den - den * dm, d_top + dm)


def _last_maximum(k: Any, g: Any, first: State) -> Any:
    """The largest exponent after all steps."""
    _, den, top = first
    g = jnp.maximum(jnp.broadcast_to(g, k.shape), FARTHEST)
    since = lax.cumsum(g, axis=1, reverse=True)
    after = jnp.concatenate([since[:, 1:], jnp.zeros_like(g[:, :1])], axis=1)
    return jnp.maximum(jnp.where(den > 0, top, LOWEST) + since[:, 0], jnp.max(k + after, axis=1))
