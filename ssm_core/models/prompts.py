"""Prompts: what they may be, and how they are read, piece by piece, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.dispatch import is_traced
from .._arrays.errors import DomainError, ShapeError, describe, unknown
from .._arrays.idioms import clip, taken_along
from .._arrays.library import Array, device, namespace, require_arrays, to_numpy
from .._arrays.values import bounds

PADDINGS = ("right", "left")
TOKENS, STEPS = 8192, 512  # of a piece: so many in all, and of each prompt at least so many
Reading = Callable[[Array, Array | None, Any], tuple[Array, Any]]  # (ids, lengths, state) -> (logits, state)


def check_prompts(operation: str, ids: Array, lengths: Array | None, padding: Any) -> None:
    """Raise for a padding that is none, and for prompts without a token."""
    if not isinstance(padding, str) or padding not in PADDINGS:
        raise unknown(operation, "padding", padding, PADDINGS)
    if ids.shape[1] == 0:
        raise ShapeError(f"{operation}: a prompt needs at least one token ({describe(ids=ids)}).")
    if lengths is not None:
        require_arrays(operation, lengths=lengths)
    shortest = None if lengths is None else bounds(lengths)
    if shortest is not None and shortest[0] < 1:
        raise DomainError(f"{operation}: every prompt needs at least one token (lengths: {to_numpy(lengths)}).")


def aligned(ids: Array, lengths: Array, padding: str) -> Array:
    """Prompts (B, L) that are padded on the right."""
    if padding == "right":
        return ids
    xp, L = namespace("prefill", ids=ids), ids.shape[1]
    k = xp.arange(L, device=device(ids))
    return taken_along(xp.astype(ids, k.dtype), (k + L - xp.astype(lengths, k.dtype)[:, None]) % L, 1)


def read(reading: Reading, ids: Array, lengths: Array | None, state: Any) -> tuple[Array, Any]:
    """The logits (B, V) behind the prompts ids (B, L), and the state there, from the reading of a piece.

    Prompts end in different pieces: behind its end the length of a prompt is 0, and its state stays. A trace reads all
    at once.
    """
    if is_traced(ids):
        return reading(ids, lengths, state)
    (B, L), xp, logits = ids.shape, namespace("prefill", ids=ids), None
    steps = max(TOKENS // max(B, 1), STEPS)
    for begin in range(0, L, steps):
        end = min(begin + steps, L)
        rest = None if lengths is None else clip(lengths - begin, 0, end - begin)
        new, state = reading(ids[:, begin:end], rest, state)
        logits = new if logits is None or rest is None else xp.where((rest > 0)[:, None], new, logits)
    return logits, state
