"""CUDA sources of the backend of CuPy on the processor: a small module stands for CuPy, with NumPy's functions."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest

COMPILER = shutil.which("g++")

HEADER = """
#pragma once
#include <complex>
#include <cstddef>
#include <functional>
#include <ucontext.h>
#include <utility>
#include <vector>
template <typename T> using complex = std::complex<T>;
struct Index { long long x; };
static Index threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
// The threads of a block take turns: each goes on to the next barrier, or to its end.
static std::vector<ucontext_t> fibers;
static ucontext_t caller;
static std::function<void()> work;
static void __syncthreads() {
    long long own = threadIdx.x;
    swapcontext(&fibers[own], &caller);
    threadIdx.x = own;
}
static std::vector<bool> ended;
static void fiber(int i) {
    threadIdx.x = i;
    work();
    ended[i] = true;
}
static void of_block(long long threads) {
    const std::size_t size = 1 << 15;
    static std::vector<char> stacks;
    stacks.resize(threads * size);
    fibers.assign(threads, {});
    ended.assign(threads, false);
    for (long long i = 0; i < threads; i++) {
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = stacks.data() + i * size;
        fibers[i].uc_stack.ss_size = size;
        fibers[i].uc_link = &caller;
        makecontext(&fibers[i], (void (*)())fiber, 1, (int)i);
    }
    for (bool some = true; some;) {
        some = false;
        for (long long i = 0; i < threads; i++) {
            if (ended[i]) continue;
            swapcontext(&caller, &fibers[i]);
            some = some || !ended[i];
        }
    }
}
template <typename... P, std::size_t... I>
void launched(void (*kernel)(P...), long long blocks, long long threads, void** given, std::index_sequence<I...>) {
    gridDim.x = blocks;
    blockDim.x = threads;
    work = [&] { kernel(*static_cast<std::decay_t<P>*>(given[I])...); };
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) of_block(threads);
}
template <typename... P>
void launched(void (*kernel)(P...), long long blocks, long long threads, void** given) {
    launched(kernel, blocks, threads, given, std::index_sequence_for<P...>{});
}
"""


class RawModule:
    folder: Path

    def __init__(self, *, code: str, options: tuple[str, ...], name_expressions: list[str]) -> None:
        exported = [
            f'extern "C" void run{i}(long long blocks, long long threads, void** given) '
            f"{{ launched({name}, blocks, threads, given); }}"
            for i, name in enumerate(name_expressions)
        ]
        source = "\n".join([code, *exported])
        self.names, library = name_expressions, self.folder / hashlib.sha256(source.encode()).hexdigest()
        (self.folder / "cupy").mkdir(exist_ok=True)
        (self.folder / "cupy" / "complex.cuh").write_text(HEADER)
        program = library.with_suffix(".cpp")
        program.write_text(source)
        command = [COMPILER, *options, "-O1", "-shared", "-fPIC", f"-I{self.folder}", "-include", "cupy/complex.cuh"]
        command += ["-o", library, program]
        subprocess.run(command, check=True, capture_output=True)
        self.library = ctypes.CDLL(str(library))

    def get_function(self, name: str) -> Callable[..., None]:
        function = self.library[f"run{self.names.index(name)}"]

        def launch(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            values = [ctypes.c_longlong(x if isinstance(x, int) else x.ctypes.data) for x in arguments]
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            function(ctypes.c_longlong(*grid), ctypes.c_longlong(*block), pointers)

        return launch


class Device:
    """One of several. CuPy makes arrays on the current one."""

    entered: ClassVar[list[int]] = [0]
    attributes: ClassVar[dict[str, int]] = {"MultiProcessorCount": 1}

    def __init__(self, number: int | None = None) -> None:
        self.id = self.entered[-1] if number is None else number

    def __enter__(self) -> None:
        self.entered.append(self.id)

    def __exit__(self, *error: object) -> None:
        self.entered.pop()

    def synchronize(self) -> None:
        """Raises where the device has failed."""


class CudaError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class Array(np.ndarray):
    device = Device(0)


class Elsewhere(Array):
    device = Device(1)


def imported() -> Any:
    """The backend of CuPy, for NumPy's arrays."""
    cupy = ModuleType("cupy")
    vars(cupy).update({name: getattr(np, name) for name in np.__all__})
    stream = SimpleNamespace(is_capturing=lambda: False)
    cuda = SimpleNamespace(
        Device=Device,
        get_current_stream=lambda: stream,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(CUDARuntimeError=CudaError),
    )
    vars(cupy).update(RawModule=RawModule, ElementwiseKernel=Mock(), cuda=cuda)
    vars(cupy).update(empty=lambda *given: np.empty(*given).view(Array))
    package = ModuleType("backend_of_cupy")
    package.__path__ = [str(Path(__file__).parents[1] / "backends" / "cupy")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setitem(sys.modules, package.__name__, package)
        for name in ("compiled", "kernels", "scans", "selective"):
            name = f"{package.__name__}.{name}"
            patch.setitem(sys.modules, name, importlib.import_module(name))
        return package
