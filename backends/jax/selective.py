"""The selective scan for JAX on a CPU: a loop of steps, each of which XLA makes one pass over the states."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssm_core._arrays.idioms import repeated
from ssm_core.recurrences.diagonal import steps_at_once
from ssm_core.recurrences.fold import in_chunks
from ssm_core.recurrences.segments import Segments

_matmul = partial(jnp.matmul, precision="highest")
FEWEST = 16  # steps between the states that are kept


def selective_scan(
    u: Any, dt: Any, A: Any, B: Any, C: Any, *, state: Any, segments: Segments, discretization: str, chunk: int | None
) -> Any:
    """Fused `ssm_core.gated.selective._selective_scan`; of a step its inputs alone are kept, and the state before."""
    if discretization != "mamba" or jax.default_backend() != "cpu" or A.shape[1] == 0:
        return NotImplemented
    batch, H, L = u.shape
    reset = None if segments.reset is None else segments.reset[:, None, :]
    signals, constants = {"u": u, "dt": dt, "reset": reset}, {"A": A}
    for name, rows in (("B", B), ("C", C)):
        (constants if rows.ndim == 2 else signals)[name] = rows

    def body(x: Any, v: dict[str, Any]) -> tuple[Any, Any]:
        held = {name: v.pop(name) for name in constants}

        @partial(jax.checkpoint, prevent_cse=False)
        def step(x: Any, at: dict[str, Any]) -> tuple[Any, Any]:
            return _step(x, **held, **at)

        return lax.scan(step, x, v)

    steps = max(FEWEST, steps_at_once(batch * H * A.shape[1], L, u)) if chunk is None else chunk
    return in_chunks(body, state, signals, constants, axis=-1, chunk=steps)


def _step(x: Any, *, u: Any, dt: Any, A: Any, B: Any, C: Any, reset: Any = None) -> tuple[Any, Any]:
    """The state (batch, H, N) after a step, and what is read of it (batch, H), or 2 Re of that.

    Written as products of matrices, whose adjoints are products too: XLA is slow at the sums of products that those of
    broadcasts are.
    """
    (batch, H), N = u.shape, A.shape[1]
    rates = repeated(A.reshape(1, H * N), batch).reshape(batch, H, N)
    gate = jnp.exp(_matmul(dt[..., None], jnp.ones((1, N), dt.dtype)) * rates)
    gate = gate if reset is None else jnp.where(reset[..., None], 0, gate)
    x = gate * x + _written(dt * u, B)
    y = _read(C, x)
    return x, 2 * jnp.real(y) if jnp.iscomplexobj(y) else y


def _written(v: Any, B: Any) -> Any:
    """Values (batch, H) times rows (H, N) or (batch, G, N) of groups."""
    if B.ndim == 2:
        return v[..., None] * B
    (batch, H), G = v.shape, B.shape[1]
    return _matmul(v.reshape(batch, G, H // G, 1), B[:, :, None]).reshape(batch, H, B.shape[2])


def _read(C: Any, x: Any) -> Any:
    """The sum over the states of rows (H, N) or (batch, G, N) of groups times x."""
    if C.ndim == 2:
        return jnp.sum(C * x, axis=-1)
    (batch, H, N), G = x.shape, C.shape[1]
    return _matmul(x.reshape(batch, G, H // G, N), C[..., None]).reshape(batch, H)
