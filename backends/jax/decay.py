"""Gated linear attention for JAX, with one decay a head or one a channel: a loop over chunks."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from ssm_core._arrays.idioms import repeated
from ssm_core.gated.decay_chunk import turned_chunk
from ssm_core.gated.delta_run import power
from ssm_core.gated.halves import LOWEST, head_sums
from ssm_core.recurrences.segments import Segments

from .loops import Arrays, over_chunks

_matmul = partial(jnp.matmul, precision="highest")  # with all digits on a GPU too


def channel_decay(
    q: Any, k: Any, v: Any, g: Any, state: Any, *, bonus: Any, exclusive: bool, segments: Segments, chunk: int
) -> Any:
    """Fused `ssm_core.gated.decay_run._channel_decay`; chunks are the next power of two."""
    L = v.shape[1]
    if not isinstance(L, int):
        return NotImplemented
    weight = bonus if bonus is None or exclusive else bonus + 1
    weight = jnp.zeros(k.shape[2:], k.dtype) if bonus is None and exclusive else weight

    def body(state: Any, s: Arrays) -> tuple[Any, Any]:
        reset = None if "reset" not in s else s.pop("reset")[:, 0, :, 0].T
        y, state = turned_chunk(**s, state=state, weight=weight, reset=reset, exclusive=exclusive, xp=jnp)
        return state, y

    signals = {"q": q, "k": k, "v": v, "log_decay": g}
    signals["reset"] = None if segments.reset is None else segments.reset[..., None, None]
    return over_chunks(body, state, signals, min(power(chunk), power(L)))


def ssd(drive: Any, log_gates: Any, B: Any, C: Any, state: Any, *, segments: Segments, chunk: int) -> Any:
    """Fused `ssm_core.gated.ssd._ssd`."""
    L = drive.shape[1]
    if not isinstance(L, int):
        return NotImplemented

    def body(state: Any, s: Arrays) -> tuple[Any, Any]:
        return _dual_chunk(s["x"], s["g"], s["B"], s["C"], state)

    g = log_gates if segments.reset is None else jnp.where(segments.reset[..., None], LOWEST, log_gates)
    return over_chunks(body, state, {"x": drive, "g": g[..., None], "B": B, "C": C}, min(chunk, L))


def _dual_chunk(x: Any, g: Any, B: Any, C: Any, state: Any) -> tuple[Any, Any]:
    """The state (batch, H, P, N) after a chunk, and y, of x (batch, H, T, P), g (batch, H, T, 1), B and C (batch, G, T,
    N), in groups of J heads."""
    (batch, H, T, P), (G, N) = x.shape, B.shape[1::2]
    lead = (batch, G, H // G)
    x, g, S = x.reshape(*lead, T, P), g.reshape(*lead, T, 1), state.reshape(*lead, P, N)
    decay, from_start, to_end, total = head_sums(g, exclusive=False, xp=jnp)
    B, C = B[:, :, None], C[:, :, None]
    met = repeated(_matmul(C, B.mT).reshape(batch, G, 1, T * T), H // G).reshape(decay.shape)
    y = _matmul(met * decay, x) + jnp.exp(from_start) * _matmul(C, S.mT)
    S = jnp.exp(total) * S + _matmul((jnp.exp(to_end) * x).mT, B)
    return S.reshape(state.shape), y.reshape(batch, H, T, P)
