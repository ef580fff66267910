"""Quotients of power series by their recurrence, whose derivatives are those of the equation a * w = r."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssm_core.time_invariant.recursive import _ratio


def ratio(r: Any, a: Any) -> Any:
    """Fused `ssm_core.time_invariant.recursive._ratio`: dw = (dr - da * w)/a, and its transpose backward in time."""
    L, m = r.shape[-1], a.shape[-1]
    if not isinstance(L, int) or r.dtype != a.dtype or 0 in r.shape:
        return NotImplemented

    def times(w: Any) -> Any:
        """a * w, lag by lag."""
        before = jnp.pad(w, [(0, 0)] * (w.ndim - 1) + [(m - 1, 0)])

        @jax.checkpoint
        def lag(total: Any, weight: Any) -> tuple[Any, None]:
            a_j, j = weight
            return total + a_j[..., None] * lax.dynamic_slice_in_dim(before, m - 1 - j, L, axis=-1), None

        return lax.scan(lag, jnp.zeros_like(w), (jnp.moveaxis(a, -1, 0), jnp.arange(m)))[0]

    def solve(_: Any, r: Any) -> Any:
        return _step_by_step(r, a) if jax.default_backend() == "cpu" else _ratio(r, a, backend="generic")

    def solve_transposed(_: Any, g: Any) -> Any:
        return jnp.flip(solve(_, jnp.flip(g, -1)), -1)

    return lax.custom_linear_solve(times, r, solve, solve_transposed)


def _step_by_step(r: Any, a: Any) -> Any:
    """All filters side by side, which costs a CPU less than the products of blocks."""
    weights = jnp.moveaxis(a[..., 1:], -1, 0)

    def step(before: Any, r_k: Any) -> tuple[Any, Any]:
        w_k = r_k - jnp.sum(weights * before, axis=0)
        return jnp.concatenate([w_k[None], before[:-1]]), w_k

    return jnp.moveaxis(lax.scan(step, jnp.zeros_like(weights), jnp.moveaxis(r, -1, 0))[1], 0, -1)
