"""A fold whose chunks are recomputed in the backward, by activation checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from .transforms import transformed


def fold(
    body: Callable[..., Any], state: Any, xs: tuple[Tensor, ...], *, chunk: int, recompute: bool
) -> tuple[Tensor, Any]:
    """One checkpoint a chunk. Under a transform of torch.func, which has no checkpoints, states are kept."""
    outputs = []
    parts = [x.split(chunk) for x in xs]
    kept = not recompute or not torch.is_grad_enabled() or transformed(xs[0]) or len(parts[0]) == 1
    for pieces in zip(*parts, strict=True):
        if kept:
            state, y = body(state, *pieces)
        else:
            state, y = checkpoint(body, state, *pieces, use_reentrant=False, preserve_rng_state=False)
            state = state if torch.compiler.is_compiling() else tree_map(_alone, state)
        outputs.append(y)
    return (torch.cat(outputs) if len(outputs) > 1 else outputs[0]), state


def _alone(x: Any) -> Any:
    """A copy of what is a small part of its memory: kept for the backward, it would keep all states of its chunk."""
    partial = isinstance(x, Tensor) and 2 * x.numel() * x.element_size() < x.untyped_storage().nbytes()
    return x.clone() if partial else x
