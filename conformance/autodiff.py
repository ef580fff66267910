"""Derivatives by the frameworks that have them, under one interface, and finite differences to hold them against.

A direction t gives every derivative a number. With L(x) = Re <c, f(x)> for fixed weights c:

    forward   J t                    the tangent of f, by forward mode
    reverse   dL/dt                  the gradient of L, by reverse mode, along t
    second    d^2 L/dt^2             the gradient of that, along t

For complex x the conventions differ: dL/dt = Re sum conj(g) t in PyTorch and Re sum g t in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FRAMEWORKS = ("torch", "jax")  # families with automatic differentiation
Arrays = dict[str, Any]
Function = Callable[[Arrays], tuple[Any, ...]]


@dataclass(frozen=True)
class Derivatives:
    forward: tuple[Any, ...]
    reverse: Any
    second: Any


def gradient(backend: Any, f: Callable[[Arrays], Any], arrays: Arrays) -> Arrays:
    """The gradient of a real number f(arrays) with respect to every array, by reverse mode, compiled in JAX."""
    if backend.family == "jax":
        return dict(backend.jit(backend.module.grad(f))(arrays))
    leaves = _leaves(arrays)
    grads = backend.module.autograd.grad(f(leaves), list(leaves.values()), materialize_grads=True, allow_unused=True)
    return dict(zip(leaves, grads, strict=True))


def along(backend: Any, f: Function, x: Arrays, t: Arrays, weights: tuple[Any, ...]) -> Derivatives:
    """The derivatives of f at x along t."""
    compute = _along_in_jax if backend.family == "jax" else _along_in_torch
    return Derivatives(*compute(backend, f, x, t, weights))


def _along_in_jax(backend: Any, f: Function, x: Arrays, t: Arrays, weights: tuple[Any, ...]) -> Any:
    jax, xp = backend.module, backend.xp

    def slope(x: Arrays) -> Any:
        g = jax.grad(lambda x: _pairing(f(x), weights, xp))(x)
        return sum(xp.sum(xp.real(g[name] * t[name])) for name in x)

    def compute(x: Arrays) -> Any:
        reverse, g = jax.value_and_grad(slope)(x)
        return jax.jvp(f, (x,), (t,))[1], reverse, sum(xp.sum(xp.real(g[name] * t[name])) for name in x)

    return backend.jit(compute)(x)


def _along_in_torch(backend: Any, f: Function, x: Arrays, t: Arrays, weights: tuple[Any, ...]) -> Any:
    torch, xp = backend.module, backend.xp
    leaves = _leaves(x)

    def slope(of: Any, create_graph: bool) -> Any:
        if not of.requires_grad:  # L is linear
            return xp.zeros_like(of)
        grads = torch.autograd.grad(
            of, list(leaves.values()), create_graph=create_graph, materialize_grads=True, allow_unused=True
        )
        return sum((g.conj() * t[name]).real.sum() for name, g in zip(leaves, grads, strict=True))

    reverse = slope(_pairing(f(leaves), weights, xp), True)
    return torch.func.jvp(f, (x,), (t,))[1], reverse, slope(reverse, False)


def _leaves(arrays: Arrays) -> Arrays:
    return {name: x.detach().clone().requires_grad_() for name, x in arrays.items()}


def _pairing(results: tuple[Any, ...], weights: tuple[Any, ...], xp: Any) -> Any:
    """Re <c, f>."""
    return sum(_real(xp.sum(_conj(c, xp) * y), xp) for y, c in zip(results, weights, strict=True))


def _conj(x: Any, xp: Any) -> Any:
    return xp.conj(x) if "complex" in str(x.dtype) else x


def _real(x: Any, xp: Any) -> Any:
    return xp.real(x) if "complex" in str(x.dtype) else x


def differences(
    f: Callable[[Arrays], tuple[np.ndarray, ...]], x: Arrays, t: Arrays, weights: tuple[np.ndarray, ...]
) -> Derivatives:
    """The same by central differences of fourth order: first ones to about 1e-11, second ones to about 1e-7."""

    def at(step: float) -> tuple[np.ndarray, ...]:
        return f({name: value + step * t[name] for name, value in x.items()})

    def loss(results: tuple[np.ndarray, ...]) -> Any:
        return sum(np.sum(c.conj() * y).real for y, c in zip(results, weights, strict=True))

    h = 2e-4
    far = [at(k * h) for k in (-2, -1, 1, 2)]
    forward = tuple((a - d + 8 * (c - b)) / (12 * h) for a, b, c, d in zip(*far, strict=True))
    h = 4e-4
    values = [loss(at(k * h)) for k in (-2, -1, 0, 1, 2)]
    second = np.dot([-1, 16, -30, 16, -1], values) / (12 * h**2)
    return Derivatives(forward, loss(forward), second)
