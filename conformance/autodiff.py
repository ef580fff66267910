"""Derivatives by the frameworks that have them, under one interface. Other libraries have none to test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .backends import Backend

FRAMEWORKS = ("torch", "jax")  # families with automatic differentiation
Arrays = dict[str, Any]


def gradient(backend: Backend, f: Callable[[Arrays], Any], arrays: Arrays) -> Arrays:
    """The gradient of a real number f(arrays) with respect to every array, by reverse mode, compiled in JAX."""
    if backend.family == "jax":
        return dict(backend.module.jit(backend.module.grad(f))(arrays))
    leaves = {name: x.detach().clone().requires_grad_() for name, x in arrays.items()}
    f(leaves).backward()
    # An array that f does not use has no gradient.
    return {name: x.new_zeros(x.shape) if x.grad is None else x.grad for name, x in leaves.items()}


def jvp(backend: Backend, f: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """The derivative of f along the tangents, by forward mode."""
    module = backend.module if backend.family == "jax" else backend.module.func
    return module.jvp(f, primals, tangents)[1]


def difference(f: Callable[..., np.ndarray], primals: tuple[np.ndarray, ...], tangents: tuple[np.ndarray, ...]) -> Any:
    """The derivative of f along the tangents by central differences of fourth order, good to 1e-10 of its size."""
    h = 1e-3

    def at(t: float) -> np.ndarray:
        return f(*(x + t * dx for x, dx in zip(primals, tangents, strict=True)))

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
