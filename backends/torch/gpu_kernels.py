"""Which Triton kernels run, and the check that each of them passes before its first use.

The kernels of an operator are the file `<operator>/triton_kernels.py`. Its `probe(device)` yields pairs of tensors:
what a kernel computes of a small problem, and what the generic body does. Kernels are taken on a GPU; with
TRITON_INTERPRET=1 Triton's interpreter runs them on the CPU too, which is how they are tested where there is none.
"""

from __future__ import annotations

import importlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor


@torch.compiler.assume_constant_result
def kernels(operator: str, device: torch.device) -> Any:
    """The module of the kernels of an operator, or None where they do not run or disagree with the generic body."""
    if torch.compiler.is_exporting():
        return None  # an exported program holds no operators of this package
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return None
    return _checked(operator, device)


@cache
def _checked(operator: str, device: torch.device) -> Any:
    """Tried once a process and device."""
    try:
        module = importlib.import_module(f"{__package__}.{operator}.triton_kernels")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        return None
    with ThreadPoolExecutor(1) as alone:  # out of the caller's inference mode, checkpoint or transform
        problem = alone.submit(disagreement, module.probe, device).result()
    if problem is None:
        return module
    warnings.warn(f"{operator}: on {device} {problem}. The generic body is used instead.", stacklevel=2)
    return None


def disagreement(probe: Any, device: torch.device) -> str | None:
    """What is wrong with kernels on a device, or None."""
    try:
        with torch.cuda.device(device if device.type == "cuda" else -1):
            for found, wanted in probe(device):
                if not _close(found, wanted):
                    return "the kernel disagrees with the generic body"
    except Exception as error:  # whatever a compiler of kernels raises
        return f"the kernel fails ({type(error).__name__}: {error})"
    return None


def _close(found: Tensor, wanted: Tensor) -> bool:
    """Within a few roundings of float32, relative to the largest value."""
    scale = max(1.0, float(wanted.abs().max()))
    return bool(((found - wanted).abs().max() <= 1e-4 * scale).item())
