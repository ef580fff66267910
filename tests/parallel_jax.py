"""Layers and modules on arrays in shards, and their checkpoints: what the processes of `test_parallel` do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssm_core import adapters
from tests.sharded_jax import difference
from tests.small import small


def over_channels(mesh: Mesh, tree: Any) -> Any:
    """Every array in shards along its first axis, where that can be cut; else all of it on every device."""
    n = mesh.shape["channels"]

    def place(x: Any) -> Any:
        axes = ("channels",) if x.ndim and x.shape[0] % n == 0 else ()
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    return jax.tree.map(place, tree)


def shards() -> None:
    """jit with batches along one axis of a mesh and channels along the other."""
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 2), ("batch", "channels"))
    u = jnp.asarray(np.random.default_rng(0).normal(size=(4, 12, 8)), jnp.float32)
    cut = jax.device_put(u, NamedSharding(mesh, PartitionSpec("batch")))
    for name in ("S4D", "Mamba2", "GatedDeltaNet", "HGRN"):
        layer = small(name, 8)
        params = layer.initial_parameters(seed=0, xp=jnp)

        @jax.jit
        def gradients(params: Any, u: Any, layer: Any = layer) -> Any:
            return jax.value_and_grad(lambda params: (layer.apply(params, u) ** 2).mean())(params)

        found, wanted = gradients(over_channels(mesh, params), cut), gradients(params, u)
        assert max(map(difference, *map(jax.tree.leaves, (found, wanted)))) < 1e-4, name
    module = model()
    wanted = module(u)
    graph, state = nnx.split(module)
    module = nnx.merge(graph, over_channels(mesh, state))
    assert difference(nnx.jit(lambda module, u: module(u))(module, cut), wanted) < 1e-4


def model(seed: int = 0) -> Any:
    options: dict[str, Any] = {"layer": "Mamba2", "layer_options": {"d_state": 4, "head_dim": 4}}
    return adapters.flax.SequenceModel(8, 2, d_model=8, n_layers=1, rngs=nnx.Rngs(seed), **options)


def checkpointer() -> Any:
    import orbax.checkpoint as ocp

    return ocp.StandardCheckpointer()


def save(folder: str, port: str, rank: str) -> None:
    """Of one of two processes, each of which has half of the channels."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank))
    mesh = Mesh(np.asarray(jax.devices()), ("channels",))
    values = nnx.to_pure_dict(nnx.state(model(), nnx.Param))

    def place(x: Any) -> Any:
        axes = ("channels",) if x.ndim and x.shape[0] % 2 == 0 else ()
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, NamedSharding(mesh, PartitionSpec(*axes)), lambda i: host[i])

    with checkpointer() as writer:
        writer.save(Path(folder).resolve() / "checkpoint", jax.tree.map(place, values))


def load(folder: str) -> None:
    """In one process, into another model."""
    wanted, found = model(), model(seed=1)
    like = jax.tree.map(as_shape, nnx.to_pure_dict(nnx.state(found, nnx.Param)))
    with checkpointer() as reader:
        values = reader.restore(Path(folder).resolve() / "checkpoint", like)
    state = nnx.state(found, nnx.Param)
    nnx.replace_by_pure_dict(state, values)
    nnx.update(found, state)
    u = jnp.ones((2, 5, 8))
    assert difference(found(u), wanted(u)) == 0


def as_shape(x: Any) -> Any:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
