"""A loop over chunks, each of which is computed again in the backward, of signals that are turned before it.

Signals are cut into chunks and brought to the order of products of matrices once: inside of the loop, and of its
backward, every turn would be a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Arrays = dict[str, Any]


def over_chunks(body: Callable[[Any, Arrays], tuple[Any, Any]], state: Any, signals: Arrays, T: int) -> tuple[Any, Any]:
    """y (batch, L, H, V) and the last state, of body(state, signals) -> (state, y (batch, H, T, V)).

    Signals (batch, L, heads, D) are (batch, heads, T, D) there, with zeros behind the end.
    """
    present = {name: x for name, x in signals.items() if x is not None}
    L = next(iter(present.values())).shape[1]
    n = -(-L // T)
    last, y = lax.scan(jax.checkpoint(body), state, {name: _cut(x, n, T) for name, x in present.items()})
    n, batch, H, _, V = y.shape
    return y.transpose(1, 0, 3, 2, 4).reshape(batch, n * T, H, V)[:, :L], last


def _cut(x: Any, n: int, T: int) -> Any:
    """(batch, L, heads, D) as (n, batch, heads, T, D)."""
    batch, L, heads, D = x.shape
    x = jnp.pad(x, ((0, 0), (0, n * T - L), (0, 0), (0, 0)))
    return x.reshape(batch, n, T, heads, D).transpose(1, 0, 3, 2, 4)
