"""The selective scan for JAX: a loop of steps, each of which XLA makes one pass over the states.

On a CPU it runs from the first step to the last. Elsewhere, where launching a step costs more than its arithmetic,
blocks of time run side by side, as further sequences of the batch, and a turn of a loop has several steps: a first loop
gives what every block makes of a state of zero, s, and with the product of its gates, P = exp(A sum_k dt_k), the states
between blocks are the recurrence x = P x + s; a second one reads the outputs, each block from the state before it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssm_core._arrays.idioms import repeated
from ssm_core.recurrences.diagonal import steps_at_once
from ssm_core.recurrences.fold import in_chunks
from ssm_core.recurrences.segments import Segments

from .blocks import before
from .scans import states_between
from .shards import varying

FEWEST = 16  # steps between the states that are kept, on a CPU
STEPS = 32  # between those that are kept elsewhere; no block has fewer
UNROLL = 4  # steps of a turn there, which read and write the states once
WIDE = 2**22  # states that fill a GPU and stay in its cache: time is cut into no more blocks than make as many

_matmul = partial(jnp.matmul, precision="highest")


def selective_scan(
    u: Any, dt: Any, A: Any, B: Any, C: Any, *, state: Any, segments: Segments, discretization: str, chunk: int | None
) -> Any:
    """Fused `ssm_core.gated.selective._selective_scan`; of a step its inputs alone are kept, and of some the state."""
    if discretization != "mamba" or A.shape[1] == 0:
        return NotImplemented
    reset = None if segments.reset is None else segments.reset[:, None, :]
    signals, constants = {"u": u, "dt": dt, "reset": reset}, {"A": A}
    for name, rows in (("B", B), ("C", C)):
        (constants if rows.ndim == 2 else signals)[name] = rows
    batch, H, L = u.shape
    if jax.default_backend() == "cpu":
        steps = max(FEWEST, steps_at_once(batch * H * A.shape[1], L, u)) if chunk is None else chunk
        return _stepped(state, signals, constants, chunk=steps, products=True)
    if not all(isinstance(n, int) for n in (batch, H, L)):
        return NotImplemented  # symbols, which no block divides
    return _in_blocks(state, {name: x for name, x in signals.items() if x is not None}, constants, chunk or STEPS)


def _in_blocks(state: Any, signals: dict[str, Any], constants: dict[str, Any], chunk: int) -> tuple[Any, Any]:
    """y and the last state, by blocks of T steps of all sequences, which are (blocks, batch) sequences of that length;
    the last one is filled up with steps of no duration."""
    (batch, H, L), width = signals["u"].shape, max(1, state.size)
    least = min(chunk, STEPS)
    T = math.ceil(L / max(1, min(L // STEPS, WIDE // width)))
    T = least * math.ceil(T / least)
    blocks = math.ceil(L / T)

    def cut(x: Any) -> Any:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, blocks * T - L)]).reshape(*x.shape[:-1], blocks, T)
        return jnp.moveaxis(x, -2, 0).reshape(blocks * batch, *x.shape[1:-2], T)

    signals = {name: cut(x) for name, x in signals.items()}
    loop = partial(_stepped, signals=signals, constants=constants, chunk=chunk, unroll=UNROLL)
    starts = state[None]
    if blocks > 1:
        zero = jnp.zeros((blocks * batch, *state.shape[1:]), state.dtype)
        s = loop(zero, read=False)[1].reshape(blocks, *state.shape)
        P = _passed(signals["dt"], constants["A"], signals.get("reset"))
        P, s, first = varying((P.reshape(s.shape), s, state), (P, s, state))
        starts = before(first, states_between(P, s, first), 0, False)
    y, last = loop(starts.reshape(blocks * batch, *state.shape[1:]))
    y = jnp.moveaxis(y.reshape(blocks, batch, H, T), 0, 2).reshape(batch, H, blocks * T)
    return y[..., :L], last.reshape(blocks, *state.shape)[-1]


def _passed(dt: Any, A: Any, reset: Any) -> Any:
    """The product of the gates of blocks, of dt (blocks, H, T); an overflow is infinite, and has no slope."""
    w = jnp.sum(dt, axis=-1)[..., None] * A
    over = jnp.real(w) > math.log(jnp.finfo(w.dtype).max)
    P = jnp.where(over, jnp.inf, jnp.exp(jnp.where(over, 0, w)))
    return P if reset is None else jnp.where(jnp.any(reset, axis=-1)[..., None], 0, P)


def _stepped(
    state: Any,
    signals: dict[str, Any],
    constants: dict[str, Any],
    *,
    chunk: int,
    products: bool = False,
    unroll: int = 1,
    read: bool = True,
) -> tuple[Any, Any]:
    """y (batch, H, L), or of no channels where nothing is read, and the last state, by a loop of steps."""

    def body(x: Any, v: dict[str, Any]) -> tuple[Any, Any]:
        held = {name: v.pop(name) for name in constants}
        if not read:
            (held if "C" in held else v).pop("C")

        def one(x: Any, at: dict[str, Any]) -> tuple[Any, Any]:
            return _step(x, **held, **at, products=products)

        again = partial(jax.checkpoint, prevent_cse=False)
        if unroll == 1:
            return lax.scan(again(one), x, v)
        count = v["u"].shape[0]
        each = next(n for n in range(unroll, 0, -1) if count % n == 0)
        turn = again(partial(lax.scan, one, unroll=True))
        x, y = lax.scan(turn, x, {name: s.reshape(count // each, each, *s.shape[1:]) for name, s in v.items()})
        return x, y.reshape(count, *y.shape[2:])

    return in_chunks(body, state, signals, constants, axis=-1, chunk=chunk)


def _step(
    x: Any, *, u: Any, dt: Any, A: Any, B: Any, C: Any = None, reset: Any = None, products: bool = False
) -> tuple[Any, Any]:
    """The state (batch, H, N) after a step, and what is read of it (batch, H), or 2 Re of that.

    As `products` of matrices, whose adjoints are products too: on a CPU XLA is slow at the sums of products that those
    of broadcasts are.
    """
    rates, written, read = (_rates, _written, _read) if products else (_rates_each, _written_each, _read_each)
    gate = jnp.exp(rates(dt, A))
    gate = gate if reset is None else jnp.where(reset[..., None], 0, gate)
    x = gate * x + written(dt * u, B)
    if C is None:
        return x, jnp.zeros((x.shape[0], 0), u.dtype)
    y = read(C, x)
    return x, 2 * jnp.real(y) if jnp.iscomplexobj(y) else y


def _rates(dt: Any, A: Any) -> Any:
    """dt A of every state, (batch, H, N)."""
    (batch, H), N = dt.shape, A.shape[1]
    rows = repeated(A.reshape(1, H * N), batch).reshape(batch, H, N)
    return _matmul(dt[..., None], jnp.ones((1, N), dt.dtype)) * rows


def _written(v: Any, B: Any) -> Any:
    """Values (batch, H) times rows (H, N) or (batch, G, N) of groups."""
    if B.ndim == 2:
        return v[..., None] * B
    (batch, H), (_, G, N) = v.shape, B.shape
    return _matmul(v.reshape(batch, G, H // G, 1), B[:, :, None]).reshape(batch, H, N)


def _read(C: Any, x: Any) -> Any:
    """The sum over the states of rows (H, N) or (batch, G, N) of groups times x."""
    if C.ndim == 2:
        return jnp.sum(C * x, axis=-1)
    (batch, H, N), G = x.shape, C.shape[1]
    return _matmul(x.reshape(batch, G, H // G, N), C[..., None]).reshape(batch, H)


def _rates_each(dt: Any, A: Any) -> Any:
    return dt[..., None] * A


def _written_each(v: Any, B: Any) -> Any:
    return v[..., None] * _of_channels(B, v.shape[1])


def _read_each(C: Any, x: Any) -> Any:
    return jnp.sum(_of_channels(C, x.shape[1]) * x, axis=-1)


def _of_channels(rows: Any, H: int) -> Any:
    """Rows (H, N) or (batch, G, N) of groups, as every one of H channels has them."""
    return rows if rows.ndim == 2 else jnp.repeat(rows, H // rows.shape[1], axis=1)
