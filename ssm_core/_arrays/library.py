"""Namespace, device and compute dtype of arrays, and the check that a call uses one framework only."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .dispatch import dispatched, framework, is_traced, load
from .errors import DTypeError, MissingPackageError, MixedArraysError, OptionError, ShapeError
from .foreign import advice, note_ours

Array = Any  # an array of any library that follows the array API standard
Namespace = Any  # the module of its functions

# Half types are not in the standard: they are recognized by their names.
_COMPUTED = ("float32", "float64", "complex64", "complex128")
_HALF = ("float16", "bfloat16")
_REAL = ("float32", "float64", *_HALF)
_FLOATING = (*_COMPUTED, *_HALF)


def is_array(x: Any) -> bool:
    """Whether x is an array of some library (NumPy's scalars count)."""
    if isinstance(x, _NUMBERS) and not isinstance(x, np.generic):
        return False
    if x.__class__ in _spaces:
        return True
    return (framework(x) is not None or hasattr(x, "__array_namespace__")) and advice(x.__class__) is None


def namespace(operation: str, **arrays: Any) -> Namespace:
    """The namespace that all arrays share; Python numbers and None are passed over.

    Raises MixedArraysError for several frameworks or devices, DTypeError for what is no array.
    """
    found = first = where = None
    for name, x in arrays.items():
        if x is None or (isinstance(x, _NUMBERS) and not isinstance(x, np.generic)):
            continue
        xp = _spaces.get(x.__class__)
        if xp is None:
            require_arrays(operation, **{name: x})
            xp = _namespace_of(x)
        if x.__class__ in _with_layouts:
            _require_dense(operation, name, x)
        if found is None:
            found, first = xp, x
            continue
        if xp is not found:
            raise _mixed(operation, "libraries", arrays, lambda x: f"{type(x).__module__}.{type(x).__name__}")
        here, where = place(x), place(first) if where is None else where
        if where is not None and here is not None and here != where:
            raise _mixed(operation, "devices", arrays, lambda x: getattr(x, "device", None))
        where = here if where is None else where
    if found is None:
        raise DTypeError(f"{operation}: no array given, so no array library to compute with.")
    return found


def require_arrays(operation: str, **arrays: Any) -> None:
    """Raise DTypeError for the first that is no array, or an array of a library that does not follow the standard."""
    for name, x in arrays.items():
        if x.__class__ in _with_layouts:
            _require_dense(operation, name, x)
        if x.__class__ not in _spaces and not is_array(x):
            kind = type(x)
            refuse_foreign(operation, name, kind)
            if isinstance(getattr(x, "shape", None), tuple):
                raise DTypeError(
                    f"{operation}: {name} is a {kind.__module__}.{kind.__qualname__}, which has a shape but no "
                    "__array_namespace__: arrays of a library that follows the array API standard have it, and their "
                    "functions are found by it."
                )
            raise DTypeError(
                f"{operation}: {name} is a {type(x).__name__}, not an array. "
                f"Convert it first: {name} = xp.asarray({name})."
            )


def bringing(params: Any) -> Callable[[Any], Any]:
    """A function that brings NumPy's arrays, in tuples and lists too, to the library of the parameters.

    Only where that takes them for its own, as JAX does; elsewhere everything stays as it is, and mixing is an error.
    """
    kind = framework(next(iter(params.values()), None)) if isinstance(params, dict) else None
    take = None if kind is None else getattr(load(kind), "from_numpy", None)
    return _unchanged if take is None else partial(_mapped, take)


def _unchanged(x: Any) -> Any:
    return x


def _mapped(take: Callable[[Any], Array], x: Any) -> Any:
    if type(x) in (tuple, list):
        return type(x)(_mapped(take, one) for one in x)
    return take(x) if isinstance(x, np.ndarray) and is_array(x) else x


def refuse_foreign(operation: str, name: str, kind: type) -> None:
    """Raise for an array of a class that looks like ours but computes otherwise."""
    found = advice(kind)
    if found is not None:
        cause, instead = found
        raise DTypeError(
            f"{operation}: {name} is a {kind.__module__}.{kind.__qualname__}, which {cause}. "
            f"Convert it first: {name} = {instead.format(name)}."
        )


def _require_dense(operation: str, name: str, x: Array) -> None:
    """Raise for arrays that have the class of dense ones and are none, such as PyTorch's sparse tensors."""
    found = _with_layouts[x.__class__](x)
    if found is not None:
        what, instead = found
        raise DTypeError(
            f"{operation}: {name} is a {what}, and recurrences fill every entry. "
            f"Convert it first: {name} = {name}.{instead}."
        )


# Of Python, and bool, which is an int. Asked first, by isinstance: torch.compile makes of numbers what has no class.
_NUMBERS = (int, float, complex)
_spaces: dict[type, Namespace] = {}  # the namespaces of the frameworks' classes of arrays that were seen
_with_layouts: dict[type, Callable[[Any], Any]] = {}  # of classes whose instances may be sparse, what says so


def _namespace_of(x: Array) -> Namespace:
    kind = framework(x)
    if kind is None:
        return x.__array_namespace__()
    backend = load(kind)
    if not is_traced(x):  # within a loop of a trace nothing can be noted
        _spaces[x.__class__] = backend.NAMESPACE
        if hasattr(backend, "not_dense"):
            _with_layouts[x.__class__] = backend.not_dense
    return backend.NAMESPACE


def note_framework(backend: Any) -> None:
    """Note the classes and the dtypes of a framework before a trace, in which nothing can be noted.

    A program that torch.compile makes holds for what was noted then, and not after.
    """
    classes = getattr(backend, "CLASSES", ())
    note_ours(classes)
    _spaces.update(dict.fromkeys(classes, getattr(backend, "NAMESPACE", None)))
    if hasattr(backend, "not_dense"):
        _with_layouts.update(dict.fromkeys(classes, backend.not_dense))
    for dtype in getattr(backend, "DTYPES", ()):
        _NAMES[(type(dtype), dtype)] = str(dtype).rpartition(".")[2]


def _mixed(operation: str, what: str, arrays: dict[str, Any], kind: Any) -> MixedArraysError:
    given = ", ".join(f"{name}: {kind(x)}" for name, x in arrays.items() if is_array(x))
    return MixedArraysError(f"{operation}: arrays of several {what} ({given}). Convert them to one of them.")


def device(x: Array) -> Any:
    """The device of an array; None under a trace that has none (jax.jit), and of an array that lies on several."""
    found = _device(x)
    return None if hasattr(found, "device_set") else found


def place(x: Array) -> Any:
    """Where an array lies, to compare: its device, or the devices among which JAX has split it."""
    found = _device(x)
    return getattr(found, "device_set", found)


_nowhere: set[type] = set()  # JAX's tracers: to say that one has no device, JAX searches all that was traced before it


def _device(x: Array) -> Any:
    if x.__class__ in _nowhere:
        return None
    try:
        return x.device
    except AttributeError:
        _nowhere.add(x.__class__)
        return None


_NAMES: dict[Any, str] = {}  # of dtypes, with their class: NumPy needs microseconds to make a name


def dtype_name(x: Array) -> str:
    """The name of the dtype of an array, the same in every library: "float32"."""
    key = (type(x.dtype), x.dtype)
    name = _NAMES.get(key)
    if name is None:
        name = str(x.dtype).rpartition(".")[2]
        if not is_traced(x):  # a program is made for what was noted before it
            _NAMES[key] = name
    return name


def floating(operation: str, **arrays: Any) -> None:
    """Raise unless every array is real or complex floating (half precision included)."""
    for name, x in arrays.items():
        if is_array(x) and dtype_name(x) not in _FLOATING:
            raise DTypeError(
                f"{operation}: {name} has dtype {dtype_name(x)} (shape {tuple(x.shape)}). "
                f"A floating dtype is needed: xp.astype({name}, xp.float32)."
            )


def real_floating(operation: str, **arrays: Any) -> None:
    """Raise unless every array is real floating (half precision included)."""
    for name, x in arrays.items():
        if not is_array(x) or dtype_name(x) in _REAL:
            continue
        floating(operation, **{name: x})
        if is_complex(x):
            raise DTypeError(f"{operation}: {name} has dtype {dtype_name(x)}, but must be real.")


def is_floating(x: Array) -> bool:
    return dtype_name(x) in _FLOATING


def is_complex(x: Array) -> bool:
    return dtype_name(x).startswith("complex")


def is_half(x: Array) -> bool:
    return dtype_name(x) in _HALF


def computable(x: Any, xp: Namespace) -> Any:
    """x in a dtype to compute with: half precision goes to float32, the rest stays; numbers and None pass."""
    return xp.astype(x, xp.float32) if is_array(x) and dtype_name(x) not in _COMPUTED else x


def in_dtype_of(u: Array, y: Array, xp: Namespace) -> Array:
    """y in u's half precision, if that is what u has and y is real."""
    return xp.astype(y, u.dtype) if is_half(u) and not is_complex(y) else y


def compute_dtype(xp: Namespace, *arrays: Any) -> Any:
    """The dtype that the arrays are computed in together, at least float32."""
    dtypes = [x.dtype if dtype_name(x) in _COMPUTED else xp.float32 for x in arrays if is_array(x)]
    return dtypes[0] if dtypes.count(dtypes[0]) == len(dtypes) else xp.result_type(*dtypes)


def real_dtype(dtype: Any, xp: Namespace) -> Any:
    """The real dtype of the same precision."""
    return xp.float64 if dtype in (xp.float64, xp.complex128) else xp.float32


def complex_dtype(dtype: Any, xp: Namespace) -> Any:
    """The complex dtype of the same precision."""
    return xp.complex128 if dtype in (xp.float64, xp.complex128) else xp.complex64


def to_complex(x: Array, xp: Namespace) -> Array:
    return x if is_complex(x) else xp.astype(x, complex_dtype(x.dtype, xp))


def resolve(xp: Any, operation: str = "resolve") -> Namespace:
    """The array-API namespace for a module (`numpy`, `torch`, ...), its name, or None (numpy)."""
    if xp is None:
        xp = "numpy"
    name = xp if isinstance(xp, str) else getattr(xp, "__name__", "")
    if not name:
        raise OptionError(
            f"{operation}: xp={xp!r} is no array library. Pass a namespace or its name: xp=numpy, xp='torch'."
        )
    wrapped = {"numpy", "torch", "cupy"}
    target = f"array_api_compat.{name}" if name in wrapped else {"jax": "jax.numpy"}.get(name, name)
    try:
        found = importlib.import_module(target) if isinstance(xp, str) or target != name else xp
        if hasattr(found, "__array_namespace_info__"):
            return found
        raise OptionError(f"{operation}: xp={name!r} is no array library: it has no __array_namespace_info__.")
    except ImportError as error:
        raise MissingPackageError(
            f"{operation}: xp={name!r}: the package is not installed. Install it: pip install {name}."
        ) from error


def convert(
    x: Any, xp: Namespace, dtype: Any = None, device: Any = None, *, operation: str = "convert", name: str = "x"
) -> Array:
    """x as an array of xp, detached from any gradient; lists and numbers become floating arrays.

    Double precision becomes single where the library has no double, as JAX has not by default.
    """
    if is_array(x):
        if _namespace_of(x) is xp and dtype is None and device is None:
            return x
        x = to_numpy(x)
    else:
        refuse_foreign(operation, name, type(x))
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise ShapeError(f"{operation}: {name} is no array: its rows have different lengths.") from error
        x = x.astype(np.float64) if x.dtype.kind in "iub" else x
    if x.dtype.kind not in "fc":
        raise DTypeError(f"{operation}: {name} has dtype {x.dtype} (shape {x.shape}), but must be floating.")
    dtype = _same_dtype(x.dtype.name, xp) if dtype is None else dtype
    return xp.asarray(x, dtype=dtype, **({} if device is None else {"device": device}))


def _same_dtype(name: str, xp: Namespace) -> Any:
    known = xp.__array_namespace_info__().dtypes()
    single = {"float64": "float32", "complex128": "complex64"}.get(name)
    return known.get(name) or known.get(single) or getattr(xp, name)


def widest(x: Array, xp: Namespace) -> Array:
    """A real x in float64, where the library has it."""
    return (
        xp.astype(x, xp.float64, copy=False)
        if "float64" in xp.__array_namespace_info__().dtypes(device=device(x))
        else x
    )


def to_numpy(x: Array) -> Any:
    """x on the host as a NumPy array, detached from any gradient."""
    return _to_numpy(x, backend="auto")  # by the library's own way also where generic bodies are asked for


@dispatched
def _to_numpy(x: Array) -> Any:
    try:
        return np.asarray(x)
    except (TypeError, RuntimeError):  # an array of another device
        return np.from_dlpack(x)


@dispatched
def readable(x: Array) -> bool:
    """Whether the values of x are known and can decide what to do: not under a trace."""
    return not is_traced(x)


def owned(x: Any, always: bool = False) -> Any:
    """Arrays, in nested tuples as they are, that hold their numbers alone: of a view into a larger one a copy.

    `always` copies what may be an argument as it was given.
    """
    if isinstance(x, tuple | list):
        return tuple(owned(part, always) for part in x)
    return x if x is None else _owned(x, backend="generic" if always else None)


@dispatched
def _owned(x: Array) -> Array:
    return namespace("owned", x=x).astype(x, x.dtype, copy=True)
