"""What the parameters of several layers have in common: steps, complex numbers as two real ones, copies of systems."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.errors import OptionError, unknown
from .._arrays.library import Array, Namespace, widest
from .._arrays.numbers import whole as whole  # with the other checks of options
from ..systems.methods import METHODS
from .parameters import Parameter, Parameters, normal, uniform


def pairs(layer: str, d_state: int, instead: str = "") -> None:
    """Raise unless d_state is even."""
    whole(layer, d_state=d_state)
    if d_state % 2:
        raise OptionError(
            f"{layer}: d_state = {d_state} is odd, but complex poles come in conjugate pairs. "
            f"Use d_state={d_state + 1}{instead}."
        )


def check_discretization(layer: str, method: Any) -> None:
    known = [name for name, record in METHODS.items() if record.for_layers]
    if not isinstance(method, str) or method not in known:
        raise unknown(layer, "discretization", method, known)


def check_steps(layer: str, dt_min: Any, dt_max: Any) -> None:
    """Raise unless 0 < dt_min <= dt_max."""
    if not all(isinstance(x, int | float) for x in (dt_min, dt_max)) or not 0 < dt_min <= dt_max < math.inf:
        raise OptionError(f"{layer}: needs 0 < dt_min <= dt_max (dt_min: {dt_min}, dt_max: {dt_max}).")


def check_copies(layer: str, n_ssm: Any, d_model: int) -> None:
    """Raise unless n_ssm divides d_model."""
    if n_ssm is not None and (type(n_ssm) is not int or n_ssm < 1 or d_model % n_ssm):
        raise OptionError(f"{layer}: n_ssm = {n_ssm!r} must divide d_model = {d_model}.")


def log_steps(shape: int | tuple[int, ...], dt_min: float, dt_max: float) -> Parameter:
    """log_dt (n,) or of another shape, of steps that are log-uniform between the two."""
    shape = shape if isinstance(shape, tuple) else (shape,)
    return uniform("log_dt", shape, math.log(dt_min), math.log(dt_max), no_weight_decay=True)


def steps(params: Parameters, xp: Namespace) -> Array:
    """dt = exp(log_dt), as precise as the library can: long phases need its digits."""
    return xp.exp(widest(params["log_dt"], xp))


def complex_normal(name: str, shape: tuple[int, ...], std: float = 1.0) -> tuple[Parameter, Parameter]:
    """<name>_re and <name>_im of complex numbers of that standard deviation."""
    each = std * math.sqrt(0.5)
    return normal(f"{name}_re", shape, each), normal(f"{name}_im", shape, each)


def complex_of(params: Parameters, name: str) -> Array:
    """<name>_re + i <name>_im."""
    return params[f"{name}_re"] + 1j * params[f"{name}_im"]


def for_channels(x: Array, d_model: int, xp: Namespace) -> Array:
    """(S, ...) to (H, ...): channel h takes copy h mod S."""
    copies = x.shape[0]
    return x if copies == d_model else xp.tile(x, (d_model // copies, *(1,) * (x.ndim - 1)))
