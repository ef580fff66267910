"""The same sequence over four devices of JAX: `python docs/examples/sequence_jax.py`."""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from ssm_core import layers
from ssm_core.distributed import sequence

MESH, CUT = Mesh(np.asarray(jax.devices()), ("time",)), PartitionSpec(None, "time")
LAYER = layers.Mamba2(d_model=8, d_state=8, head_dim=8)


@partial(jax.shard_map, mesh=MESH, in_specs=(PartitionSpec(), CUT), out_specs=CUT)
def run(params: Any, u: jax.Array) -> jax.Array:
    with sequence("time"):
        return LAYER.apply(params, u)


def main() -> None:
    params = LAYER.initial_parameters(seed=0, xp=jnp)
    u = jax.random.normal(jax.random.key(0), (2, 256, 8))
    gradients = jax.jit(jax.grad(lambda params: run(params, u).sum()))(params)
    wanted = jax.jit(jax.grad(lambda params: LAYER.apply(params, u).sum()))(params)
    print(max(float(jnp.abs(gradients[name] - wanted[name]).max()) for name in wanted))


if __name__ == "__main__":
    main()
