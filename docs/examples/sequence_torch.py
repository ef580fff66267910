"""Train on sequences cut over processes: `torchrun --nproc-per-node 2 docs/examples/sequence_torch.py`.

The task: the mean of a noise over some twenty steps before. Every process holds its own part of all sequences.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ssm_core import adapters, linear_scan
from ssm_core.distributed import sequence


def main(steps: int = 30, length: int = 1024) -> None:
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # the same parameters and sequences everywhere
    model = adapters.torch.SequenceModel(
        1, 1, d_model=16, n_layers=2, layer="Mamba", layer_options={"d_state": 8}, pool=None
    )
    model = DistributedDataParallel(model)  # averages gradients: each loss is a mean over the steps of its process
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        u = torch.randn(4, length, 1)
        wanted = linear_scan(torch.full((1, length, 1), 0.95), 0.3 * u, axis=1)
        part, target = u.chunk(size, dim=1)[rank], wanted.chunk(size, dim=1)[rank]
        with sequence(dist.group.WORLD):
            loss = (model(part) - target).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if rank == 0 and step % 10 == 9:
            print(f"step {step + 1}: loss {float(total) / size:.3f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
