"""Drawing tokens one after another: greedy, or by chance from the likeliest of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays.errors import OptionError
from .._arrays.library import Array, computable, device, namespace, to_numpy


def generate(
    logits: Array,
    state: Any,
    step: Callable[[Array, Any], tuple[Array, Any]],
    n_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos: int | None = None,
    seed: Any = 0,
) -> tuple[Array, Any]:
    """n_tokens tokens (B, n_tokens), the first from these logits (B, V), and the state after the last but one.

    step maps (tokens (B,), state) to (logits (B, V), state), and memory does not grow with the tokens.

    temperature  0 takes the likeliest token; else tokens are drawn with probabilities softmax(logits / temperature)
    top_k        only from the k likeliest
    top_p        only from the fewest that together have at least this probability
    eos          a sequence that has drawn this token draws it for ever; when all have, generation stops
    seed         of NumPy's generator, or one: the draws are made on the host, the same in every framework

    Raises OptionError for options out of range.
    """
    check_options(n_tokens, temperature, top_k, top_p, eos, logits.shape[-1])
    xp, place, rng = namespace("generate", logits=logits), device(logits), _generator(seed)
    tokens, done = [], None
    for i in range(n_tokens):
        if temperature == 0:
            token = xp.argmax(logits, axis=-1)
        else:
            token = xp.asarray(sampled(to_numpy(computable(logits, xp)), temperature, top_k, top_p, rng), device=place)
        if eos is not None:
            token = token if done is None else xp.where(done, xp.full_like(token, eos), token)
            done = token == eos
        tokens.append(token)
        if done is not None and bool(xp.all(done)):
            break
        if i + 1 < n_tokens:
            logits, state = step(token, state)
    if not tokens:
        return xp.zeros((logits.shape[0], 0), dtype=xp.argmax(logits, axis=-1).dtype, device=place), state
    return xp.stack(tokens, axis=1), state


def sampled(
    logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None, rng: np.random.Generator
) -> np.ndarray:
    """One token (B,) for every row of logits (B, V), by the inverse of the distribution function."""
    order = np.argsort(-logits, axis=-1, kind="stable")  # likeliest first
    ranked = np.take_along_axis(logits, order, axis=-1).astype(np.float64)
    with np.errstate(over="ignore"):  # to -inf, which no token is drawn with
        p = np.exp((ranked - ranked[:, :1]) / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if top_k is not None:
        p[:, top_k:] = 0
    if top_p is not None:
        p = np.where(np.cumsum(p, axis=-1) - p < top_p * p.sum(axis=-1, keepdims=True), p, 0)
    total = np.cumsum(p, axis=-1)
    rank = (total <= rng.random((len(p), 1)) * total[:, -1:]).sum(axis=-1)
    return np.take_along_axis(order, np.minimum(rank, (p > 0).sum(axis=-1) - 1)[:, None], axis=-1)[:, 0]


def _generator(seed: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise OptionError(f"generate: seed = {seed!r} seeds no generator: {error}.") from error


def check_options(n_tokens: Any, temperature: Any, top_k: Any, top_p: Any, eos: Any, vocab_size: int) -> None:
    """Raise for options out of range."""

    def whole(x: Any) -> bool:
        return isinstance(x, int) and not isinstance(x, bool)

    if not whole(n_tokens) or n_tokens < 0:
        raise OptionError(f"generate: n_tokens = {n_tokens!r} must be a whole number of at least 0.")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise OptionError(f"generate: temperature = {temperature!r} must be at least 0 (0: the likeliest token).")
    if top_k is not None and (not whole(top_k) or not 1 <= top_k <= vocab_size):
        raise OptionError(f"generate: top_k = {top_k!r} must lie in [1, {vocab_size}], the tokens there are.")
    if top_p is not None and (isinstance(top_p, bool) or not isinstance(top_p, int | float) or not 0 < top_p <= 1):
        raise OptionError(f"generate: top_p = {top_p!r} must lie in (0, 1].")
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise OptionError("generate: top_k and top_p need a temperature above 0, such as temperature=1.0.")
    if eos is not None and (not whole(eos) or not 0 <= eos < vocab_size):
        raise OptionError(f"generate: eos = {eos!r} must be a token in [0, {vocab_size}).")
