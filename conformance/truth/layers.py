"""Layers as plain loops in NumPy float64, sequence by sequence and step by step.

Of ssm_core only the names of options and parameters. A layer writes its recurrence once, as a `System` that does not
change with time or as `Steps` that depend on the input; every cut in time is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .gated import sequences
from .systems import discretize

Array = np.ndarray
States = tuple[Array, ...]
Params = dict[str, Array]
Options = dict[str, Any]


def same(x: Any) -> Any:
    return x


@dataclass(frozen=True)
class Steps:
    """A layer for one sequence: advance(u (H,), states, scale) -> (y (width,), states).

    scale multiplies dt: a number, or (H,). `enter` takes the states that the library keeps, without the batch, to those
    of the loop, whose shapes are given; `leave` takes them back.
    """

    advance: Callable[[Array, States, Any], tuple[Array, States]]
    shapes: tuple[tuple[int, ...], ...]
    width: int
    enter: Callable[[States], States] = same
    leave: Callable[[States], States] = same


@dataclass(frozen=True)
class System:
    """A recurrence that does not change with time: advance(x, u (H,), scale) -> x, observe(x) -> (rows, H).

    x is a full state of this shape: conjugate pairs are written out; `full` and `stored` go from the state that the
    library keeps and back.
    """

    advance: Callable[[Array, Array, Any], Array]
    observe: Callable[[Array], Array]
    shape: tuple[int, ...]
    full: Callable[[Array], Array] = same
    stored: Callable[[Array], Array] = same


def run(
    steps: Steps,
    u: Array,
    state: States | None = None,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
    cu_seqlens: Array | None = None,
    rate: Any = 1.0,
    step_scale: Array | None = None,
) -> tuple[Array, States]:
    """y (B, L, width) for u (B, L, H), zero beyond the lengths, and the last state of every sequence."""
    y, last = np.zeros((*u.shape[:2], steps.width)), []
    for i, (row, part) in enumerate(sequences(*u.shape[:2], lengths=lengths, cu_seqlens=cu_seqlens)):
        zero = tuple(np.zeros(shape) for shape in steps.shapes)
        now = zero if state is None else steps.enter(tuple(s[i] for s in state))
        for k in part:
            now = zero if reset is not None and reset[row, k] else now
            y[row, k], now = steps.advance(u[row, k], now, rate if step_scale is None else rate * step_scale[row, k])
        last.append(steps.leave(now))
    return y, tuple(np.stack(parts) for parts in zip(*last, strict=True))


# Time-invariant layers -----------------------------------------------------------------------------------------------

WITHOUT: Options = {"skip": False, "channels": 1}  # what a layer has no option for
erf = np.vectorize(math.erf, otypes=[float])

ACTIVATIONS: dict[Any, Any] = {
    "gelu": lambda v: v / 2 * (1 + erf(v / math.sqrt(2))),
    "gelu_tanh": lambda v: v / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    "silu": lambda v: v / (1 + np.exp(-v)),
    "relu": lambda v: np.maximum(v, 0),
    "tanh": np.tanh,
    None: same,
}


def mixed(options: Options, params: Params, v: Array, u: Array) -> Array:
    """activation(v + D u), channels joined, through the output map; v (..., channels, H), u (..., H)."""
    v = v + params["D"] * u[..., None, :] if options["skip"] else v
    passed = v.reshape(*v.shape[:-2], -1)
    v = ACTIVATIONS[options["activation"]](passed)
    if options["output"] is None:
        return v
    w = v @ params["output_weight"].T + params["output_bias"]
    if options["output"] in ("half_glu", "half_glu2"):
        return (v if options["output"] == "half_glu" else passed) / (1 + np.exp(-w))
    v, half = w, options["d_model"]
    return v[..., :half] / (1 + np.exp(-v[..., half:])) if options["output"] == "glu" else v


def steps_of(system: System, options: Options, params: Params) -> Steps:
    """The system, and the mixer behind it."""
    options = WITHOUT | options

    def advance(u: Array, states: States, scale: Any) -> tuple[Array, States]:
        x = system.advance(states[0], u, scale)
        return mixed(options, params, system.observe(x), u), (x,)

    return Steps(
        advance,
        (system.shape,),
        options["d_model"] * (options["channels"] if options["output"] is None else 1),
        lambda states: (system.full(states[0]),),
        lambda states: (system.stored(states[0]),),
    )


def kernel(system: System, width: int, length: int, rate: Any = 1.0) -> Array:
    """(rows, H, L) of a system a channel: the answers to an impulse in every channel."""
    x, taps = np.zeros(system.shape), []
    for k in range(length):
        x = system.advance(x, np.full(width, float(k == 0)), rate)
        taps.append(system.observe(x))
    return np.stack(taps, axis=-1)


def both_directions(
    system: System, options: Options, params: Params, u: Array, lengths: Array | None = None, *, joint: bool
) -> Array:
    """A system a channel: the second half of C on the future from the next sample on. The joint ones: a second run."""
    options = WITHOUT | options
    channels, (B, L, H) = options["channels"], u.shape
    u = u if lengths is None else np.where((np.arange(L) < lengths[:, None])[..., None], u, 0)
    if joint:
        v = _observed(system, u)[:, :, :1] + _observed(system, u[:, ::-1])[:, ::-1, 1:]
        return mixed(options, params, v, u)
    K = kernel(system, H, L)
    v = np.zeros((B, L, channels, H))
    for t in range(L):
        for j in range(L):
            tap = K[:channels, :, t - j] if j <= t else K[channels:, :, j - t - 1]
            v[:, t] += tap * u[:, j, None, :]
    return mixed(options, params, v, u)


def _observed(system: System, u: Array) -> Array:
    """(B, L, rows, H) of whole sequences from zero states."""
    rows = []
    for sequence in u:
        x = np.zeros(system.shape)
        rows.append([system.observe(x := system.advance(x, u_k, 1.0)) for u_k in sequence])
    return np.asarray(rows)


def complex_of(params: Params, name: str) -> Array:
    return params[f"{name}_re"] + 1j * params[f"{name}_im"]


def copies(x: Array, options: Options) -> Array:
    """Copy h mod S for channel h."""
    return x[np.arange(options["d_model"]) % len(x)]


def with_conjugates(x: Array) -> Array:
    return np.concatenate([x, x.conj()], axis=-1)


def of_matrices(A: Array, B: Array, C: Array, dt: Array, method: str, full: Any = same, stored: Any = same) -> System:
    """One system a channel with full matrices: A (H, M, M), B (H, M), C (rows, H, M), dt (H,)."""
    found: dict[bytes, Any] = {}

    def advance(x: Array, u: Array, scale: Any) -> Array:
        steps = np.broadcast_to(dt * scale, dt.shape)
        key = steps.tobytes()
        if key not in found:
            found[key] = discretize(A, B[..., None], steps, method)
        Ab, Bb = found[key]
        return (Ab @ x[..., None])[..., 0] + Bb[..., 0] * u[:, None]

    def observe(x: Array) -> Array:
        y = np.einsum("rhm,hm->rh", C, x)
        assert not np.iscomplexobj(y) or np.abs(y.imag).max() <= 1e-9 * (1 + np.abs(y.real).max())
        return y.real

    return System(advance, observe, (len(dt), A.shape[-1]), full, stored)


# Gated layers --------------------------------------------------------------------------------------------------------


def linear(params: Params, prefix: str, x: Array) -> Array:
    return x @ params[f"{prefix}weight"].T + params.get(f"{prefix}bias", 0.0)


def under(params: Params, prefix: str) -> Params:
    """The parameters of a part, by their names in it."""
    return {name.removeprefix(prefix): p for name, p in params.items() if name.startswith(prefix)}
