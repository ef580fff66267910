"""The devices along an axis of shard_map, each with a part of a sequence."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax import lax

from ssm_core.recurrences.shards import Shards


def shards(axis: Any) -> Any:
    """Those along an axis, by its name; NotImplemented for anything else."""
    if not isinstance(axis, str):
        return NotImplemented
    size = lax.axis_size(axis)
    return Shards(size, lax.axis_index(axis), partial(lax.all_gather, axis_name=axis), lambda length: (length,) * size)


def varying(tree: Any, others: Any) -> Any:
    """The tree, of a type that varies along all axes of shard_map that some of the others vary along.

    What a loop carries has one type: a state of zeros does not vary, and the state after a step does.
    """
    axes = frozenset[str]().union(*map(_axes_of, jax.tree.leaves(others)))

    def vary(x: Any) -> Any:
        missing = tuple(sorted(axes - _axes_of(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, tree) if axes else tree


def _axes_of(x: Any) -> frozenset[str]:
    """The axes of shard_map that an array varies along; the releases of jax 0.10 call them by two names."""
    kind = jax.typeof(x)
    found: frozenset[str] = kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma
    return found
