"""Linear recurrences for JAX, whose tangents are scans with the same gates."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .shards import varying

UNROLL = 4  # steps a turn of the loop over blocks. On a CPU none: fused, every one is computed from the first again
SHORTEST = 64  # steps that are split into blocks


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """x_k = a_k x_{k-1} + b_k by a loop, whose tangent is a scan with the same gates."""
    if b.shape[axis] == 0:
        return b
    shape = b.shape[:axis] + b.shape[axis + 1 :]
    first = jnp.zeros(shape, b.dtype) if initial is None else jnp.broadcast_to(initial, shape)
    a, b, first = varying((a, b, first), (a, b, first))
    if axis == 0:
        return _scan(a, b, first, reverse)
    if axis < b.ndim - 1 and jax.default_backend() == "cpu":
        return _scan_in_place(a, b, first, axis, reverse)
    return jnp.moveaxis(_scan(jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0), first, reverse), 0, axis)


def _states(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    """The recurrence, linear in b and first, as the device that it is lowered for wants it.

    Where there is none but the CPU, the blocks are not even traced; nor are those of a length that is a symbol.
    """
    if not isinstance(b.shape[0], int) or b.shape[0] < SHORTEST or jax.default_backend() == "cpu":
        return _loop(a, b, first, reverse)
    loop, blocks = partial(_loop, reverse=reverse), partial(_in_blocks, reverse=reverse)
    return lax.platform_dependent(a, b, first, cpu=loop, default=blocks)


def _loop(a: Any, b: Any, first: Any, reverse: bool, unroll: int = 1) -> Any:
    """One step after another; JAX transposes it by itself."""
    if a.shape[0] == 1:

        def step(x: Any, drive: Any) -> Any:
            x = a[0] * x + drive
            return x, x

        return lax.scan(step, first, b, reverse=reverse, unroll=unroll)[1]

    def gated(x: Any, gate_drive: Any) -> Any:
        x = gate_drive[0] * x + gate_drive[1]
        return x, x

    return lax.scan(gated, first, (a, b), reverse=reverse, unroll=unroll)[1]


@partial(jax.jit, static_argnames="reverse")
def _in_blocks(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    """A blocks of T steps side by side, where launching a step costs more than its arithmetic: 2 T + A steps, not A T.

    The product of the gates of every block and its last state from zero give the states before the blocks, which are
    a recurrence over blocks; and each block runs from the state before it.
    """
    length = b.shape[0]
    T = max(1, round((length / 2) ** 0.5))
    A = -(-length // T)
    missing = A * T - length

    def split(x: Any) -> Any:
        x = jnp.pad(x, [(missing, 0) if reverse else (0, missing), *[(0, 0)] * (x.ndim - 1)])
        return jnp.moveaxis(x.reshape(A, T, *x.shape[1:]), 1, 0)

    constant = a.shape[0] == 1
    gates, drives = a if constant else split(a), split(b)
    through = jnp.broadcast_to(lax.integer_pow(a, T), (A, *a.shape[1:])) if constant else jnp.prod(gates, axis=0)

    def block(x: Any, summary: Any) -> Any:
        x = _handed_on(summary[0], x) + summary[1]
        return x, x

    after = lax.scan(block, first, (through, _last(gates, drives, reverse)), reverse=reverse)[1]
    states = _loop(gates, drives, _before(first, after, reverse), reverse, UNROLL)
    states = jnp.moveaxis(states, 0, 1).reshape(A * T, *b.shape[1:])
    return states[missing:] if reverse else states[:length]


def _last(a: Any, b: Any, reverse: bool) -> Any:
    """The last state from zero."""

    def step(x: Any, gate_drive: Any) -> Any:
        return (a[0] if a.shape[0] == 1 else gate_drive[0]) * x + gate_drive[1], None

    zero = varying(jnp.zeros_like(b[0]), b)
    return lax.scan(step, zero, (None if a.shape[0] == 1 else a, b), reverse=reverse, unroll=UNROLL)[0]


def _handed_on(P: Any, x: Any) -> Any:
    """P x, linear in x; a product that overflowed leaves zeros as they are, and takes all else to infinity."""
    finite, largest = jnp.isfinite(P), jnp.finfo(P.dtype).max
    return jnp.where(finite, 1, largest) * (jnp.where(finite, P, largest) * x)


def _before(first: Any, x: Any, reverse: bool) -> Any:
    """The state before every step."""
    return jnp.concatenate([x[1:], first[None]]) if reverse else jnp.concatenate([first[None], x[:-1]])


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _scan(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    return _states(a, b, first, reverse)


@_scan.defjvp
def _scan_jvp(reverse: bool, primals: Any, tangents: Any) -> Any:
    (a, b, first), (da, db, dfirst) = primals, tangents
    x = _scan(a, b, first, reverse)
    return x, _tangent(a, da, db, dfirst, first, x, reverse)


def _tangent(a: Any, da: Any, db: Any, dfirst: Any, first: Any, x: Any, reverse: bool) -> Any:
    """dx_k = a_k dx_{k-1} + (da_k x_{k-1} + db_k)."""
    return _scan(a, da * _before(first, x, reverse) + db, dfirst, reverse)


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
