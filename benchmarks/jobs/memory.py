"""Peak memory of every layer of PyTorch, forward and backward: B = 8, H = 256, L = 16384, where a signal has 128 MiB.

Beside it stands a plain FFT convolution under autograd with the same input and output, and nothing around it. Gated
layers have a batch of 1, a signal of 16 MiB, and are measured as they are and piece by piece. A prompt is read forward.
"""

from __future__ import annotations

import math
from typing import Any

import ssm_core

from ..harness import Case, Job, Work
from .common import BATCH, H, in_torch

LENGTH = 16384
LAYERS: dict[str, dict[str, Any]] = {
    "S4D": {}, "S4": {}, "DSS": {"length": LENGTH}, "SSM": {}, "LMU": {}, "S5": {}, "LRU": {}, "RTF": {}, "LinOSS": {},
}  # fmt: skip
SELECTIVE = ("Mamba", "Mamba2", "Mamba3")
PIECE = 1024  # steps
PROMPTS = (8192, 131_072)  # tokens
GATED = (
    "LinearAttention", "RetNet", "Lightning", "GLA", "HGRN", "HGRN2", "RWKV4", "RWKV5", "RWKV6", "RWKV7", "DeltaNet",
    "GatedDeltaNet", "GatedDeltaProduct", "KDA", "GDN2", "RGLRU", "MLSTM",
)  # fmt: skip


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


def gated(kind: str) -> list[Case]:
    """As it is, and piece by piece, which keeps inputs, outputs and the states between the pieces."""
    definition = getattr(ssm_core.layers, kind)(H)
    numbers = sum(math.prod(shape) for shape in definition.state_shapes(1).values())
    signal = LENGTH * H
    wanted = at_most(signal, signal, numbers * LENGTH // PIECE)

    def layer(**given: Any) -> Any:
        import torch

        torch.manual_seed(0)
        u = torch.randn(1, LENGTH, H, requires_grad=True)
        return ssm_core.adapters.torch.module(definition)(u, **given)

    whole, pieces = in_torch(layer, True), in_torch(lambda: layer(recompute=PIECE), True)
    return [
        Case(f"memory of {kind}", whole, {}, repeats=0),
        Case(f"memory of {kind}, recompute={PIECE}", pieces, {}, None, wanted, repeats=0),
    ]


def prompts() -> list[Case]:
    """What a model has read before it writes: one piece in memory, whatever the length of the whole."""
    return [Case(f"memory of a prompt, {length} tokens", reading(length), {}, repeats=0) for length in PROMPTS]


def reading(length: int) -> Work:
    import torch

    torch.manual_seed(0)
    model = ssm_core.adapters.torch.Mamba2LM(vocab_size=256, d_model=64, n_layers=2)
    prompt = torch.randint(0, 256, (1, length))
    model.generate(prompt[:, :16], 1)  # libraries have loaded what they load at first use
    return lambda: model.generate(prompt, 1)


def at_most(inputs: int, outputs: int, states: int) -> str:
    """What is wanted of float32 numbers: that of inputs, outputs and states between chunks, twice."""
    return f"wanted: at most {2 * 4 * (inputs + outputs + states) / 2**20:.0f} MiB"


def plain() -> Any:
    """y = irfft(rfft(u) rfft(k)), and nothing around it."""
    import torch

    u = torch.randn(BATCH, LENGTH, H, requires_grad=True)
    k = torch.randn(H, LENGTH, requires_grad=True)
    x, n = u.transpose(1, 2), 2 * LENGTH
    return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(k, n), n)[..., :LENGTH].transpose(1, 2)


JOBS = {
    "memory": Job(time_invariant, memory=True),
    "memory-mamba": Job(selective, memory=True),
    "memory-prompt": Job(prompts, memory=True),
    **{f"memory-layer-{kind.lower()}": Job(lambda kind=kind: gated(kind), memory=True) for kind in GATED},
}
