"""Which Triton kernels run, and the check that each passes before its first use.

The kernels of an operator are the file `<operator>/triton_kernels.py`. Its `probe(device)`, with `dtype=` where it
takes more than single precision, yields pairs: what a kernel computes of a small problem, and the same from the generic
body, in double precision and on the CPU. There no switch of the process changes it, and its gradients take no thread
of a backward that may be waiting for them. Kernels are taken on a GPU; with TRITON_INTERPRET=1 Triton's interpreter
runs them on the CPU too, which is how they are tested where there is none.
"""

from __future__ import annotations

import importlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor


class _NotNow(Exception):
    """Why kernels cannot be tried at this time; the next call may."""


@torch.compiler.assume_constant_result
def kernels(operator: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """What `gpu.kernels` gives on a device that runs them; a constant to torch.compile."""
    if torch.compiler.is_exporting():
        return None  # an exported program holds no operators of this package
    try:
        return _checked(operator, device, dtype)
    except _NotNow as why:
        _warn(operator, f"its kernels cannot be tried on {device} now ({why})")
        return None


@cache
def _checked(operator: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Tried once a process, device and dtype; what is raised is not remembered."""
    try:
        module = importlib.import_module(f"{__package__}.{operator}.triton_kernels")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        return None
    if _capturing():
        raise _NotNow("a CUDA graph is being captured: call once before")
    probe = module.probe if dtype == torch.float32 else partial(module.probe, dtype=dtype)
    with ThreadPoolExecutor(1) as alone:  # out of the caller's inference mode, checkpoint or transform
        problem = alone.submit(disagreement, probe, device).result()
    if problem is None:
        return module
    _warn(operator, f"on {device} {problem}")
    return None


def _warn(operator: str, problem: str) -> None:
    warnings.warn(f"{operator}: {problem}. The generic body is used instead.", stacklevel=3)


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def disagreement(probe: Any, device: torch.device) -> str | None:
    """What is wrong with kernels on a device, or None.

    Raises _NotNow where memory is missing, and RuntimeError where the device computes nothing any more.
    """
    try:
        with torch.cuda.device(device if device.type == "cuda" else -1):
            for found, wanted in probe(device):
                if not _close(found, wanted):
                    return "the kernel disagrees with the generic body"
    except Exception as error:  # whatever a compiler of kernels raises
        problem = f"{type(error).__name__}: {error}"
        if "out of memory" in problem:
            raise _NotNow(problem) from error
        _require_working(device, problem)
        return f"the kernel fails ({problem})"
    return None


def _require_working(device: torch.device, problem: str) -> None:
    """Some errors of CUDA are for ever: then no body is used instead."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise RuntimeError(
            f"{device} failed before or while a kernel was tried ({problem}), and computes nothing more in this "
            "process. Start the process again; within `ssm_core.use_backend('generic')` no kernel of this package runs."
        ) from error


def _close(found: Tensor, wanted: Tensor) -> bool:
    """Within a few roundings of float32, relative to the largest value."""
    found, wanted = (x.detach().cpu().to(torch.promote_types(x.dtype, torch.float64)) for x in (found, wanted))
    scale = max(1.0, float(wanted.abs().max()))
    return bool(((found - wanted).abs().max() <= 1e-4 * scale).item())
