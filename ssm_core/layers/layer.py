"""The contract of every layer: options in a frozen record, parameters in a dict, pure functions of both.

    y = layer.apply(params, u)                                            u (B, L, H)
    y, state = layer.apply(params, u, state=state, return_state=True)
    y_t, state = layer.step(params, u_t, state)                           u_t (B, H)

Convolution, scan, chunks and steps are the same function, state in and state out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.errors import DTypeError, OptionError, ShapeError, describe, stated
from .._arrays.library import (
    Array,
    Namespace,
    bringing,
    computable,
    dtype_name,
    is_array,
    is_complex,
    is_half,
    namespace,
    real_floating,
    require_arrays,
)
from .._arrays.numbers import flag, whole
from ..recurrences.segments import Segments, checked_segments
from ..recurrences.shards import shards_of_now
from .calls import T, applies
from .options import thawed
from .parameters import HostRandom, Parameter, Parameters, Random

Stepper = Callable[[Array, Any], tuple[Array, Any]]


class Layer(ABC):
    """A layer without its weights. Subclasses are frozen dataclasses of options."""

    _shapes: ClassVar[dict[str, tuple[int, ...]] | None] = None  # of an instance, once they were needed
    positional: ClassVar[int] = 1  # how many options modules take by position
    streaming: ClassVar[bool] = True  # whether there are states and steps, see `whole`
    recomputes: ClassVar[bool] = False  # whether `apply` has recompute, which a backward needs less memory with

    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """Name, shape and first draw of every parameter."""

    @applies
    @abstractmethod
    def apply(
        self,
        params: Parameters,
        u: Array,
        *,
        state: Any = None,
        return_state: bool = False,
        lengths: Array | None = None,
        reset: Array | None = None,
        cu_seqlens: Array | None = None,
        rate: Any = 1.0,
        step_scale: Array | None = None,
        mode: str = "auto",
    ) -> Any:
        """Run over whole sequences."""

    @abstractmethod
    def initial_state(self, params: Parameters, batch: int) -> Any:
        """The state before the first step."""

    @abstractmethod
    def stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """A function (u_t, state) -> (y_t, state) that holds what does not change between steps."""

    def real_stepper(self, params: Parameters, *, rate: Any = 1.0) -> Stepper:
        """`stepper` on real states, (Re x, Im x) where they are complex: see `real_steps`."""
        return self.stepper(params, rate=rate)

    def step(self, params: Parameters, u_t: T, state: Any, *, rate: Any = 1.0) -> tuple[T, Any]:
        """One step, (B, H) to (B, H). To generate many, hold the `stepper`."""
        return self.stepper(params, rate=rate)(u_t, state)

    def initial_parameters(self, seed: Any = 0, *, xp: Any = None, dtype: Any = None) -> Parameters:
        """First parameters from NumPy's generator, as arrays of xp (float32)."""
        return self.draw(HostRandom(seed, xp=xp, dtype=dtype))

    def draw(self, random: Random) -> Parameters:
        """First parameters from any generator."""
        return {p.name: p.draw(random) for p in self.parameters()}

    def prepared(self, params: Parameters, **arrays: Any) -> Parameters:
        """The parameters in a dtype to compute with; raises unless all are there, in shape, and of one library."""
        if not isinstance(params, dict):
            raise DTypeError(f"{self.name}: params is a {type(params).__name__}, not a dict of arrays by name.")
        wanted = self.shapes_of(params)
        if not wanted.keys() <= params.keys():
            missing, given = wanted.keys() - params.keys(), ", ".join(sorted(map(str, params))) or "none"
            raise OptionError(
                f"{self.name}: parameters are missing: {', '.join(sorted(missing))} (given: {given}). "
                "`initial_parameters()` makes all of them."
            )
        params = {name: params[name] for name in wanted}
        require_arrays(self.name, **params)
        xp = namespace(self.name, **arrays, **params)
        of_each_dtype = {p.dtype: (name, p) for name, p in params.items()}  # one, mostly
        real_floating(self.name, **dict(of_each_dtype.values()))
        for name, shape in wanted.items():
            if params[name].shape != shape:
                raise ShapeError(f"{self.name}: {name} is {tuple(params[name].shape)}, but must be {shape}.")
        if not any(is_half(p) for _, p in of_each_dtype.values()):
            return params
        return {name: computable(p, xp) for name, p in params.items()}

    def shapes_of(self, params: Parameters) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, made once: with their draws it takes a while to list them."""
        found = self._shapes
        if found is None:
            found = {p.name: p.shape for p in self.parameters()}
            if not any(map(is_traced, params.values())):  # a compiler would have to put it back after every call
                object.__setattr__(self, "_shapes", found)
        return found

    def options(self) -> dict[str, Any]:
        """The options, as plain values that make the same layer again."""
        definition: Any = self
        return {f.name: thawed(getattr(self, f.name)) for f in fields(definition) if f.init}

    @property
    def name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Entry:
    """What a layer computes with, once all of it is checked: of dtypes to compute with, and masked."""

    xp: Namespace
    params: Parameters
    x: Array
    state: Any
    segments: Segments
    rate: Any
    step_scale: Array | None


class Mixer(Layer):
    """A layer that maps (B, L, H) to (B, L, H), with states before and after."""

    d_model: int
    timed: ClassVar[bool] = True  # whether it has steps in time, which a rate and a step_scale multiply

    @property
    def input_width(self) -> int:
        """Features of the input."""
        return self.d_model

    @property
    def rate_width(self) -> int | None:
        """How many rates it takes at once; None: one for all channels."""
        return None

    @abstractmethod
    def check_state(self, operation: str, state: Any, batch: int, u: Array) -> None:
        """Raise unless it is a state of so many sequences, of the library and device of u."""

    def check_rate(self, rate: Any) -> Any:
        """The rate, a plain number where it is one; raises for another than 1 where no step is there to multiply."""
        rate = check_rate(self.name, rate, self.rate_width)
        if not self.timed and (is_array(rate) or rate != 1):
            raise OptionError(
                f"{self.name}: the layer is discrete and has no step that {stated(rate=rate)} could multiply."
            )
        return rate

    def entry(
        self, params: Parameters, u: Array, state: Any, *, return_state: Any, rate: Any, step_scale: Any, **masks: Any
    ) -> Entry:
        """The arguments of `apply`, checked; what lies beyond the lengths is zero from here on."""
        bring = bringing(params)
        u, state, rate, step_scale = bring((u, state, rate, step_scale))
        masks = {name: bring(mask) for name, mask in masks.items()}
        xp = check_signal(self.name, u, self.input_width)
        flag(self.name, return_state=return_state)
        rate, (B, L, _) = self.check_rate(rate), u.shape
        given = describe(u=u, step_scale=step_scale, **masks)
        segments = checked_segments(self.name, given, (B,), L, of=u, shards=shards_of_now(u), **masks)
        if step_scale is not None:
            if not self.timed:
                raise OptionError(
                    f"{self.name}: the layer is discrete and has no steps that step_scale could multiply."
                )
            require_arrays(self.name, step_scale=step_scale)
            real_floating(self.name, step_scale=step_scale)
            if tuple(step_scale.shape) != (B, L):
                raise ShapeError(f"{self.name}: step_scale must be {(B, L)} ({given}).")
        if state is not None:
            self.check_state(self.name, state, segments.count(B), u)
        params = self.prepared(params, u=u, step_scale=step_scale, rate=rate, **masks)
        scale = computable(step_scale, xp)
        scale = scale if scale is None else segments.masked(scale, 1, xp, fill=1.0)
        x = segments.masked(computable(u, xp), 1, xp)
        return Entry(xp, params, x, state, segments=segments, rate=rate, step_scale=scale)


def check_signal(operation: str, u: Array, width: int, *, step: bool = False) -> Namespace:
    """The namespace of an input (B, L, H), or (B, H) for a step; raises for another shape or dtype."""
    name, axes, wanted = ("u_t", 2, f"(B, {width})") if step else ("u", 3, f"(B, L, {width})")
    require_arrays(operation, **{name: u})
    xp = namespace(operation, **{name: u})
    real_floating(operation, **{name: u})
    if u.ndim != axes or u.shape[-1] != width:
        raise ShapeError(f"{operation}: {name} must be {wanted} ({describe(**{name: u})}).")
    return xp


def check_rate(operation: str, rate: Any, width: int | None) -> Any:
    """The rate, a plain number where it is one; raises unless it is positive, or a real array () or (width,)."""
    rate = rate.item() if isinstance(rate, (np.generic, np.ndarray)) and rate.shape == () else rate
    if not is_array(rate):
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise OptionError(
                f"{operation}: {stated(rate=rate)} must be a positive number: 2.0 means steps twice as long."
            )
        return rate
    real_floating(operation, rate=rate)
    if tuple(rate.shape) not in ((), (width,)):
        wanted = "a number or ()" if width is None else f"a number, () or ({width},)"
        raise ShapeError(f"{operation}: rate must be {wanted} ({describe(rate=rate)}).")
    return rate


def once_per_kind(check: Callable[[Array, Any], None]) -> Callable[[Array, Any], None]:
    """The check of (u_t, state), passed over for arrays like those of the step before: of a step it is the most."""
    passed: list[Any] = [None]

    def checked(u_t: Array, state: Any) -> None:
        kind = (_kind(u_t), _kind(state))
        if kind != passed[0]:
            check(u_t, state)
            passed[0] = kind

    return checked


def _kind(x: Any) -> tuple[Any, ...]:
    if isinstance(x, tuple | list):
        return (x.__class__, *map(_kind, x))
    return x.__class__, getattr(x, "shape", None), getattr(x, "dtype", None), getattr(x, "device", None)


def as_precise(u: Array, state: Any, xp: Namespace) -> tuple[Array, Any]:
    """The input and the state of a step, both in double precision where one of them has it."""
    several = isinstance(state, tuple | list)
    parts = tuple(state) if several else (state,)
    if not any(dtype_name(x) in ("float64", "complex128") for x in (u, *parts)):
        return u, state
    wide = [xp.astype(x, xp.complex128 if is_complex(x) else xp.float64, copy=False) for x in (u, *parts)]
    return wide[0], tuple(wide[1:]) if several else wide[1]


def check_batch(operation: str, batch: Any) -> int:
    """The batch as Python's number; raises unless it is a whole number of at least 0."""
    return whole(operation, 0, batch=batch)
