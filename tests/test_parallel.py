"""Training in several processes: the tools of PyTorch, JAX and others, each against one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.test_distributed import free_port

TRAINERS = ("accelerate", "lightning")


def spawned(folder: Path, *tasks: str) -> None:
    torch = pytest.importorskip("torch")
    from tests import parallel

    torch.multiprocessing.spawn(parallel.of_two, args=(free_port(), str(folder), tasks), nprocs=parallel.SIZE)


def test_tools_of_torch_over_two_processes(tmp_path: Path):
    """DDP, FSDP1, FSDP2, plans of tensors, with one sequence over them, and a checkpoint that one process reads."""
    spawned(tmp_path, "data_parallel", "sharded_parameters", "tensor_parallel", "sequence_parallel", "checkpoints")
    from tests import parallel

    parallel.check_checkpoint(tmp_path)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainers_over_two_processes(trainer: str, tmp_path: Path):
    pytest.importorskip(trainer, reason=f"{trainer} is not installed")
    spawned(tmp_path, trainer)


def of_jax(devices: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.parallel_jax", *arguments], env=processes.of_jax(devices),
        cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_shards_of_arrays_over_devices_of_jax():
    """Batches and channels over a mesh, by jit alone."""
    pytest.importorskip("flax")
    run = of_jax(4, "shards")
    _, said = run.communicate(timeout=1200)
    assert run.returncode == 0, said[-2000:]


def test_orbax_of_two_processes_in_one(tmp_path: Path):
    pytest.importorskip("orbax.checkpoint", reason="orbax is not installed")
    port = free_port()
    runs = [of_jax(1, "save", str(tmp_path), port, str(rank)) for rank in range(2)]
    for run in runs:
        _, said = run.communicate(timeout=1200)
        assert run.returncode == 0, said[-2000:]
    run = of_jax(1, "load", str(tmp_path))
    _, said = run.communicate(timeout=1200)
    assert run.returncode == 0, said[-2000:]
