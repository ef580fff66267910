"""One sequence over many processes: the same as over one, by few messages, and refused where it cannot be cut."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssm_core import layers, models
from ssm_core._arrays.errors import OptionError
from ssm_core.distributed import Shards, sequence
from tests import processes
from tests.small import NAMES, small

ALONE = Shards(1, 0, lambda x: x[None, ...], lambda length: (length,))
U = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)


def leaves(tree: Any) -> list[Any]:
    return [x for part in tree for x in leaves(part)] if isinstance(tree, tuple) else [tree]


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def of_some(rank: int, size: int, port: str, tasks: tuple[str, ...]) -> None:
    from tests import sharded

    sharded.joined(port, rank, size)
    for task in tasks:
        getattr(sharded, task)(rank, size)
    sharded.dist.destroy_process_group()


def spawned(size: int, *tasks: str) -> None:
    torch = pytest.importorskip("torch")
    torch.multiprocessing.spawn(of_some, args=(size, free_port(), tasks), nprocs=size)


def test_processes_of_torch_give_what_one_does():
    """Outputs, last states and gradients of all layers and models, with resets, lengths and packing across cuts.

    By two messages each way: the inputs that a convolution sees and the summaries, and back their gradients.
    """
    spawned(3, "check", "count")


def test_a_process_that_raises_ends_the_others():
    torch = pytest.importorskip("torch")
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="a process that raises"):
        spawned(2, "fail")


def test_processes_that_leave_end_the_waits_of_others():
    spawned(2, "leave")


def test_layers_send_two_messages():
    """Of summaries, and of inputs or positions; going both ways they begin twice."""
    for name in NAMES:
        for layer in both_ways(name):
            params, sent = layer.initial_parameters(seed=0), []

            def gather(x: Any, sent: list[Any] = sent) -> Any:
                sent.append(x.shape)
                return np.stack([x, x])

            for length in (4, 9):
                with sequence(Shards(2, 0, gather, lambda steps: (steps, steps))):
                    layer.apply(params, np.zeros((1, length, layer.input_width), np.float32))
            half = len(sent) // 2
            assert sent[:half] == sent[half:], f"{layer} sends more of more steps"
            assert half <= 2 + getattr(layer, "bidirectional", False), layer


def test_costs_are_those_of_the_page():
    from benchmarks import shards

    page = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text()
    assert shards.table() in page


def both_ways(name: str) -> list[Any]:
    layer = small(name)
    return [layer, replace(layer, bidirectional=True)] if hasattr(layer, "bidirectional") else [layer]


@pytest.mark.parametrize("mask", [None, "lengths", "cu_seqlens"])
def test_without_steps_the_messages_are_the_same(mask: str | None):
    """Their sizes, and how often gradients of them are asked for: a gather that one of all leaves out never ends."""
    torch = pytest.importorskip("torch")
    pools = [models.SequenceModel(4, 3, 4, 1, layer_options={"d_state": 4}, pool=pool) for pool in ("mean", "last")]
    liquid = small("S5", 4, liquid=True)
    for layer in [layer for name in NAMES for layer in both_ways(name)] + [*pools, liquid]:
        seen = []
        for length in (3, 0):
            sent: list[Any] = []

            class Gather(torch.autograd.Function):
                @staticmethod
                def forward(ctx: Any, x: Any, sent: list[Any] = sent) -> Any:
                    sent.append(x.shape)
                    return torch.stack([x, x])

                @staticmethod
                def backward(ctx: Any, gradient: Any, sent: list[Any] = sent) -> Any:
                    sent.append("back")
                    return gradient.sum(0)

            params = {name: p.requires_grad_() for name, p in layer.initial_parameters(seed=0, xp=torch).items()}
            packed = mask == "cu_seqlens"
            u = torch.ones(1 if packed else 2, length, getattr(layer, "input_width", 4), requires_grad=True)
            masks = {None: None, "lengths": [length + 5, 6], "cu_seqlens": [0, 2, 2, length + 5]}
            options = {} if mask is None else {mask: torch.tensor(masks[mask])}
            with_states = packed and not getattr(layer, "bidirectional", False)
            with sequence(Shards(2, 1, Gather.apply, lambda steps: (5, steps))):
                found = layer.apply(params, u, return_state=with_states, **options)
                (found[0] if with_states else found).sum().backward()
            seen.append(sent)
        assert seen[0] == seen[1], layer


def test_devices_of_jax_give_what_one_does():
    pytest.importorskip("jax")
    found = subprocess.run(
        [sys.executable, "-m", "tests.sharded_jax"], env=processes.of_jax(4), cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]


@pytest.mark.parametrize("name", NAMES)
def test_one_process_is_the_whole_sequence(name: str):
    layer = small(name)
    params = layer.initial_parameters(seed=0)
    state, u = layer.initial_state(params, 2), np.concatenate([U] * 2, axis=-1)[..., : layer.input_width]
    masks = {"lengths": np.asarray([9, 4]), "reset": np.arange(18).reshape(2, 9) % 7 == 3}
    wanted = layer.apply(params, u, state=state, return_state=True, **masks)
    with sequence(ALONE):
        found = layer.apply(params, u, state=state, return_state=True, **masks)
    for x, y in zip(leaves((found[0][:1], found[1])), leaves((wanted[0][:1], wanted[1])), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_cut_is_refused():
    layer = layers.HGRN(d_model=4)
    language = models.MambaLM(vocab_size=7, d_model=4, n_layers=1)
    with sequence(ALONE):
        with pytest.raises(OptionError, match="Leave out recompute"):
            layer.apply(layer.initial_parameters(seed=0), U, recompute=3)
        with pytest.raises(OptionError, match="outside of the block"):
            language.generate(language.initial_parameters(seed=0), np.asarray([[1, 2]]), 3)
    layer.apply(layer.initial_parameters(seed=0), U, recompute=3)


@pytest.mark.parametrize("name", ["Hyena", "S4ND", "SaShiMi"])
def test_what_sees_the_whole_sequence_is_refused(name: str):
    """Each process would silently compute the outputs of its own part."""
    axes, options = ((8, 8), {}) if name == "S4ND" else ((8,), {"pool": (2,)} if name == "SaShiMi" else {"l_max": 8})
    layer = layers.LAYERS[name](d_model=4, **options)
    params = layer.initial_parameters(seed=0)
    u = np.zeros((1, 8), np.int64) if name == "SaShiMi" else np.zeros((1, *axes, 4), np.float32)
    with (
        sequence(ALONE),
        pytest.raises(OptionError, match=rf"{name}: within ssm_core\.distributed\.sequence.*call it out"),
    ):
        layer.apply(params, u)
    layer.apply(params, u)


@pytest.mark.parametrize("over", [None, 3, U])
def test_what_is_no_group_is_refused(over: Any):
    with pytest.raises(OptionError, match=r"no process group of torch\.distributed"), sequence(over):
        pass


@pytest.mark.parametrize("xp", ["numpy", "torch"])
def test_what_arrays_cannot_be_cut_over_is_refused(xp: str):
    """An axis of JAX, of which only the arrays say that it is of another framework."""
    u = pytest.importorskip(xp).zeros((2, 9, 4))
    layer = layers.HGRN(d_model=4)
    params = layer.initial_parameters(seed=0, xp=xp)
    with sequence("time"), pytest.raises(OptionError, match=rf"'time' is no process group .*\({xp}\)"):
        layer.apply(params, u)


def test_lengths_count_the_steps_of_all():
    layer = layers.HGRN(d_model=4)
    second = Shards(2, 1, lambda x: np.stack([x, x]), lambda length: (length, length))
    with sequence(second), pytest.raises(ValueError, match=r"must lie in \[0, 18\]"):
        layer.apply(layer.initial_parameters(seed=0), U, lengths=np.asarray([19, 3]))
