"""The linear recurrence in blocks, where launching a step costs more than its arithmetic.

A blocks of T steps run side by side, twice. The first pass gives the product P of the gates of every block and its last
state s from zero. The states between blocks are the recurrence x = P x + s over blocks, which is run in blocks again,
so that about 2 T steps are launched for every time that T divides the length. The second pass gives all states.

Row t of every block is indexed where it is: nothing is brought to another order, and only a length that no T divides is
filled up.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from .shards import varying

UNROLL = 4  # steps a turn of a loop
STEPS = 16  # of a block: with more the loops are longer, with fewer there is more to be said of blocks
SHORTEST = 64  # steps that are split into blocks


def in_blocks(
    a: Any, b: Any, first: Any, *, axis: int, reverse: bool, late: bool = False, products: bool = False
) -> Any:
    """x_k = a_k x_{k-1} + b_k; late, x_k = c_k + b_k, where c_{k+1} = a_k x_k is handed on, and first is c_0.

    Gates that are products may have overflowed.
    """
    length, times = b.shape[axis], handed_on if products else jnp.multiply
    if length < SHORTEST:
        return _states(a, b, first, axis, reverse, late, times)
    T = next((T for T in range(STEPS, 2 * STEPS) if length % T == 0), STEPS)
    A = -(-length // T)
    missing = A * T - length

    def split(x: Any) -> Any:
        if x.shape[axis] == 1:
            return jnp.expand_dims(x, axis)
        if missing:  # filled up with steps that run after all others
            fill = (missing, 0) if reverse else (0, missing)
            x = jnp.pad(x, [fill if i == axis else (0, 0) for i in range(x.ndim)])
        return x.reshape(*x.shape[:axis], A, T, *x.shape[axis + 1 :])

    gates, drives = split(a), split(b)
    P, s = _summaries(gates, drives, axis + 1, reverse, late, times)
    after = in_blocks(P, s, first, axis=axis, reverse=reverse, products=True)
    x = _states(gates, drives, before(first, after, axis, reverse), axis + 1, reverse, late, times)
    x = x.reshape(*b.shape[:axis], A * T, *b.shape[axis + 1 :])
    start = missing if reverse else 0
    return lax.slice_in_dim(x, start, start + length, axis=axis) if missing else x


def before(first: Any, x: Any, axis: int, reverse: bool) -> Any:
    """The state before every step."""
    first, n = jnp.expand_dims(first, axis), x.shape[axis]
    if reverse:
        return jnp.concatenate([lax.slice_in_dim(x, 1, n, axis=axis), first], axis)
    return jnp.concatenate([first, lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)


def row(x: Any, k: Any, axis: int) -> Any:
    """Step k of an axis, or the one step of what is constant along it."""
    return lax.dynamic_index_in_dim(x, 0 if x.shape[axis] == 1 else k, axis, keepdims=False)


def _summaries(a: Any, b: Any, axis: int, reverse: bool, late: bool, times: Any) -> tuple[Any, Any]:
    """The product of the gates, and what is left of zero at the end."""
    length, constant = b.shape[axis], a.shape[axis] == 1

    def step(i: Any, held: Any) -> Any:
        P, x = held
        k = length - 1 - i if reverse else i
        gate, drive = row(a, k, axis), row(b, k, axis)
        x = times(gate, x + drive) if late else times(gate, x) + drive
        return (P if constant else P * gate), x

    one = lax.integer_pow(row(a, 0, axis), length) if constant else jnp.ones_like(row(a, 0, axis))
    zero = jnp.zeros_like(row(b, 0, axis))
    return lax.fori_loop(0, length, step, varying((one, zero), (a, b)), unroll=UNROLL)


def _states(a: Any, b: Any, first: Any, axis: int, reverse: bool, late: bool, times: Any) -> Any:
    """One step after another."""
    length = b.shape[axis]

    def step(i: Any, held: Any) -> Any:
        states, x = held
        k = length - 1 - i if reverse else i
        gate = row(a, k, axis)
        x = (x if late else times(gate, x)) + row(b, k, axis)
        return lax.dynamic_update_index_in_dim(states, x, k, axis), times(gate, x) if late else x

    empty = jnp.full_like(b, late)  # XLA would make one for a scan and its adjoint, and copy it for both
    return lax.fori_loop(0, length, step, varying((empty, first), (a, b, first)), unroll=UNROLL)[0]


def handed_on(P: Any, x: Any) -> Any:
    """P x; a product that overflowed leaves zeros as they are, and takes all else to infinity."""
    finite, largest = jnp.isfinite(P), jnp.finfo(P.dtype).max
    return jnp.where(finite, 1, largest) * (jnp.where(finite, P, largest) * x)
