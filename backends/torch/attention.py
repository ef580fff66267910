"""PyTorch's own attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .transforms import forward_mode, transformed


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Any:
    """`functions.attention` where no derivatives are wanted: PyTorch's has no second ones, and none forward."""
    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if tracked or forward_mode() or transformed(q):
        return NotImplemented
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen[:, None], enable_gqa=grouped)
    return y.transpose(1, 2)
