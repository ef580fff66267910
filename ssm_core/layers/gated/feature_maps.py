"""Feature maps of keys and queries, in place of the exponential of the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..._arrays.errors import unknown
from ..._arrays.idioms import clip
from ..._arrays.library import Array, Namespace
from ...functions.special import activation


def _elu(x: Array, xp: Namespace) -> Array:
    """elu(x) + 1, which is positive: e^x below 0."""
    return xp.exp(clip(x, -math.inf, 0.0)) + activation("relu")(x)


def _softmax(x: Array, xp: Namespace) -> Array:
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


FEATURE_MAPS: dict[str | None, Callable[[Array, Any], Array]] = {
    "elu": _elu,
    "relu": lambda x, xp: activation("relu")(x),
    "silu": lambda x, xp: activation("silu")(x),
    "softmax": _softmax,
    None: lambda x, xp: x,
}


def check_feature_map(layer: str, name: Any) -> None:
    """Raise unless it is the name of one."""
    if not isinstance(name, str | None) or name not in FEATURE_MAPS:
        raise unknown(layer, "feature_map", name, FEATURE_MAPS)
