"""Layers over the devices of a mesh against one device: outputs and gradients. A process of its own runs it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from ssm_core import distributed
from tests.small import small

LENGTH, WIDTH = 24, 4
NAMES = ("HGRN", "S4D")  # programs of others take minutes to compile
WHOLE, CUT = PartitionSpec(), PartitionSpec(None, "time")


def mesh(devices: int | None = None) -> Mesh:
    """Of all of them, or of the first ones."""
    return Mesh(np.asarray(jax.devices()[:devices]), ("time",))


def compare(layer: Any, u: Any, devices: int | None = None, **masks: Any) -> float:
    """The largest difference of the outputs, the last state and the gradients."""
    params = layer.initial_parameters(seed=1, xp=jnp)
    params = {name: p.astype(jnp.float64) for name, p in params.items()}

    def run(params: Any, u: Any) -> Any:
        return layer.apply(params, u, return_state=True, **masks)

    def cut(params: Any, u: Any) -> Any:
        with distributed.sequence("time"):
            return run(params, u)

    # Last states are the same on all devices, which JAX cannot know of what has been gathered.
    specs = {"in_specs": (WHOLE, CUT), "out_specs": (CUT, WHOLE), "check_vma": False}
    cut = jax.shard_map(cut, mesh=mesh(devices), **specs)
    found = [loss_and_gradients(f)(params, u) for f in (run, cut)]
    state = jax.tree.leaves(found[1][0][1][1])
    assert all(map(same_everywhere, state)), f"devices differ in the last state of {layer}"
    one, many = map(jax.tree.leaves, found)
    return max(difference(a, b) for a, b in zip(one, many, strict=True))


def same_everywhere(x: jax.Array) -> bool:
    """Whether all devices have it bit for bit."""
    first, *others = (np.asarray(shard.data) for shard in x.addressable_shards)
    return bool(others) and all(np.array_equal(first, other) for other in others)


def difference(a: jax.Array, b: jax.Array) -> float:
    """The largest of all, on the host: arrays of one device and of all do not meet on a device."""
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))))


def loss_and_gradients(run: Any) -> Any:
    def loss(params: Any, u: Any) -> Any:
        y, state = run(params, u)
        weights = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
        return (weights * y).sum() + sum((jnp.abs(x) ** 2).sum() for x in jax.tree.leaves(state)), (y, state)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def compare_types(layer: Any, u: Any) -> float:
    """Outputs alone, where JAX checks how they vary over the devices."""
    params = layer.initial_parameters(seed=1, xp=jnp)

    @partial(jax.shard_map, mesh=mesh(), in_specs=(WHOLE, CUT), out_specs=CUT)
    def cut(params: Any, u: Any) -> Any:
        with distributed.sequence("time"):
            return layer.apply(params, u)

    return difference(cut(params, u), layer.apply(params, u))


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    u = jnp.asarray(np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)))
    for name in NAMES:
        assert compare(small(name, WIDTH), u) < 1e-11, name
        assert compare_types(small(name, WIDTH), u) < 1e-5, name
    assert compare(small("S4D", WIDTH), u, devices=2) < 1e-11
    lengths, packed = jnp.asarray([LENGTH, 7]), jnp.asarray([0, 5, 5, 17, LENGTH])
    for devices in (2, 4):
        assert compare(small("HGRN", WIDTH), u, devices, lengths=lengths) < 1e-11
        assert compare(small("HGRN", WIDTH), u[:1], devices, cu_seqlens=packed) < 1e-11


if __name__ == "__main__":
    main()
