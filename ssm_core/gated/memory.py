"""What a step does to memories S (..., K, V), one a head: they fade, are read with keys, and written to."""

from __future__ import annotations

from typing import Any

from .._arrays.dispatch import dispatched
from .._arrays.idioms import matmul
from .._arrays.library import Array, Namespace, namespace


def faded(S: Array, g: Array | None, xp: Namespace) -> Array:
    """e^g S of S (batch, H, K, V) and g (batch, H, K), or (batch, H) and less; S if there is none."""
    if g is None:
        return S
    return (xp.exp(g)[..., None] if g.ndim == 3 else xp.exp(g)[..., None, None]) * S


def seen(S: Array, q: Array) -> Array:
    """S^T q (..., V) of q (..., K)."""
    found: Array = _seen(S, q)
    return found


def written(S: Array, k: Array, v: Array) -> Array:
    """S + k v^T of k (..., K) and v (..., V)."""
    found: Array = _written(S, k, v)
    return found


@dispatched
def _seen(S: Array, q: Array) -> Any:
    return matmul(q[..., None, :], S, namespace("seen", S=S))[..., 0, :]


@dispatched
def _written(S: Array, k: Array, v: Array) -> Any:
    return S + k[..., None] * v[..., None, :]
