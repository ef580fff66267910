"""Linear recurrences for JAX, whose tangents are scans with the same gates.

x_k = a_k x_{k-1} + b_k is a system of equations, M x = b, of triangular form. Where the device is no CPU, JAX is told
so: a product with M, the scan, which solves it, and the scan that solves the transpose of M are all that it needs to
differentiate in every way and to any order, and none of the loops is differentiated.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .blocks import SHORTEST, before, handed_on, in_blocks, row
from .shards import varying


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """x_k = a_k x_{k-1} + b_k by a loop, whose tangent is a scan with the same gates."""
    if b.shape[axis] == 0:
        return b
    shape = b.shape[:axis] + b.shape[axis + 1 :]
    first = None if initial is None else jnp.broadcast_to(initial, shape)
    a, b, first = varying((a, b, first), (a, b, first))
    cpu = jax.default_backend() == "cpu"
    if not cpu and isinstance(b.shape[axis], int) and b.shape[axis] >= SHORTEST:  # no symbol
        return _solution(a, b, first, axis, reverse)
    first = varying(jnp.zeros(shape, b.dtype), b) if first is None else first
    if axis == 0:
        return _scan(a, b, first, reverse)
    if axis < b.ndim - 1 and cpu:
        return _scan_in_place(a, b, first, axis, reverse)
    return jnp.moveaxis(_scan(jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0), first, reverse), 0, axis)


def states_between(P: Any, s: Any, first: Any) -> Any:
    """x_k = P_k x_{k-1} + s_k, with time first, for gates that are products, which may have overflowed."""
    return _solution(P, s, first, 0, False, products=True)


@partial(jax.jit, static_argnames=("axis", "reverse", "products"))
def _solution(a: Any, b: Any, first: Any, axis: int, reverse: bool, products: bool = False) -> Any:
    """x of M x = b, where b has what the state before the first step adds to it.

    The transpose is l_k = g_k + a_{k+1} l_{k+1}. It hands on a_k l_k, so that gates are read at their own step.
    """
    times = handed_on if products else jnp.multiply
    if first is not None:
        start = b.shape[axis] - 1 if reverse else 0
        b = lax.dynamic_update_index_in_dim(b, row(b, start, axis) + times(row(a, start, axis), first), start, axis)
    zero = jnp.zeros_like(row(b, 0, axis))

    def product(x: Any) -> Any:
        return x - times(a, before(zero, x, axis, reverse))

    def solved(_: Any, b: Any) -> Any:
        return _on_device(a, b, zero, axis=axis, reverse=reverse, late=False, products=products)

    def transposed(_: Any, g: Any) -> Any:
        return _on_device(a, g, zero, axis=axis, reverse=not reverse, late=True, products=products)

    return lax.custom_linear_solve(product, b, solved, transposed)


def _on_device(a: Any, b: Any, first: Any, *, axis: int, reverse: bool, late: bool, products: bool) -> Any:
    """The recurrence as the device that it is lowered for wants it: a loop with time first, or blocks, with time where
    it is, but for the last axis, along which the numbers of a step are far apart in memory."""

    def time_first(run: Any, a: Any, b: Any, first: Any) -> Any:
        return jnp.moveaxis(run(jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0), first), 0, axis)

    options: dict[str, Any] = {"reverse": reverse, "late": late, "products": products}
    loop = partial(time_first, partial(_loop, **options))
    last = axis == b.ndim - 1
    blocks: Any = partial(in_blocks, axis=0 if last else axis, **options)
    return lax.platform_dependent(a, b, first, cpu=loop, default=partial(time_first, blocks) if last else blocks)


def _loop(a: Any, b: Any, first: Any, reverse: bool, late: bool = False, products: bool = False) -> Any:
    """One step after another; JAX transposes it by itself. Late and for products, as `in_blocks`."""
    constant, times = a.shape[0] == 1, handed_on if products else jnp.multiply

    def step(x: Any, given: Any) -> Any:
        gate, drive = (a[0], given) if constant else given
        x = (x if late else times(gate, x)) + drive
        return times(gate, x) if late else x, x

    return lax.scan(step, first, b if constant else (a, b), reverse=reverse)[1]


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _scan(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    return _loop(a, b, first, reverse)


@_scan.defjvp
def _scan_jvp(reverse: bool, primals: Any, tangents: Any) -> Any:
    (a, b, first), (da, db, dfirst) = primals, tangents
    x = _scan(a, b, first, reverse)
    return x, _tangent(a, da, db, dfirst, first, x, reverse)


def _tangent(a: Any, da: Any, db: Any, dfirst: Any, first: Any, x: Any, reverse: bool) -> Any:
    """dx_k = a_k dx_{k-1} + (da_k x_{k-1} + db_k)."""
    return _scan(a, da * before(first, x, 0, reverse) + db, dfirst, reverse)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _scan_in_place(a: Any, b: Any, first: Any, axis: int, reverse: bool) -> Any:
    """Along an axis in the middle, without copies that have time first."""
    length, constant = b.shape[axis], a.shape[axis] == 1

    def step(i: Any, held: Any) -> Any:
        states, x = held
        k = length - 1 - i if reverse else i
        gate, drive = (
            lax.dynamic_index_in_dim(m, j, axis, keepdims=False) for m, j in ((a, 0 if constant else k), (b, k))
        )
        x = gate * x + drive
        return lax.dynamic_update_index_in_dim(states, x, k, axis), x

    states, _ = lax.fori_loop(0, length, step, (varying(jnp.zeros_like(b), b), first))
    return states


@_scan_in_place.defjvp
def _scan_in_place_jvp(axis: int, reverse: bool, primals: Any, tangents: Any) -> Any:
    """The tangent has time first: JAX can transpose it."""
    a, b, first = primals
    x = _scan_in_place(a, b, first, axis, reverse)
    a, da, db, states = (jnp.moveaxis(m, axis, 0) for m in (a, *tangents[:2], x))
    return x, jnp.moveaxis(_tangent(a, da, db, tangents[2], first, states, reverse), 0, axis)
