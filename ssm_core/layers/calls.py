"""What the calls of layers and of their modules give, as type checkers read them: y, or (y, state) when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

from .._arrays.library import Array
from .parameters import Parameters

T = TypeVar("T")
Given = TypeVar("Given", contravariant=True)
Made = TypeVar("Made", covariant=True)


class Options(TypedDict, total=False):
    """What runs over sequences take beside their signal. Which of it a layer takes, its `apply` says."""

    state: Any
    lengths: Array | None
    reset: Array | None
    cu_seqlens: Array | None
    rate: Any
    step_scale: Array | None
    mode: str
    recompute: int | None
    dropout: Any
    key: Array | None


class Apply(Protocol):
    """Of a definition: y is of the library of u."""

    @overload
    def __call__(
        self, params: Parameters, u: T, *, return_state: Literal[False] = False, **options: Unpack[Options]
    ) -> T: ...
    @overload
    def __call__(
        self, params: Parameters, u: T, *, return_state: Literal[True], **options: Unpack[Options]
    ) -> tuple[T, Any]: ...
    @overload
    def __call__(
        self, params: Parameters, u: T, *, return_state: bool, **options: Unpack[Options]
    ) -> T | tuple[T, Any]: ...


class Call(Protocol[Given, Made]):
    """Of a module: y is of the library of the module."""

    @overload
    def __call__(self, u: Given, *, return_state: Literal[False] = False, **options: Unpack[Options]) -> Made: ...
    @overload
    def __call__(self, u: Given, *, return_state: Literal[True], **options: Unpack[Options]) -> tuple[Made, Any]: ...
    @overload
    def __call__(self, u: Given, *, return_state: bool, **options: Unpack[Options]) -> Made | tuple[Made, Any]: ...


class _Method(Protocol):
    @overload
    def __get__(self, instance: None, owner: Any, /) -> Callable[..., Any]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = None, /) -> Apply: ...


def applies(apply: Any) -> _Method:
    """An `apply`, as it is."""
    return apply
