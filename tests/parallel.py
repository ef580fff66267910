"""Modules with PyTorch's tools for several processes, against one process: what the processes of `test_parallel` do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from ssm_core.adapters import torch as T
from ssm_core.distributed import sequence
from tests.sharded import joined

SIZE, LENGTH = 2, 12


def model(pool: str | None = "mean") -> Any:
    torch.manual_seed(0)
    options = {"layer": "Mamba", "layer_options": {"d_state": 4}, "channel_mix": "mlp", "pool": pool}
    return T.SequenceModel(3, 2, d_model=8, n_layers=2, **options)


def language_model() -> Any:
    torch.manual_seed(0)
    return T.MambaLM(11, d_model=8, n_layers=2, layer_options={"d_state": 4})


def batch() -> tuple[Any, Any]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(4, LENGTH, 3, generator=draws), torch.randint(0, 2, (4,), generator=draws)


def loss_of(module: Any, u: Any, label: Any) -> Any:
    return torch.nn.functional.cross_entropy(module(u), label)


def wanted_gradients() -> dict[str, Any]:
    """Of the whole batch in one process."""
    plain = model()
    loss_of(plain, *batch()).backward()
    return gradients(plain)


def gradients(module: Any) -> dict[str, Any]:
    """By the names that the parameters have without wrappers; of shards all of it."""
    found = {}
    for name, p in module.named_parameters():
        for wrapper in ("_checkpoint_wrapped_module.", "_fsdp_wrapped_module.", "_orig_mod.", "module."):
            name = name.replace(wrapper, "")
        found[name] = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
    return found


def assert_gradients(module: Any) -> None:
    torch.testing.assert_close(gradients(module), wanted_gradients(), rtol=1e-4, atol=1e-6)


def rows(rank: int, of: int = SIZE) -> slice:
    n = 4 // of
    return slice(rank * n, (rank + 1) * n)


def data_parallel(rank: int, mesh: Any, folder: Path) -> None:
    """DDP: at once, by gradients of two pieces, with blocks computed again, and compiled."""
    u, label = batch()
    mine = rows(rank)
    for compiled, again in ((False, False), (False, True), (True, False)):
        module = model()
        if again:
            module.blocks = torch.nn.ModuleList(map(checkpoint_wrapper, module.blocks))
        module = DistributedDataParallel(module)
        run = torch.compile(module, backend="aot_eager") if compiled else module
        loss_of(run, u[mine], label[mine]).backward()
        assert_gradients(module)
    module = DistributedDataParallel(model())
    first, second = slice(2 * rank, 2 * rank + 1), slice(2 * rank + 1, 2 * rank + 2)
    with module.no_sync():
        (loss_of(module, u[first], label[first]) / 2).backward()
    (loss_of(module, u[second], label[second]) / 2).backward()
    assert_gradients(module)


def sharded_parameters(rank: int, mesh: Any, folder: Path) -> None:
    """FSDP2 and FSDP1, with blocks computed again and gradients of two pieces."""
    u, label = batch()
    mine = rows(rank)
    module = model()
    for i, block in enumerate(module.blocks):
        module.blocks[i] = checkpoint_wrapper(block)
        fully_shard(module.blocks[i], mesh=mesh)
    fully_shard(module, mesh=mesh)
    for last in (False, True):
        module.set_requires_gradient_sync(last)
        piece = slice(2 * rank + last, 2 * rank + last + 1)
        (loss_of(module, u[piece], label[piece]) / 2).backward()
    assert_gradients(module)
    module = FullyShardedDataParallel(model(), device_id=torch.device("cpu"), use_orig_params=True)
    loss_of(module, u[mine], label[mine]).backward()
    with FullyShardedDataParallel.summon_full_params(module, with_grads=True):
        assert_gradients(module)


def tensor_parallel(rank: int, mesh: Any, folder: Path) -> None:
    """Plans for maps of layers and of models: the whole batch everywhere, parameters in shards."""
    columns, across = ColwiseParallel(output_layouts=Replicate()), RowwiseParallel(input_layouts=Replicate())
    plan: dict[str, Any] = {"encoder": columns, "head": across}
    for i in range(2):
        plan |= {f"blocks.{i}.layer.in_proj": columns, f"blocks.{i}.layer.out_proj": across}
        plan |= {f"blocks.{i}.channel_mix.{name}": way for name, way in mlp_plan().items()}
    module = parallelize_module(model(), mesh, plan)
    layer = module.blocks[0].layer
    assert isinstance(layer.in_proj_weight, DTensor)
    assert layer.in_proj_weight.to_local().shape[0] * SIZE == layer.in_proj_weight.shape[0]
    u, label = batch()
    torch.testing.assert_close(module(u), model()(u), rtol=1e-4, atol=1e-5)
    loss_of(module, u, label).backward()
    assert_gradients(module)
    y, _ = module.step(u[:, 0], module.initial_state(4))
    torch.testing.assert_close(y, model().step(u[:, 0], model().initial_state(4))[0], rtol=1e-4, atol=1e-5)
    T.save(module, folder / f"planned {rank}")
    torch.testing.assert_close(T.load(folder / f"planned {rank}")(u), model()(u), rtol=1e-4, atol=1e-5)


def mlp_plan() -> dict[str, Any]:
    names = [name for name, _ in model().blocks[0].channel_mix.named_children()]
    return {names[0]: ColwiseParallel(), names[-1]: RowwiseParallel()}


def sequence_parallel(rank: int, mesh: Any, folder: Path) -> None:
    """One sequence over the processes with DDP, FSDP2 and blocks computed again: all average a loss that all have."""
    u, label = batch()
    part = u[:, :5] if rank == 0 else u[:, 5:]
    modules = {"ddp": DistributedDataParallel(model()), "fsdp": fully_shard(model(), mesh=mesh)}
    again = model()
    again.blocks = torch.nn.ModuleList(map(checkpoint_wrapper, again.blocks))
    modules["again"] = DistributedDataParallel(again)
    for name, module in modules.items():
        with sequence(mesh):
            loss = loss_of(module, part, label)
            loss.backward()
        torch.testing.assert_close(loss, loss_of(model(), u, label), msg=name)
        assert_gradients(module)


def checkpoints(rank: int, mesh: Any, folder: Path) -> None:
    """Weights and Adam's moments of shards into a folder of torch.distributed.checkpoint."""
    u, label = batch()
    module = fully_shard(model(), mesh=mesh)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2, eps=1e-2)
    loss_of(module, u[rows(rank)], label[rows(rank)]).backward()
    optimizer.step()
    weights, moments = get_state_dict(module, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=folder / "checkpoint")


