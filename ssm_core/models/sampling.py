"""Drawing a token by its logits: what is left out, what is repeated, and the draw, on the host for every framework.

The filters are those of transformers in their order: the penalty of repetitions, temperature, top_k, top_p, min_p. Of
equal logits at the edge of top_k, of which transformers keeps all, the first are kept: k tokens are k tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .._arrays.errors import DomainError, OptionError
from .._arrays.library import is_array, to_numpy
from .._arrays.numbers import is_number, plain


@dataclass(frozen=True)
class Choice:
    """How a token is chosen by its logits; `checked` makes one.

    temperature         0 takes the likeliest token; else tokens are drawn with probabilities softmax(logits /
                        temperature)
    top_k               only from the k likeliest
    top_p               only from the fewest that together have at least this probability
    min_p               only from those at least this much as likely as the likeliest
    repetition_penalty  of tokens that stand in the prompt or were drawn: logits l > 0 become l / penalty, others
                        l penalty. 1 is none
    eos                 one token or several: a sequence that has drawn one draws it for ever

    The penalty is that of Keskar et al., CTRL, 2019, https://arxiv.org/abs/1909.05858; top_p that of Holtzman et al.,
    The curious case of neural text degeneration, ICLR 2020; min_p that of Nguyen et al., Turning up the heat, 2024.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    eos: tuple[int, ...] = ()

    @classmethod
    def checked(cls, vocab_size: int, **options: Any) -> Self:
        """Of options as they are given; raises OptionError for those out of range."""
        found = {name: plain(option) for name, option in options.items()}
        wanted = {
            "temperature": (lambda x: 0 <= x < math.inf, "must be at least 0 (0: the likeliest token)"),
            "top_p": (lambda x: 0 < x <= 1, "must lie in (0, 1]"),
            "min_p": (lambda x: 0 <= x <= 1, "must lie in [0, 1]"),
            "repetition_penalty": (lambda x: 0 < x < math.inf, "must be positive (1: none)"),
        }
        for name, (good, text) in wanted.items():
            x = found.get(name, getattr(cls, name))
            if not (x is None and name.endswith("_p")) and not (is_number(x) and good(x)):
                raise OptionError(f"generate: {name} = {x!r} {text}.")
        top_k = found.get("top_k")
        if top_k is not None and (not _is_whole(top_k) or not 1 <= top_k <= vocab_size):
            raise OptionError(f"generate: top_k = {top_k!r} must lie in [1, {vocab_size}], the tokens there are.")
        drawing = [name for name in ("top_k", "top_p", "min_p") if found.get(name) is not None]
        if drawing and found.get("temperature", cls.temperature) == 0:
            raise OptionError(f"generate: {', '.join(drawing)} need a temperature above 0, such as temperature=1.0.")
        return cls(**found | {"eos": _ends(found.get("eos"), vocab_size)})


def _is_whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _ends(eos: Any, vocab_size: int) -> tuple[int, ...]:
    """One token, or several, as a tuple."""
    several = to_numpy(eos).tolist() if is_array(eos) else eos
    tokens = [plain(token) for token in several] if isinstance(several, list | tuple) else [several]
    if eos is not None and (not tokens or not all(_is_whole(token) and 0 <= token < vocab_size for token in tokens)):
        raise OptionError(f"generate: eos = {eos!r} must be a token in [0, {vocab_size}), or several of them.")
    return () if eos is None else tuple(tokens)


def sampled(
    logits: np.ndarray,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    rng: np.random.Generator,
    *,
    min_p: float | None = None,
) -> np.ndarray:
    """One token (B,) for every row of logits (B, V), by the inverse of the distribution function."""
    p = weights(logits, temperature, top_k, top_p, min_p)
    total = np.cumsum(p, axis=-1)
    token = (total <= rng.random((len(p), 1)) * total[:, -1:]).sum(axis=-1)
    last = p.shape[-1] - 1 - np.argmax(p[:, ::-1] > 0, axis=-1)  # where a rounding leads beyond
    return np.minimum(token, last)


def weights(
    logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> np.ndarray:
    """What the probabilities (B, V) of tokens are proportional to: 1 for the likeliest, 0 for what is left out."""
    highest = logits.max(axis=-1, keepdims=True).astype(np.float64)
    check_highest(highest)
    with np.errstate(over="ignore"):  # to -inf, which no token is drawn with
        p = np.exp((logits - highest) / temperature)
    return p if (top_k, top_p, min_p) == (None, None, None) else _filtered(p, top_k, top_p, min_p)


def _filtered(p: np.ndarray, top_k: int | None, top_p: float | None, min_p: float | None) -> np.ndarray:
    """Weights p (B, V) with zeros for what the filters leave out; of equal ones the first stay."""
    ranked = np.sort(p, axis=-1)[:, ::-1].copy()  # likeliest first
    if top_k is not None:
        ranked[:, top_k:] = 0
    if top_p is not None:
        before = np.cumsum(ranked, axis=-1) - ranked
        ranked = np.where(before < top_p * ranked.sum(axis=-1, keepdims=True), ranked, 0)
    if min_p is not None:
        ranked = np.where(ranked >= min_p * ranked[:, :1], ranked, 0)
    n = (ranked > 0).sum(axis=-1, keepdims=True)
    least = np.take_along_axis(ranked, n - 1, axis=-1)
    above, equal = p > least, p == least
    first = np.cumsum(equal, axis=-1) <= n - above.sum(axis=-1, keepdims=True)
    return np.where(above | (equal & first), p, 0)


def penalized(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """The logits, of tokens that were seen l / penalty or, of negative ones, l penalty."""
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def check_highest(highest: np.ndarray) -> None:
    """Raise unless the highest logit of every row is a number: -inf alone is a token that cannot be."""
    broken = np.flatnonzero(~np.isfinite(highest))
    if len(broken):
        raise DomainError(
            f"generate: the logits of sequences {broken.tolist()} hold NaN or inf, or -inf alone (logits: "
            f"{len(highest)} rows). The weights or the state are not finite, or too large for their dtype."
        )


def generator(seed: Any) -> np.random.Generator:
    """NumPy's generator of a seed; one is itself."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise OptionError(f"generate: seed = {seed!r} seeds no generator: {error}.") from error
