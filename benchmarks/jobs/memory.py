"""Peak memory of every layer of PyTorch, forward and backward: B = 8, H = 256, L = 16384, where a signal has 128 MiB.

Beside it stands a plain FFT convolution under autograd with the same input and output, and nothing around it.
"""

from __future__ import annotations

from typing import Any

import ssm_core

from ..harness import Case, Job
from .common import BATCH, H, in_torch

LENGTH = 16384
LAYERS: dict[str, dict[str, Any]] = {
    "S4D": {}, "S4": {}, "DSS": {"length": LENGTH}, "SSM": {}, "LMU": {}, "S5": {}, "LRU": {}, "RTF": {}, "LinOSS": {},
}  # fmt: skip
SELECTIVE = ("Mamba", "Mamba2", "Mamba3")
PIECE = 1024  # steps


def time_invariant() -> list[Case]:
    """Not timed: each runs once in a process of its own, and the convolution once for all."""
    return [of_layer(kind) for kind in LAYERS]


def selective() -> list[Case]:
    """As they are, and piece by piece."""
    return [of_layer(kind, **given) for kind in SELECTIVE for given in ({}, {"recompute": PIECE})]


def of_layer(kind: str, **given: Any) -> Case:
    """Made when it runs, so that a process holds what it measures alone."""

    def layer() -> Any:
        import torch

        torch.manual_seed(0)
        module = getattr(ssm_core.adapters.torch, kind)(H, **LAYERS.get(kind, {}))
        return module(torch.randn(BATCH, LENGTH, H, requires_grad=True), **given)

    name = ", ".join([f"memory of {kind}", *(f"{option}={value}" for option, value in given.items())])
    others = {"plain FFT convolution": in_torch(plain, True)}
    return Case(name, in_torch(layer, True), others, None, "wanted: at least 0.67x", repeats=0)


def plain() -> Any:
    """y = irfft(rfft(u) rfft(k)), and nothing around it."""
    import torch

    u = torch.randn(BATCH, LENGTH, H, requires_grad=True)
    k = torch.randn(H, LENGTH, requires_grad=True)
    x, n = u.transpose(1, 2), 2 * LENGTH
    return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(k, n), n)[..., :LENGTH].transpose(1, 2)


JOBS = {"memory": Job(time_invariant, memory=True), "memory-mamba": Job(selective, memory=True)}
