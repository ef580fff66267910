"""The checkpointed scan for JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .shards import varying


def fold(body: Callable[..., Any], state: Any, xs: tuple[Any, ...], held: Any, *, chunk: int, recompute: bool) -> Any:
    """lax.scan over the whole chunks, recomputed in the backward, then the rest."""
    held = () if held is None else held
    state = varying(state, (state, xs, held))
    body = jax.checkpoint(body) if recompute else body
    length = xs[0].shape[0]
    whole = length - length % chunk
    outputs = []
    if whole:
        parts = tuple(x[:whole].reshape(whole // chunk, chunk, *x.shape[1:]) for x in xs)
        state, y = lax.scan(lambda s, x: body(s, *x, *held), state, parts)
        outputs.append(y.reshape(whole, *y.shape[2:]))
    if whole < length:
        state, y = body(state, *(x[whole:] for x in xs), *held)
        outputs.append(y)
    return (jnp.concatenate(outputs) if len(outputs) > 1 else outputs[0]), state


def fold_of_chunks(
    pieces: tuple[Any, ...], body: Callable[..., Any], state: Any, held: Any, *, length: Any, recompute: bool
) -> Any:
    """lax.scan, whose length may be a symbol."""
    held = () if held is None else held
    state = varying(state, (state, pieces, held))
    body = jax.checkpoint(body) if recompute else body
    state, y = lax.scan(lambda s, x: body(s, *x, *held), state, pieces)
    return y, state
