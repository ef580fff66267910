"""Layers over several processes against one process: outputs, last states and all gradients.

What the processes of `tests/test_distributed.py` do.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ssm_core import distributed, layers, models
from tests.small import NAMES, small

CUT = (8, 2, 13)  # steps of every process; 2 are fewer than a short convolution sees
NONE, TWO = (11, 0, 12), (9, 14)
SOME = ("S4D", "S4", "Mamba", "GatedDeltaNet", "RetNet", "RWKV7", "LocalAttention", "S4D both ways", "MambaLM")
LENGTH, BATCH, WIDTH = 23, 2, 4
TWO_WAYS = ("S4D", "S4", "DSS", "RTF", "SSM", "S5", "LRU", "LinOSS")


def joined(port: str, rank: int, size: int, seconds: float = 300) -> None:
    """Become one of a group of processes, whose waits end."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size, timeout=timedelta(seconds=seconds))


def cases() -> list[tuple[str, Any, dict[str, Any]]]:
    """(name, layer, the masks that it gets) of everything that is cut."""
    rng, found = np.random.default_rng(0), []
    reset = torch.from_numpy(rng.random((BATCH, LENGTH)) < 0.15)
    masks = {
        "plain": {},
        "lengths": {"lengths": torch.tensor([LENGTH, 8])},
        "reset and lengths": {"reset": reset, "lengths": torch.tensor([LENGTH - 1, 10])},
        "packed": {"cu_seqlens": torch.tensor([0, 4, 4, 12, 20, LENGTH])},
    }
    for name in NAMES:
        found += [(f"{name}, {kind}", small(name, WIDTH), mask) for kind, mask in masks.items()]
    for name in TWO_WAYS:
        layer = small(name, WIDTH, bidirectional=True)
        found += [(f"{name} both ways, {kind}", layer, masks[kind]) for kind in ("plain", "lengths", "packed")]
    two = small("S4D", WIDTH, bidirectional=True, channels=2)
    found += [("S4D both ways in two channels", two, {}), ("S5, liquid", small("S5", WIDTH, liquid=True), {})]
    found += [("S5, liquid, reset", small("S5", WIDTH, liquid=True), masks["reset and lengths"])]
    found += [("Mamba by zoh", small("Mamba", WIDTH, discretization="zoh"), {})]
    wide = layers.LocalAttention(WIDTH, heads=2, kv_heads=1, head_dim=4, window=6, chunk=5)
    found += [
        (f"LocalAttention over more steps than a process has, {kind}", wide, mask) for kind, mask in masks.items()
    ]
    for pool in ("mean", "last", None):
        model = models.SequenceModel(3, 2, WIDTH, 2, layer="GLA", layer_options={"heads": 2}, pool=pool)
        found += [
            (f"SequenceModel, pool {pool}, {kind}", model, masks[kind]) for kind in ("plain", "lengths", "packed")
        ]
    language = models.MambaLM(vocab_size=7, d_model=WIDTH, n_layers=2, layer_options={"d_state": 4})
    found += [(f"MambaLM, {kind}", language, mask) for kind, mask in masks.items()]
    attention = {"heads": 1, "window": 6}
    others = {
        "RWKV4LM": {}, "RWKV7LM": {"layer_options": {"head_dim": 2}}, "HGRN2LM": {"layer_options": {"heads": 2}},
        "XLSTMLM": {"layer_options": {"heads": 2}}, "RecurrentGemmaLM": {"attention_options": attention},
    }  # fmt: skip
    for name, options in others.items():
        model = getattr(models, name)(7, WIDTH, 3, **options)
        found += [(f"{name}, {kind}", model, masks[kind]) for kind in ("reset and lengths", "packed")]
    return found


def leaves(state: Any) -> list[torch.Tensor]:
    return [x for part in state for x in leaves(part)] if isinstance(state, tuple | list) else [state]


def like(state: Any, rng: Any) -> Any:
    """A state of small random numbers that asks for its gradient."""
    if isinstance(state, tuple | list):
        return tuple(like(x, rng) for x in state)
    x = torch.from_numpy(0.3 * rng.random(tuple(state.shape)))
    x = x + 0.5j * x if state.is_complex() else x
    return x.requires_grad_()


