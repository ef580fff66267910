"""One step of a layer in real arithmetic, for programs that have no complex numbers, such as ONNX.

A complex state x is held as (Re x, Im x), joined along its last axis; real states are as they are. The poles and the
matrices are discretized once, so a step is a few real products and the layer's own output map.
"""

from __future__ import annotations

from typing import Any

from .._arrays.errors import DTypeError, ShapeError, describe
from .._arrays.library import (
    Array,
    Namespace,
    computable,
    in_dtype_of,
    is_array,
    is_complex,
    matmul,
    namespace,
    require_arrays,
    to_complex,
)
from ..layers import Layer, Parameters, Stepper, TimeInvariant
from ..layers.layer import check_signal
from ..recurrences.diagonal import driven, observed
from ..recurrences.pairs import halved, joined
from ..systems import records
from ..systems.conversions import dense_form
from ..systems.discretization import discretized
from ..systems.records import Diagonal
from ..time_invariant.steps import SystemStep, system_stepper
from .model import Model


def real_stepper(layer: Layer, params: Parameters, *, rate: Any = 1.0) -> Stepper:
    """`stepper` of any layer or model on real states: those that `real_state` makes of its own.

    >>> import numpy, ssm_core
    >>> from ssm_core.models.real_steps import real_state, real_stepper
    >>> layer = ssm_core.layers.S4D(d_model=4, d_state=8)
    >>> params = layer.initial_parameters()
    >>> step, state = real_stepper(layer, params), real_state(layer.initial_state(params, batch=2))
    >>> y, state = step(numpy.ones((2, 4), numpy.float32), state)
    >>> y.shape, state.shape, state.dtype.name
    ((2, 4), (2, 4, 8), 'float32')
    """
    if not isinstance(layer, Layer):
        raise DTypeError(f"real_stepper: {layer!r} is no layer. Pass a definition, such as ssm_core.layers.S4D(4).")
    if isinstance(layer, TimeInvariant):
        return _time_invariant(layer, params, rate)
    if isinstance(layer, Model):
        return layer.stepper_of(params, rate, real_stepper)
    return layer.stepper(params, rate=rate)  # their states are real


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


def _time_invariant(layer: TimeInvariant, params: Parameters, rate: Any) -> Stepper:
    initial = layer.initial_state(params, 0)  # raises where there are no states
    layer.check_rate(rate)
    params = layer.prepared(params)
    xp = namespace(layer.name, **params)
    system, dt = layer._time_first_system(params, rate, xp)
    discrete = system if system.discrete else discretized(system, dt, layer.discretization, None, xp)
    advance = _real_system_stepper(discrete, getattr(layer, "liquid", False), xp)
    maps, mixed = layer.maps(params, xp), layer.output_map.bound(params, xp)
    shape = real_state(initial).shape[1:]

    def step(u_t: Array, state: Array) -> tuple[Array, Array]:
        operation = f"{layer.name}.step"
        check_signal(operation, u_t, layer.d_model, step=True)
        require_arrays(operation, state=state)
        namespace(operation, u_t=u_t, state=state)
        if is_complex(state) or tuple(state.shape) != (u_t.shape[0], *shape):
            raise ShapeError(
                f"{operation}: state must be real ({u_t.shape[0]}, {', '.join(map(str, shape))}) "
                f"({describe(u_t=u_t, state=state)}). Make it with real_state."
            )
        u = computable(u_t, xp)
        state, v = advance(state, u if maps is None else matmul(u, xp.matrix_transpose(maps[0]), xp))
        v = v if maps is None else matmul(v, xp.matrix_transpose(maps[1]), xp)
        y = mixed(xp.permute_dims(v, (0, 2, 1)) if layer.channels > 1 else v, u)
        return in_dtype_of(u_t, y, xp), state

    return step


def _real_system_stepper(system: Any, liquid: bool, xp: Namespace) -> SystemStep:
    """A function (state, u) -> (state, C state) of a discrete system with real outputs, on (Re x, Im x)."""
    if not is_complex(records.state_field(system)):
        return system_stepper(system, xp)
    if not isinstance(system, Diagonal):
        return system_stepper(dense_form(system, xp), xp)
    rank = records.batch_rank(system)
    several_inputs = records.inputs(system, rank) is not None
    several_outputs = records.outputs(system, rank) is not None
    re, im = xp.real(system.poles), xp.imag(system.poles)
    B, C = joined(system.B, xp, axis=-2 if several_inputs else -1), to_complex(system.C, xp)
    C = xp.concat([2 * xp.real(C), -2 * xp.imag(C)], axis=-1)  # 2 Re(C x)
    n = re.shape[-1]

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        drive = driven(B, u, several_inputs, xp)
        x, y, a, b = state[..., :n], state[..., n:], re, im
        if liquid:
            a, b = a + drive[..., :n], b + drive[..., n:]
        state = xp.concat([a * x - b * y, b * x + a * y], axis=-1) + drive
        return state, observed(C, state, several_outputs, False, xp)

    return step
