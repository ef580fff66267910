"""One step of a selective state space model with heads."""

from __future__ import annotations

from typing import Any

from .._arrays.errors import ShapeError, describe
from .._arrays.idioms import matmul
from .._arrays.library import Array, compute_dtype, in_dtype_of, namespace, real_floating, require_arrays
from .._arrays.numbers import flag
from .._arrays.values import check_finite
from ..functions.special import silu
from .checks import check_given, check_rows, steps_of
from .memory import written


def selective_state_update(
    state: Array,
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    *,
    D: Array | None = None,
    z: Array | None = None,
    dt_bias: Array | None = None,
    dt_softplus: bool = False,
) -> tuple[Array, Array]:
    """One step of the selective scan, head by head: what generation runs for every token.

    S = exp(dt A) S + dt x B^T,   y = S C + D x,   y silu(z)

    state       (batch, H, P, N)
    x, dt, z    (batch, H, P): inputs, steps and gates; dt + dt_bias, softplus of it if asked for
    A           (H, P, N), or (H,) with one gate a head as in Mamba-2
    B, C        (batch, G, N): head h uses group h // (H / G)
    D, dt_bias  (H, P) or (H,)
    returns     (y (batch, H, P) in x's dtype, the new state (batch, H, P, N)); the state given is not written to

    Mamba is the case P = 1 of as many heads as there are channels. Half precision is computed in float32.
    Raises ShapeError, DTypeError, DomainError (host values: NaN, negative steps) and MixedArraysError.
    Source: Gu and Dao, Mamba, 2023, https://arxiv.org/abs/2312.00752.

    >>> import numpy, ssm_core
    >>> one, state = numpy.ones((1, 1, 1)), numpy.ones((1, 1, 1, 1))
    >>> y, state = ssm_core.selective_state_update(state, one, one, numpy.asarray([-1.0]), one, one)
    >>> y.round(3)
    array([[[1.368]]])
    """
    operation = "selective_state_update"
    inputs = {"state": state, "x": x, "dt": dt, "A": A, "B": B, "C": C}
    inputs |= {name: v for name, v in (("D", D), ("z", z), ("dt_bias", dt_bias)) if v is not None}
    require_arrays(operation, **inputs)
    xp = namespace(operation, **inputs)
    real_floating(operation, **inputs)
    dt_softplus = flag(operation, dt_softplus=dt_softplus)
    shapes = describe(**inputs)
    if x.ndim != 3:
        raise ShapeError(f"{operation}: x must be (batch, H, P) ({shapes}).")
    batch, H, P = x.shape
    check_rows(operation, {"B": B, "C": C}, (batch,), H, shapes)
    N = B.shape[-1]
    vectors, signal = ((H, P), (H,)), ((batch, H, P),)
    wanted: dict[str, Any] = {
        "state": ((batch, H, P, N),), "dt": signal, "A": ((H, P, N), (H,)), "D": vectors, "z": signal,
        "dt_bias": vectors,
    }  # fmt: skip
    check_given(operation, inputs, wanted, shapes)
    check_finite(operation, xp, **inputs)
    dtype = compute_dtype(xp, *inputs.values())

    def wide(v: Any) -> Any:
        return None if v is None else xp.astype(v, dtype, copy=False)

    def per_head(v: Any) -> Any:
        v = wide(v)
        return v if v is None or v.ndim == 2 else v[:, None]

    steps = steps_of(operation, wide(dt), shapes, xp, bias=per_head(dt_bias), with_softplus=dt_softplus)
    rates = wide(A) if A.ndim == 3 else wide(A)[:, None, None]
    rows, columns = (xp.repeat(wide(v), H // v.shape[1], axis=1) for v in (B, C))
    state, y = rank_one_update(wide(state), steps[..., None] * rates, steps * wide(x), rows, columns)
    y = y if D is None else y + per_head(D) * wide(x)
    y = y if z is None else y * silu(wide(z))
    return in_dtype_of(x, y, xp), state


def rank_one_update(
    state: Array, log_gate: Array, x: Array, B: Array, C: Array, *, weight: Array | None = None
) -> tuple[Array, Array]:
    """S = e^g S + w x B^T and S C: the step of every selective model, whose `weight` w is 1 if None.

    S (..., P, N), log gates g and w that broadcast to it, x (..., P), B and C (..., N); returns S, and y (..., P).
    """
    xp = namespace("rank_one_update", state=state)
    state = xp.exp(log_gate) * state
    state = written(state, x, B) if weight is None else state + x[..., None] * B[..., None, :] * weight
    return state, matmul(state, C[..., None], xp)[..., 0]
