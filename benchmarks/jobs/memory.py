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
    "Mamba": {}, "Mamba2": {}, "Mamba3": {},
}  # fmt: skip


def of_layer(kind: str) -> Case:
    """Not timed: each runs once in a process of its own."""
    import torch

    torch.manual_seed(0)
    u = torch.randn(BATCH, LENGTH, H, requires_grad=True)
    k = torch.randn(H, LENGTH, requires_grad=True)
    layer = getattr(ssm_core.adapters.torch, kind)(H, **LAYERS[kind])

    def plain() -> Any:
        x, n = u.transpose(1, 2), 2 * LENGTH
        return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(k, n), n)[..., :LENGTH].transpose(1, 2)

    others = {"plain FFT convolution": in_torch(plain, True)}
    wanted = "wanted: at least 0.67x"
    return Case(f"memory of {kind}", in_torch(lambda: layer(u), True), others, None, wanted, repeats=0)


JOBS = {f"memory-{kind.lower()}": Job(lambda kind=kind: of_layer(kind), memory=True) for kind in LAYERS}
