"""What the operators ask before they compute: whether kernels run where a tensor is, and in which precision."""

from __future__ import annotations

import os
from typing import Any

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads it once too


def kernels(operator: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """The module of the kernels of an operator, or None where they do not run or disagree with the generic body."""
    if device.type != "cuda" and not (device.type == "cpu" and INTERPRETED):
        return None
    # What is marked for torch.compile imports the compiler, which takes as long as PyTorch itself.
    from .gpu_kernels import kernels

    return kernels(operator, device, dtype)


def tf32_allowed() -> bool:
    """Whether products of single precision may round their factors to ten bits, by either interface of PyTorch.

    The old one raises where the new one was used; the new one, since PyTorch 2.9, knows of both.
    """
    switches = torch.backends.cuda.matmul
    if hasattr(switches, "fp32_precision"):
        return bool(switches.fp32_precision == "tf32")
    return bool(switches.allow_tf32)
