"""What several fused implementations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def transformed(*tensors: Tensor) -> bool:
    """Whether a transform of torch.func is running, or one of these stands for a batch of gradients.

    With is_grads_batched the gradients of results that nothing was asked of are zeros, which are no batch.
    """
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    return any(torch._C._functorch.is_legacy_batchedtensor(x) for x in tensors)


def reduced(g: Tensor, shape: Sequence[int]) -> Tensor:
    """g summed over the axes along which an array of this shape was broadcast."""
    extra = g.ndim - len(shape)
    axes = [*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i] != 1)]
    return g.sum(axes, keepdim=True).reshape(shape) if axes else g


def conjugated(x: Tensor) -> Tensor:
    """conj(x) in the memory of x. torch.func cannot batch that, and gets the lazy one, which its user copies."""
    return x.conj() if transformed(x) else x.conj_physical_()


def forward_mode() -> bool:
    """Whether derivatives are being taken in forward mode."""
    return torch.autograd.forward_ad._current_level >= 0


def full_precision(x: Any) -> Any:
    """Powers, FFTs and states lose their digits in half precision, so autocast stops here."""
    kind = x.device.type if isinstance(x, Tensor) else "meta"  # what is no tensor is refused further on
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or the backward of one, outside of the autocast that its first tensor is in."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with full_precision(next((x for x in args if isinstance(x, Tensor)), None)):
            return function(*args, **options)

    return call
