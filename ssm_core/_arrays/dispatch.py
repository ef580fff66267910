"""Sends a call to the fused implementation of its framework, where there is one.

    @dispatched
    def _linear_scan(a, b, initial, *, axis, reverse): ...     the generic body, array API

`backends/<framework>` may hold a function of the same name (less the leading underscore) and signature. It is called
instead, unless it returns NotImplemented. The framework is recognized by the names of the argument's base classes, so
none is imported to do so. Public functions validate before they come here: implementations see clean arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import unknown

FRAMEWORKS = ("numpy", "torch", "jax", "cupy")
_ROOTS = {"numpy": "numpy", "torch": "torch", "jax": "jax", "jaxlib": "jax", "flax": "jax", "cupy": "cupy"}

# A plain flag, not a ContextVar: torch.compile(fullgraph=True) can read it. Under a jit it is read at trace time.
_generic_only = False


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block every call takes the generic body ("generic") or the fused one ("auto", the default).

    The flag belongs to the process, not to a thread, and compiled functions keep what they were traced with.

    >>> import numpy, ssm_core
    >>> with ssm_core.use_backend("generic"):
    ...     ssm_core.linear_scan(numpy.ones(3), numpy.ones(3), axis=0)
    array([1., 2., 3.])
    """
    global _generic_only
    if name not in ("generic", "auto"):
        raise unknown("use_backend", "backend", name, ("generic", "auto"))
    before, _generic_only = _generic_only, name == "generic"
    try:
        yield
    finally:
        _generic_only = before


def framework(x: Any) -> str | None:
    """The framework an array belongs to, by the root modules of its class and base classes.

    >>> import numpy
    >>> framework(numpy.ones(3)), framework(1.0)
    ('numpy', None)
    """
    if not hasattr(x, "shape"):
        return None
    cls = x.__class__  # torch.compile traces this, and not type(x), for a parameter; of a function it has neither
    if cls in _kinds:
        return _kinds[cls]
    found = framework_of(cls)
    if found is not None:
        _kinds[cls] = found
    return found


_kinds: dict[type, str] = {}  # of classes of arrays that were seen: a call looks at many arrays of a few classes


def framework_of(cls: type) -> str | None:
    """The framework that a class belongs to."""
    root = cls.__module__.partition(".")[0]
    if root in _ROOTS:
        return _ROOTS[root]
    for base in cls.__mro__:  # a user's subclass
        if base.__module__.partition(".")[0] in _ROOTS:
            return _ROOTS[base.__module__.partition(".")[0]]
    return None


_loaded: dict[str, Any] = {}


def load(name: str) -> Any:
    """The backend module of a framework. Literal imports: torch.compile traces these and not importlib."""
    if name not in _loaded:
        _loaded[name] = _import(name)
        _kinds.update(dict.fromkeys(getattr(_loaded[name], "CLASSES", ()), name))
        from .library import note_framework  # which stands on this module

        note_framework(_loaded[name])
    return _loaded[name]


def _import(name: str) -> Any:
    if name == "numpy":
        from ..backends import numpy

        return numpy
    if name == "torch":
        from ..backends import torch

        return torch
    if name == "jax":
        from ..backends import jax

        return jax
    from ..backends import cupy

    return cupy


def dispatched(generic: Callable[..., Any]) -> Callable[..., Any]:
    """Make a generic body give way to the fused one of the framework of its first array argument."""
    name = generic.__name__.lstrip("_")

    @functools.wraps(generic)
    def call(*args: Any, backend: str | None = None, **kwargs: Any) -> Any:
        if not (_generic_only if backend is None else _wants_generic(name, backend)):
            found = (_kinds.get(args[0].__class__) if hasattr(args[0], "shape") else None) or _first_framework(args)
            fused = None if found is None else getattr(_loaded.get(found) or load(found), name, None)
            if fused is not None:
                result = fused(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        return generic(*args, **kwargs)

    return call


def _wants_generic(operation: str, backend: str) -> bool:
    if backend not in ("generic", "auto"):
        raise unknown(operation, "backend", backend, ("generic", "auto"))
    return backend == "generic"


def _first_framework(args: tuple[Any, ...]) -> str | None:
    for x in args:
        found = _first_framework(x) if isinstance(x, tuple) else framework(x)
        if found is not None:
            return found
    return None


def is_traced(x: Any) -> bool:
    """Whether x stands for an array whose values are not known yet, whatever backend is chosen."""
    found = framework(x)
    tells = None if found is None else getattr(load(found), "is_traced", None)
    return tells is not None and bool(tells(x))


def is_open(x: Any, size: Any) -> bool:
    """Whether a size is a symbol of the trace of x, which stands for many numbers: see `sizes`."""
    found = framework(x)
    tells = None if found is None else getattr(load(found), "is_symbol", None)
    return tells is not None and bool(tells(size))


def ensure_loaded(values: Iterable[Any]) -> None:
    """Load the backends of the arrays among the values, which register the systems as pytrees of their framework."""
    for x in values:
        if x is None or isinstance(x, int | float | complex) or _kinds.get(x.__class__) in _loaded:
            continue
        found = framework(x)
        if found is not None:
            load(found)
