"""The array libraries that the suite knows: which of them are here, on which device, and why the others are not.

A backend makes arrays (`asarray`) and reads them back (`to_numpy`), on its own device and in a dtype given by name.
Tests make every array through it, so nothing in the suite assumes a CPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from ssm_core._arrays.library import resolve
from ssm_core.recurrences.linear import LONGEST_TRACED_LOOP

Array = Any

STANDARD = ("float32", "float64", "complex64", "complex128")
HALF = ("float16", "bfloat16")


class Absent(Exception):
    """A backend that cannot run here; its text is the reason."""


class Backend:
    """One array library on one device."""

    family: str  # the name it has in the capability table
    halves: tuple[str, ...] = ()
    generic = False  # whether the run leaves fast paths out
    compiles = False  # a program for every case and dtype: takes seconds where others take milliseconds
    one_precision = False  # whether cases take turns in those of their dtypes that differ in precision alone

    def __init__(self, name: str, xp: Any, module: Any, device: Any = None) -> None:
        self.name, self.xp, self.module, self.device = name, xp, module, device
        self.dtypes = tuple(d for d in STANDARD if hasattr(xp, d)) + self.halves

    def __repr__(self) -> str:
        return self.name

    @property
    def version(self) -> str:
        root = importlib.import_module(self.module.__name__.partition(".")[0])
        return str(getattr(root, "__version__", "unknown version"))

    @property
    def place(self) -> str:
        """The device, in words."""
        return str(self.device if self.device is not None else self.device_of(self.asarray(0.0, "float32")))

    def activated(self, dtype: str) -> AbstractContextManager[Any]:
        """What has to be in force while arrays of this dtype are computed with."""
        return nullcontext()

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """x on the device; floating arrays in the dtype of that name, or in their own."""
        x = np.asarray(x)
        dtype = x.dtype.name if dtype is None else dtype
        return self.xp.asarray(x.astype(dtype), **self._placed())

    def _placed(self) -> dict[str, Any]:
        return {} if self.device is None else {"device": self.device}

    def to_numpy(self, x: Array) -> np.ndarray:
        """x on the host in double precision (integers and booleans as they are)."""
        return widened(np.asarray(x))

    def run(self, f: Callable[[SimpleNamespace], Any], arrays: SimpleNamespace, steps: int = 0) -> Any:
        """f of the arrays, the way users of the library run it. steps: of its recurrence, where that is long."""
        return f(arrays)

    def can_loop(self, steps: int) -> bool:
        """Whether functions that `run` compiles may have loops of so many steps."""
        return True

    def dtype(self, name: str) -> Any:
        return getattr(self.xp, name)

    def owns(self, x: Any) -> bool:
        return isinstance(x, type(self.asarray(0.0, "float32")))

    def device_of(self, x: Array) -> Any:
        return getattr(x, "device", None)

    def on_device(self, x: Array) -> bool:
        return self.device is None or bool(self.device_of(x) == self.device)


def widened(x: np.ndarray) -> np.ndarray:
    """A NumPy array in double precision, exactly."""
    kind = x.dtype.kind
    return x.astype(np.complex128 if kind == "c" else np.float64) if kind not in "biu" else x


class NumPy(Backend):
    family = "numpy"
    halves = ("float16",)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Read-only, so that a function which writes to its input fails."""
        array = super().asarray(x, dtype)
        array = array.copy() if array is x else array
        array.flags.writeable = False
        return array

    def owns(self, x: Any) -> bool:
        return isinstance(x, np.ndarray | np.generic)


class Strict(Backend):
    family = "array_api_strict"
    one_precision = True  # its numbers are NumPy's, which are checked in both

    def __init__(self, name: str, xp: Any, module: Any, device: Any = None, **flags: bool) -> None:
        super().__init__(name, xp, module, device)
        self.flags = flags

    def activated(self, dtype: str) -> AbstractContextManager[Any]:
        return self.xp.ArrayAPIStrictFlags(**self.flags)  # type: ignore[no-any-return]

    def to_numpy(self, x: Array) -> np.ndarray:
        return super().to_numpy(self.xp.asarray(x, device=self.xp.Device("CPU_DEVICE")))


class Torch(Backend):
    family = "torch"
    halves = HALF

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        x = np.asarray(x)
        dtype = x.dtype.name if dtype is None else dtype
        return self.module.as_tensor(x.copy()).to(device=self.device, dtype=getattr(self.module, dtype))

    def to_numpy(self, x: Array) -> np.ndarray:
        x = x.detach().cpu().resolve_conj().resolve_neg()
        return widened((x.float() if x.dtype == self.module.bfloat16 else x).numpy())


