"""What several fused implementations share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def transformed(x: Tensor) -> bool:
    """Whether a transform of torch.func is running, or x stands for a batch of gradients (is_grads_batched)."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(x)


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
