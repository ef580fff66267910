"""Kernels in CUDA C++: compiled at first use, tried against what they stand for, and left out where they disagree."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cupy as cp

NUMBERS = {"f": "float", "d": "double", "F": "complex<float>", "D": "complex<double>"}


class _NotNow(Exception):
    """Why kernels cannot be tried at this time; the next call may."""


@dataclass(frozen=True, eq=False)
class Program:
    """The kernels of an operation, by their names in C++ with {number} for the type of numbers."""

    operation: str
    code: str
    names: tuple[str, ...]
    agree: Callable[[Any, Any], bool]  # whether kernels of a dtype compute what they should, on the current device

    def kernels(self, dtype: Any) -> Any:
        """Those for the current device, in the order of their names, or None where they cannot be used."""
        try:
            return _tried(self, dtype, cp.cuda.Device().id)
        except _NotNow as why:
            self.warn(f"cannot be tried now ({why})", dtype)
            return None

    def warn(self, problem: str, dtype: Any) -> None:
        warnings.warn(
            f"{self.operation}: the kernels for {dtype} {problem}. CuPy's functions are used instead.", stacklevel=5
        )


@cache
def _tried(program: Program, dtype: Any, device: int) -> Any:
    """None where they fail or disagree. Tried once; what is raised is not remembered."""
    if cp.cuda.get_current_stream().is_capturing():
        raise _NotNow("a CUDA graph is being captured: call once before")
    names = [name.format(number=NUMBERS[dtype.char]) for name in program.names]
    try:
        module = cp.RawModule(code=program.code, options=("-std=c++17",), name_expressions=names)
        kernels = tuple(module.get_function(name) for name in names)
        if program.agree(kernels, dtype):
            return kernels
        program.warn("disagree with CuPy's functions", dtype)
    except Exception as error:  # whatever a compiler of kernels raises
        problem = f"{type(error).__name__}: {error}"
        if isinstance(error, cp.cuda.memory.OutOfMemoryError):
            raise _NotNow(problem) from error
        _require_working(program.operation, device, problem)
        program.warn(f"fail ({problem})", dtype)
    return None


def _require_working(operation: str, device: int, problem: str) -> None:
    """Some errors of CUDA are for ever: then nothing is used instead."""
    try:
        cp.cuda.Device(device).synchronize()
    except cp.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(
            f"{operation}: device {device} failed before or while a kernel was tried ({problem}), and computes nothing "
            "more in this process. Start the process again; within `ssm_core.use_backend('generic')` no kernel of this "
            "package runs."
        ) from error


@cache
def _multiprocessors(device: int) -> int:
    return int(cp.cuda.Device(device).attributes["MultiProcessorCount"])


def steps_of_block(length: int, width: int, threads: int, shortest: int, enough: int | None = None) -> int:
    """Steps of a block of time, for `threads` of a multiprocessor: all, where `width` columns alone are `enough`."""
    processors = _multiprocessors(cp.cuda.Device().id)
    if enough is not None and width >= enough * processors:
        return length
    blocks = min(threads * processors // width, length // shortest)
    return length if blocks < 2 else -(-length // blocks)


def strides(x: Any) -> list[int]:
    """In numbers, not bytes."""
    return [stride // x.itemsize for stride in x.strides]
