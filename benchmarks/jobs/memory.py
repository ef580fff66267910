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
PIECE = 1024  # steps


def of_layer(kind: str, **given: Any) -> Case:
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
    name = ", ".join([f"memory of {kind}", *(f"{option}={value}" for option, value in given.items())])
    return Case(name, in_torch(lambda: layer(u, **given), True), others, None, wanted, repeats=0)


def by_pieces(kind: str) -> Job:
    """Of a layer whose backward computes pieces again."""
    return Job(lambda: of_layer(kind, recompute=PIECE), memory=True)


JOBS = {
    **{f"memory-{kind.lower()}": Job(lambda kind=kind: of_layer(kind), memory=True) for kind in LAYERS},
    **{f"memory-{kind.lower()}-pieces": by_pieces(kind) for kind in ("Mamba", "Mamba2", "Mamba3")},
}
