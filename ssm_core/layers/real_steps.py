"""One step of a layer in real arithmetic, for programs that have no complex numbers, such as ONNX.

A complex state x is held as (Re x, Im x), joined along its last axis; real states are as they are. The poles and the
matrices are discretized once, so a step is a few real products and the layer's own output map.
"""

from __future__ import annotations

from typing import Any

from .._arrays.errors import DTypeError, ShapeError
from .._arrays.library import is_array, is_complex, namespace
from ..recurrences.pairs import halved, joined
from .layer import Layer, Stepper
from .parameters import Parameters


def real_stepper(layer: Layer, params: Parameters, *, rate: Any = 1.0) -> Stepper:
    """`stepper` of any layer or model on real states: those that `real_state` makes of its own.

    >>> import numpy, ssm_core
    >>> from ssm_core.layers.real_steps import real_state, real_stepper
    >>> layer = ssm_core.layers.S4D(d_model=4, d_state=8)
    >>> params = layer.initial_parameters()
    >>> step, state = real_stepper(layer, params), real_state(layer.initial_state(params, batch=2))
    >>> y, state = step(numpy.ones((2, 4), numpy.float32), state)
    >>> y.shape, state.shape, state.dtype.name
    ((2, 4), (2, 4, 8), 'float32')
    """
    if not isinstance(layer, Layer):
        raise DTypeError(f"real_stepper: {layer!r} is no layer. Pass a definition, such as ssm_core.layers.S4D(4).")
    return layer.real_stepper(params, rate=rate)


def real_state(state: Any) -> Any:
    """A state of any layer with every complex array joined to (Re x, Im x); nested tuples stay nested."""
    if isinstance(state, tuple | list):
        return tuple(map(real_state, state))
    if not is_array(state):
        raise DTypeError(f"real_state: a {type(state).__name__} in the state is no array.")
    return joined(state, namespace("real_state", state=state)) if is_complex(state) else state


def layer_state(state: Any, like: Any) -> Any:
    """The inverse of `real_state`; like is any state of the layer, such as its initial one."""
    if isinstance(like, tuple | list):
        if not isinstance(state, tuple | list) or len(state) != len(like):
            raise ShapeError(f"layer_state: the state must have {len(like)} parts, as the one it should be like.")
        return tuple(layer_state(x, one) for x, one in zip(state, like, strict=True))
    return halved(state, namespace("layer_state", state=state)) if is_complex(like) else state
