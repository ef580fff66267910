"""What a layer's parameters are, and how they are drawn in any framework."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from .._arrays.library import Array, resolve

Parameters = dict[str, Array]


class Random(Protocol):
    """Draws of a framework's own generator, on its device, in its dtype."""

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Array: ...

    def normal(self, shape: tuple[int, ...], std: float) -> Array: ...

    def constant(self, value: Any) -> Array: ...


@dataclass(frozen=True)
class Parameter:
    """A real parameter. With `no_weight_decay` an optimizer leaves it out of weight decay and gives it its own rate;
    one that `maps` is the weight (out, in) of a linear map of features."""

    name: str
    shape: tuple[int, ...]
    draw: Callable[[Random], Array]
    no_weight_decay: bool = False
    maps: bool = False


class HostRandom:
    """Draws of a NumPy generator, converted to any array library."""

    def __init__(self, seed: int | np.random.Generator = 0, *, xp: Any = None, dtype: Any = None) -> None:
        self._generator = np.random.default_rng(seed)
        self._xp = resolve(xp)
        self._dtype = self._xp.float32 if dtype is None else dtype

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Array:
        return self.constant(self._generator.uniform(low, high, shape))

    def normal(self, shape: tuple[int, ...], std: float) -> Array:
        return self.constant(self._generator.normal(0.0, std, shape))

    def constant(self, value: Any) -> Array:
        return self._xp.asarray(np.asarray(value), dtype=self._dtype)


def uniform(name: str, shape: tuple[int, ...], low: float, high: float, *, no_weight_decay: bool = False) -> Parameter:
    return Parameter(name, shape, lambda random: random.uniform(shape, low, high), no_weight_decay)


def normal(name: str, shape: tuple[int, ...], std: float = 1.0, *, no_weight_decay: bool = False) -> Parameter:
    return Parameter(name, shape, lambda random: random.normal(shape, std), no_weight_decay)


def constant(
    name: str, shape: tuple[int, ...], value: Callable[[], Any], *, no_weight_decay: bool = False
) -> Parameter:
    """The value, computed when it is drawn, broadcasts to the shape."""

    def draw(random: Random) -> Array:
        return random.constant(np.broadcast_to(np.asarray(value(), dtype=np.float64), shape))

    return Parameter(name, shape, draw, no_weight_decay)


def as_map(weight: Parameter) -> Parameter:
    """The weight (out, in), marked as that of a linear map of features."""
    return replace(weight, maps=True)


def linear(prefix: str, n_in: int, n_out: int) -> tuple[Parameter, Parameter]:
    """Weight (out, in) and bias (out,) of an affine map, uniform in +-1/sqrt(in)."""
    bound = 1 / math.sqrt(n_in)
    return (
        as_map(uniform(f"{prefix}weight", (n_out, n_in), -bound, bound)),
        uniform(f"{prefix}bias", (n_out,), -bound, bound),
    )
