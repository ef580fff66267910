"""Products with weights for JAX, whose gradients XLA computes fast on a CPU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_product = Primitive("weighted")


def affine(u: Any, weight: Any, bias: Any) -> Any:
    """Fused `ssm_core.functions.affine.affine`."""
    if u.dtype != weight.dtype or u.ndim < 2 or weight.ndim != 2 or jax.default_backend() != "cpu":
        return NotImplemented
    u, weight = jnp.asarray(u), jnp.asarray(weight)
    if _over_devices(u, weight):
        return NotImplemented
    y = _product.bind(u, weight)
    return y if bias is None else y + bias


def _over_devices(*arrays: Any) -> bool:
    """Whether devices share them by their types, or in shard_map: JAX's own product reckons with that."""
    meshes = [jax.sharding.get_abstract_mesh(), *(jax.typeof(x).sharding.mesh for x in arrays)]
    return not all(mesh.empty for mesh in meshes)


def _plain(u: Any, weight: Any) -> Any:
    return jnp.matmul(u, weight.T)


def _slope(dy: Any, u: Any, weight: Any) -> Any:
    """u^T dy, turned: of dy^T u XLA first computes dy anew, in another order, which is slow where it has many
    columns."""
    time = tuple(range(u.ndim - 1))
    return lax.dot_general(u, dy, ((time, time), ((), ()))).T


def _batched(values: Any, axes: Any) -> tuple[Any, int]:
    (u, weight), (of_u, of_weight) = values, axes
    if of_weight is None:
        return _product.bind(jnp.moveaxis(u, of_u, 0), weight), 0
    return jax.vmap(_plain, (of_u, of_weight))(u, weight), 0


_product.def_impl(jax.jit(_plain))
_product.def_abstract_eval(lambda u, weight: u.update(shape=(*u.shape[:-1], weight.shape[0])))
mlir.register_lowering(_product, mlir.lower_fun(_plain, multiple_results=False))
ad.defbilinear(_product, lambda dy, u, weight: jnp.matmul(dy, weight), _slope)
batching.primitive_batchers[_product] = _batched
