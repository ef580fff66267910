"""Products with weights for JAX, whose gradients XLA computes fast on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def bilinear(
    name: str,
    product: Callable[[Any, Any], Any],
    shape: Callable[[Any, Any], tuple[int, ...]],
    slope_of_signal: Callable[[Any, Any], Any],
    slope_of_weight: Callable[[Any, Any], Any],
) -> Callable[[Any, Any], Any]:
    """A product of a signal (..., rows, columns) and a weight whose transposes are given, instead of what JAX derives.

    The slope of the signal is of (dy, weight), that of the weight of (dy, signal).
    """
    primitive = Primitive(name)

    def batched(values: Any, axes: Any) -> tuple[Any, int]:
        (x, weight), (of_x, of_weight) = values, axes
        if of_weight is None:
            return primitive.bind(jnp.moveaxis(x, of_x, 0), weight), 0
        return jax.vmap(product, (of_x, of_weight))(x, weight), 0

    primitive.def_impl(jax.jit(product))
    primitive.def_abstract_eval(lambda x, weight: x.update(shape=shape(x, weight)))
    mlir.register_lowering(primitive, mlir.lower_fun(product, multiple_results=False))
    ad.defbilinear(
        primitive, lambda dy, _, weight: slope_of_signal(dy, weight), lambda dy, x, _: slope_of_weight(dy, x)
    )
    batching.primitive_batchers[primitive] = batched
    return primitive.bind


def suited(x: Any, weight: Any) -> bool:
    """Whether it is worth it: on a CPU, which no devices share."""
    return x.dtype == weight.dtype and jax.default_backend() == "cpu" and not _over_devices(x, weight)


def affine(u: Any, weight: Any, bias: Any) -> Any:
    """Fused `ssm_core.functions.affine.affine`."""
    if u.ndim < 2 or weight.ndim != 2 or not suited(u, weight):
        return NotImplemented
    y = _product(jnp.asarray(u), jnp.asarray(weight))
    return y if bias is None else y + bias


def _over_devices(*arrays: Any) -> bool:
    """Whether devices share them by their types, or in shard_map: JAX's own product reckons with that."""
    meshes = [jax.sharding.get_abstract_mesh(), *(jax.typeof(jnp.asarray(x)).sharding.mesh for x in arrays)]
    return not all(mesh.empty for mesh in meshes)


def _plain(u: Any, weight: Any) -> Any:
    return jnp.matmul(u, weight.T)


def _slope_of_weight(dy: Any, u: Any) -> Any:
    """u^T dy, turned: of dy^T u XLA first computes dy anew, in another order, which is slow where it has many
    columns."""
    time = tuple(range(u.ndim - 1))
    return lax.dot_general(u, dy, ((time, time), ((), ()))).T


_product = bilinear(
    "weighted",
    _plain,
    lambda u, weight: (*u.shape[:-1], weight.shape[0]),
    jnp.matmul,
    _slope_of_weight,
)
