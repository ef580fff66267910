"""The processes of a group of torch.distributed, each with a part of a sequence."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ssm_core._arrays.errors import OptionError
from ssm_core.recurrences.shards import Shards


def shards(over: Any) -> Any:
    """Those of a process group, or of a device mesh of one dimension; NotImplemented for anything else."""
    group = over.get_group() if hasattr(over, "get_group") else over
    if not isinstance(group, dist.ProcessGroup):
        return NotImplemented
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise OptionError("sequence: this process is no member of the group that it is given.")
    place = "cuda" if dist.get_backend(group) == "nccl" else "cpu"

    def gather(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _Gather.apply(x, group, size)
        return found

    def lengths(length: int) -> tuple[int, ...]:
        every = _gathered(torch.tensor([length], device=place), group, size)
        return tuple(every.flatten().tolist())

    return Shards(size, rank, gather, lengths)


def _gathered(x: torch.Tensor, group: Any, size: int) -> torch.Tensor:
    every = x.new_empty((size, *x.shape))
    all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the name before 2.13
    all_gather(every.view(-1), x.contiguous().view(-1), group=group)
    return every


class _Gather(torch.autograd.Function):
    """x of all processes, and back the sum of what all of them make of the x of this one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any, size: int) -> torch.Tensor:
        ctx.group, ctx.size = group, size
        return _gathered(x, group, size)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _Scatter.apply(gradient, ctx.group, ctx.size), None, None


class _Scatter(torch.autograd.Function):
    """The transpose: row r of the sum over all processes, in process r."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any, size: int) -> torch.Tensor:
        ctx.group, ctx.size = group, size
        own = x.new_empty(x.shape[1:])
        reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        reduce_scatter(own.view(-1), x.contiguous().view(-1), group=group)
        return own

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _Gather.apply(gradient, ctx.group, ctx.size), None, None