def check_checkpoint(folder: Path) -> None:
    """What `checkpoints` has written, read by one process into plain modules."""
    found = model()
    with torch.no_grad():
        for p in found.parameters():
            p.zero_()
    optimizer = torch.optim.Adam(found.parameters(), 1e-2, eps=1e-2)
    weights, moments = get_state_dict(found, optimizer)
    with pytest.warns(UserWarning, match="load in a single process"):  # which is what is meant
        dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=folder / "checkpoint")
    set_state_dict(found, optimizer, model_state_dict=weights, optim_state_dict=moments)
    wanted = model()
    other = torch.optim.Adam(wanted.parameters(), 1e-2, eps=1e-2)
    for module, its in ((wanted, other), (wanted, other), (found, optimizer)):  # one update before, one behind
        its.zero_grad()
        loss_of(module, *batch()).backward()
        its.step()
    for (name, p), q in zip(wanted.named_parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-4, atol=1e-5, msg=name)


def updated() -> dict[str, Any]:
    """The weights after one step against the gradient of the whole batch, in one process."""
    wanted = wanted_gradients()
    return {name: p.detach() - wanted[name] for name, p in model().named_parameters()}


def accelerate(rank: int, mesh: Any, folder: Path) -> None:
    """One update through an Accelerator, of half a batch in every process."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    module = model()
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch()), batch_size=2)
    module, optimizer, loader = accelerator.prepare(module, optimizer, loader)
    assert accelerator.num_processes == SIZE
    for u, label in loader:
        accelerator.backward(loss_of(module, u, label))
        optimizer.step()
    found = dict(accelerator.unwrap_model(module).named_parameters())
    torch.testing.assert_close(found, updated(), rtol=1e-4, atol=1e-6)


def lightning(rank: int, mesh: Any, folder: Path) -> None:
    """One update by a Trainer, of half a batch in every process."""
    import lightning as L

    class Training(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model()

        def training_step(self, batch: Any, _: int) -> Any:
            return loss_of(self.model, *batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1.0)

    module = Training()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch()), batch_size=2)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", devices=SIZE, strategy="ddp", max_steps=1, default_root_dir=folder, **quiet)
    trainer.fit(module, loader)
    assert trainer.world_size == SIZE
    torch.testing.assert_close(dict(module.model.named_parameters()), updated(), rtol=1e-4, atol=1e-6)


TASKS = (
    data_parallel, sharded_parameters, tensor_parallel, sequence_parallel, checkpoints, accelerate, lightning,
)  # fmt: skip


def of_two(rank: int, port: str, folder: str, names: tuple[str, ...]) -> None:
    joined(port, rank, SIZE, seconds=300)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    mesh = dist.device_mesh.init_device_mesh("cpu", (SIZE,))
    for task in TASKS:
        if task.__name__ in names:
            task(rank, mesh, Path(folder))
            dist.barrier()
    dist.destroy_process_group()
