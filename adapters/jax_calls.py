"""The calls of modules of Flax and of Equinox, as type checkers read them: JAX's arrays come out."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax

from ssm_core.layers.calls import Call

JaxCall: TypeAlias = Call[jax.typing.ArrayLike, jax.Array]


def calls(call: Any) -> JaxCall:
    """A `__call__`, as it is."""
    return call