class Jax(Backend):
    family = "jax"
    halves = HALF
    compiles = one_precision = True

    def activated(self, dtype: str) -> AbstractContextManager[Any]:
        """On its device, and in 64 bits only where the dtype asks for them: users mostly run without."""
        stack = ExitStack()
        stack.enter_context(self.module.default_device(self.device))
        stack.enter_context(self.module.enable_x64(dtype in ("float64", "complex128")))
        return stack

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        return self.xp.asarray(np.asarray(x), dtype=dtype)

    def run(self, f: Callable[[SimpleNamespace], Any], arrays: SimpleNamespace, steps: int = 0) -> Any:
        if not self.can_loop(steps):
            return f(arrays)
        traced = {name: x for name, x in vars(arrays).items() if self.owns(x)}
        return self.jit(lambda given: f(SimpleNamespace(**vars(arrays) | given)))(traced)

    def can_loop(self, steps: int) -> bool:
        """The generic loop is unrolled, and refuses to be traced over many steps."""
        return not self.generic or steps <= LONGEST_TRACED_LOOP

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled with few optimizations: the suite compiles hundreds of programs and runs each of them once."""
        return self.module.jit(f, compiler_options={"xla_backend_optimization_level": 0})  # type: ignore[no-any-return]

    def owns(self, x: Any) -> bool:
        return isinstance(x, self.module.Array)


class CuPy(Backend):
    family = "cupy"
    halves = ("float16",)

    def to_numpy(self, x: Array) -> np.ndarray:
        return widened(x.get())


class Namespace(Backend):
    """Any other module that follows the array API standard."""

    family = "other"

    def to_numpy(self, x: Array) -> np.ndarray:
        """As NumPy reads it, by DLPack, or entry by entry: the standard promises no more."""
        for read in (np.asarray, np.from_dlpack):
            try:
                found = read(x)
            except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
                continue
            if found.dtype.kind in "biufc" and found.shape == tuple(x.shape):
                return widened(found)
        dtype = str(x.dtype)
        scalar: Any = complex if "complex" in dtype else float if "float" in dtype else int
        return np.array([scalar(x[i]) for i in np.ndindex(*x.shape)]).reshape(x.shape)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name.partition(".")[0]:
            raise Absent("not installed") from error
        raise Absent(f"cannot be imported: {error}") from error
    except ImportError as error:
        raise Absent(f"cannot be imported: {error}") from error


def _numpy() -> Backend:
    return NumPy("numpy", resolve("numpy"), np)


def _strict(name: str, **flags: bool) -> Backend:
    module = _imported("array_api_strict")
    return Strict(name, module, module, module.Device("CPU_DEVICE"), **flags)


def _torch(kind: str) -> Backend:
    torch = _imported("torch")
    if kind == "cpu":
        return Torch("torch", resolve("torch"), torch, torch.device("cpu"))
    if not torch.cuda.is_available():
        raise Absent("no CUDA device")
    return Torch("torch-cuda", resolve("torch"), torch, torch.device("cuda", torch.cuda.current_device()))


def _jax(kind: str) -> Backend:
    jax = _imported("jax")
    try:
        device = jax.devices(kind)[0]
    except RuntimeError as error:
        raise Absent("no GPU in this build of JAX, or none attached") from error
    return Jax("jax" if kind == "cpu" else "jax-gpu", importlib.import_module("jax.numpy"), jax, device)


def _cupy() -> Backend:
    cupy = _imported("cupy")
    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        found = 0
    if not found:
        raise Absent("no CUDA device")
    return CuPy("cupy", resolve("cupy"), cupy, cupy.cuda.Device())


KNOWN: dict[str, Callable[[], Backend]] = {
    "numpy": _numpy,
    "array_api_strict": lambda: _strict("array_api_strict"),
    # Without what no compiler can trace.
    "strictest": lambda: _strict("strictest", boolean_indexing=False, data_dependent_shapes=False),
    "torch": lambda: _torch("cpu"),
    "torch-cuda": lambda: _torch("cuda"),
    "jax": lambda: _jax("cpu"),
    "jax-gpu": lambda: _jax("gpu"),
    "cupy": _cupy,
}
ALIASES = {"jax.numpy": "jax", "array_api_compat.numpy": "numpy", "array_api_compat.torch": "torch"}


def load(name: str) -> Backend:
    """The backend of a known name, or of any module; raises Absent."""
    name = ALIASES.get(name, name)
    if name in KNOWN:
        return KNOWN[name]()
    module = _imported(name)
    lacking = lacks_of(module)
    if lacking:
        raise Absent(lacking)
    return Namespace(name, module, module)


def lacks_of(module: Any) -> str | None:
    """What a module lacks to be a namespace of the array API standard that ssm_core can compute with; None: nothing."""
    if not hasattr(module, "asarray"):
        return "the module has no asarray, so it is no array namespace"
    try:
        x = module.asarray(np.ones(3, np.float32))
    except Exception as error:  # whatever a library raises where it cannot make an array
        return f"it makes no array of NumPy's: {type(error).__name__}: {error}"
    if not hasattr(x, "__array_namespace__"):
        kind = type(x)
        return (
            f"its arrays ({kind.__module__}.{kind.__name__}) have no __array_namespace__, by which the standard finds "
            "the functions of an array"
        )
    if not hasattr(x.__array_namespace__(), "__array_namespace_info__"):
        return "its namespace has no __array_namespace_info__ (array API 2023.12) to ask for dtypes and devices"
    return None


def load_all(names: list[str]) -> tuple[list[Backend], dict[str, str]]:
    """The backends that are here, and the reason for each that is not."""
    present, absent = [], {}
    for name in names:
        try:
            present.append(load(name))
        except Absent as reason:
            absent[name] = str(reason)
    return present, absent


def other_device(backend: Backend) -> Strict:
    """array_api_strict on a device that is not the default one: what a CPU can check of device handling."""
    return Strict(f"{backend.name}:device1", backend.xp, backend.module, backend.module.Device("device1"))
