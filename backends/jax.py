"""Fast twins for JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssm_core import systems

TWINS = ("linear_scan", "fold", "expm", "erf", "sigmoid", "softplus", "gelu")
UNROLL = 4
SQUARINGS = 20  # at most, of the matrix exponential
NAMESPACE = jnp


def devices() -> str:
    """Where it can compute."""
    return ", ".join(sorted({d.platform for d in jax.devices()}))


def is_traced(x: Any) -> bool:
    """Whether a transformation of JAX is tracing."""
    return isinstance(x, jax.core.Tracer)


def to_numpy(x: Any) -> Any:
    return np.asarray(x)


def expm(A: Any) -> Any:
    """JAX's Pade approximant of A / 2^s, squared s times. Its own s is rounded down, which loses half of the digits."""
    radius = 5.37 if A.dtype in (jnp.float64, jnp.complex128) else 3.92  # norms up to which the approximant is exact
    norm = jnp.max(jnp.sum(jnp.abs(lax.stop_gradient(A)), axis=-2, keepdims=True), axis=-1, keepdims=True, initial=0.0)
    s = jnp.maximum(jnp.ceil(jnp.log2(jnp.maximum(norm, radius) / radius)), 0)
    E = jax.scipy.linalg.expm(A * 2.0**-s, max_squarings=1)

    def square(E: Any, k: Any) -> Any:
        root = jnp.where(k < s, E, 0)  # no squares, and no overflow in derivatives, of what is finished
        return jnp.where(k < s, root @ root, E), None

    E, _ = lax.scan(square, E, jnp.arange(SQUARINGS, dtype=s.dtype))
    return jnp.where(s > SQUARINGS, jnp.nan, E)


def erf(x: Any) -> Any:
    return jax.scipy.special.erf(x)


def sigmoid(x: Any) -> Any:
    return jax.nn.sigmoid(x)


def softplus(x: Any) -> Any:
    return jax.nn.softplus(x)


def gelu(x: Any, approximate: str) -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def linear_scan(a: Any, b: Any, initial: Any, *, axis: int, reverse: bool) -> Any:
    """x_k = a_k x_{k-1} + b_k by lax.scan, whose tangent is a scan with the same gates."""
    a, b = jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0)
    if b.shape[0] == 0:
        return jnp.moveaxis(b, 0, axis)
    first = jnp.zeros(b.shape[1:], b.dtype) if initial is None else jnp.broadcast_to(initial, b.shape[1:])
    return jnp.moveaxis(_scan(a, b, first, reverse), 0, axis)


def _loop(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    """The recurrence, linear in b and first; JAX transposes it by itself."""
    if a.shape[0] == 1:

        def step(x: Any, drive: Any) -> Any:
            x = a[0] * x + drive
            return x, x

        return lax.scan(step, first, b, reverse=reverse, unroll=UNROLL)[1]

    def gated(x: Any, gate_drive: Any) -> Any:
        x = gate_drive[0] * x + gate_drive[1]
        return x, x

    return lax.scan(gated, first, (a, b), reverse=reverse, unroll=UNROLL)[1]


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _scan(a: Any, b: Any, first: Any, reverse: bool) -> Any:
    return _loop(a, b, first, reverse)


@_scan.defjvp
def _scan_jvp(reverse: bool, primals: Any, tangents: Any) -> Any:
    """dx_k = a_k dx_{k-1} + (da_k x_{k-1} + db_k)."""
    a, b, first = primals
    da, db, dfirst = tangents
    x = _scan(a, b, first, reverse)
    before = jnp.concatenate([x[1:], first[None]]) if reverse else jnp.concatenate([first[None], x[:-1]])
    return x, _loop(a, da * before + db, dfirst, reverse)


def fold(body: Callable[..., Any], state: Any, xs: tuple[Any, ...], *, chunk: int, recompute: bool) -> Any:
    """lax.scan over the whole chunks, recomputed in the backward, then the rest."""
    body = jax.checkpoint(body) if recompute else body
    length = xs[0].shape[0]
    whole = length - length % chunk
    outputs = []
    if whole:
        parts = tuple(x[:whole].reshape(whole // chunk, chunk, *x.shape[1:]) for x in xs)
        state, y = lax.scan(lambda s, x: body(s, *x), state, parts)
        outputs.append(y.reshape(whole, *y.shape[2:]))
    if whole < length:
        state, y = body(state, *(x[whole:] for x in xs))
        outputs.append(y)
    return (jnp.concatenate(outputs) if len(outputs) > 1 else outputs[0]), state


for _cls in systems.CLASSES:
    jax.tree_util.register_dataclass(
        _cls,
        data_fields=list(systems.array_fields(_cls)),
        meta_fields=[name for name in systems.FLAGS if name in _cls.__dataclass_fields__],
    )