def run(layer: Any, mask: dict[str, Any], steps: slice, size: int, seed: int = 0) -> dict[str, Any]:
    """Outputs, last states and gradients for some steps of one sequence, of which others run the rest."""
    rng = np.random.default_rng(seed)
    params = layer.initial_parameters(seed=1, xp=torch)
    params = {
        name: (p.double() + 0.05 * torch.from_numpy(rng.normal(size=tuple(p.shape)))) for name, p in params.items()
    }
    params = {name: p.requires_grad_() for name, p in params.items()}
    batch = 1 if "cu_seqlens" in mask else BATCH
    n = len(mask["cu_seqlens"]) - 1 if "cu_seqlens" in mask else batch
    if isinstance(layer, models.LanguageModel):
        u = torch.from_numpy(rng.integers(0, layer.vocab_size, (batch, LENGTH)))[:, steps]
    else:
        width = layer.d_input if isinstance(layer, models.Model) else layer.input_width
        u = torch.from_numpy(rng.normal(size=(batch, LENGTH, width)))[:, steps].requires_grad_()
    w = torch.from_numpy(rng.normal(size=(batch, LENGTH, 1)))
    if "lengths" in mask:
        w = w * (torch.arange(LENGTH) < mask["lengths"][:, None])[..., None]
    options = {name: x[:, steps] if name == "reset" else x for name, x in mask.items()}
    both = getattr(layer, "bidirectional", False)
    state = None if both else like(layer.initial_state(params, n), rng)
    found = layer.apply(params, u, **options) if both else layer.apply(
        params, u, state=state, return_state=True, **options
    )  # fmt: skip
    y, last = (found, ()) if both else found
    everywhere = leaves(last)
    if y.ndim == 3:
        y = y * (w[:, steps] != 0)
        loss = (y * w[:, steps]).sum()
    else:
        everywhere, loss = [y, *everywhere], torch.tensor(0.0)
    for x in everywhere:  # so it counts once
        loss = loss + (x.abs() ** 2).sum() / size
    loss.backward()
    entering = leaves(state) if state is not None else []
    gradients = [*params.values(), *entering]
    return {
        "y": y.detach(),
        "last": [x.detach() for x in leaves(last)],
        "u": torch.zeros(1, LENGTH)[:, steps] if u.grad is None else u.grad,
        "everywhere": [torch.zeros_like(x) if x.grad is None else x.grad for x in gradients],
    }


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    scale = max(1.0, float(b.abs().max()) if b.numel() else 1.0)
    return float((a - b).abs().max()) / scale if b.numel() else 0.0


def compare(rank: int, cut: tuple[int, ...], some: Any, group: Any) -> dict[str, float]:
    """The worst difference of every case, relative to the largest number."""
    ends, size = np.cumsum((0, *cut)), len(cut)
    steps, worst = slice(int(ends[rank]), int(ends[rank + 1])), {}
    for name, layer, mask in some:
        whole = run(layer, mask, slice(0, LENGTH), 1)
        with distributed.sequence(group):
            part = run(layer, mask, steps, size)
        for x in part["everywhere"]:
            dist.all_reduce(x, group=group)
        alike = part["last"] if whole["y"].ndim == 3 else [part["y"], *part["last"]]
        agreed = all(same_everywhere(x, group) for x in alike)
        assert agreed, f"{name}: processes differ in what is of the whole sequence"
        y = whole["y"][:, steps] if whole["y"].ndim == 3 else whole["y"]
        pairs = [(part["y"], y), (part["u"], whole["u"][:, steps])]
        pairs += list(zip(part["last"] + part["everywhere"], whole["last"] + whole["everywhere"], strict=True))
        worst[name] = max(difference(a, b) for a, b in pairs)
    return worst


def same_everywhere(x: torch.Tensor, group: Any) -> bool:
    """Whether all processes have it bit for bit, and in the same order in memory, which is what a message copies."""
    first = x.clone()
    dist.broadcast(torch.view_as_real(first) if first.is_complex() else first, 0, group=group)
    return torch.equal(first, x)


def check(rank: int, size: int) -> None:
    """All cases over three processes; some of every kind where one has no steps, and over two."""
    everyone, two = dist.group.WORLD, dist.new_group([0, 1])
    some = [case for case in cases() if case[0].partition(",")[0] in SOME]
    worst = compare(rank, CUT, cases(), everyone)
    worst |= {f"{name}, none": found for name, found in compare(rank, NONE, some, everyone).items()}
    if rank < len(TWO):
        worst |= {f"{name}, two": found for name, found in compare(rank, TWO, some, two).items()}
    assert {name: found for name, found in worst.items() if not found < 1e-12} == {}


def count(rank: int, size: int) -> None:
    """How often a layer with a short convolution speaks to the others."""
    spoken: list[str] = []

    def counted(name: str) -> None:
        send = getattr(dist, name)
        setattr(dist, name, lambda *args, **options: [spoken.append(name), send(*args, **options)])

    names = ("all_gather_single", "reduce_scatter_single", "all_gather_into_tensor", "reduce_scatter_tensor")
    for name in names:
        if hasattr(dist, name):
            counted(name)
    layer = small("Mamba", WIDTH)
    params = {name: p.requires_grad_() for name, p in layer.initial_parameters(seed=0, xp=torch).items()}
    with distributed.sequence(dist.group.WORLD):
        y = layer.apply(params, torch.ones((1, 5, WIDTH)))
        assert len(spoken) == 2, spoken
        y.sum().backward()
    assert [name.startswith("all_gather") for name in spoken] == [True, True, False, False], spoken


def fail(rank: int, size: int) -> None:
    if rank == 1:
        raise ValueError("a process that raises")
    speak(dist.group.WORLD)


def leave(rank: int, size: int) -> None:
    """A process that stays away, and then one that dies, end the waits of the other."""
    patient, hasty = dist.new_group(), dist.new_group(timeout=timedelta(seconds=10))
    if rank == 0:
        with pytest.raises(RuntimeError, match=r"(?i)time"):
            speak(hasty)
        dist.monitored_barrier(patient)
        with pytest.raises(RuntimeError):
            speak(patient)
    else:
        dist.monitored_barrier(patient)
    os._exit(0)  # the group, with a member gone, has no orderly end


def speak(group: Any) -> None:
    layer = small("Mamba", WIDTH)
    with distributed.sequence(group):
        layer.apply(layer.initial_parameters(seed=0, xp=torch), torch.ones((1, 5, WIDTH)))
