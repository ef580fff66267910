"""Drawing tokens one after another: greedy, or by chance from the likeliest of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np

from .._arrays.errors import OptionError
from .._arrays.library import Array, computable, device, is_array, namespace, to_numpy
from .._arrays.numbers import flag, is_number, plain, whole

Step = Callable[[Array, Any], tuple[Array, Any]]


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


class Stream:
    """Tokens (B,) as they come, without end but for eos: an iterator, whose memory does not grow.

    `state` is the one that all tokens but the last have entered. To go on from there: `stream(last[:, None],
    state=stream.state)`.

    logits   (B, V), of the first token
    step     maps (tokens (B,), state) to (logits (B, V), state)
    seed     of NumPy's generator, or one: the draws are made on the host, the same in every framework
    seen     bool (B, V) of NumPy: the tokens of the prompt, for the penalty of repetitions; none if None
    """

    def __init__(
        self, logits: Array, state: Any, step: Step, choice: Choice, *, seed: Any = 0, seen: np.ndarray | None = None
    ) -> None:
        self.state = state
        self._logits, self._step, self._choice, self._rng = logits, step, choice, _generator(seed)
        self._xp, self._token, self._done = namespace("generate", logits=logits), None, None
        self._seen = np.zeros(logits.shape, dtype=bool) if seen is None else seen

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Array:
        if self._done is not None and bool(self._xp.all(self._done)):
            raise StopIteration
        if self._token is not None:
            self._logits, self.state = self._step(self._token, self.state)
        self._token = self._held(self._chosen())
        return self._token

    def take(self, n_tokens: int) -> Array:
        """The next tokens (B, at most n_tokens)."""
        xp, tokens = self._xp, list(islice(self, n_tokens))
        if tokens:
            return xp.stack(tokens, axis=1)
        index = xp.argmax(self._logits, axis=-1)
        return xp.zeros((self._logits.shape[0], 0), dtype=index.dtype, device=device(index))

    def _chosen(self) -> Array:
        """A token (B,) for every row of the logits."""
        xp, choice = self._xp, self._choice
        if choice.temperature == 0 and choice.repetition_penalty == 1:
            return xp.argmax(self._logits, axis=-1)
        logits = to_numpy(computable(self._logits, xp))
        if choice.repetition_penalty != 1:
            logits = penalized(logits, self._seen, choice.repetition_penalty)
        if choice.temperature == 0:
            token = np.argmax(logits, axis=-1)
        else:
            token = sampled(logits, choice.temperature, choice.top_k, choice.top_p, self._rng, min_p=choice.min_p)
        self._seen[np.arange(len(token)), token] = True
        return xp.asarray(token, device=device(self._logits))

    def _held(self, token: Array) -> Array:
        """The token, or where a sequence has ended, the one that it has ended with."""
        if not self._choice.eos:
            return token
        token = token if self._done is None else self._xp.where(self._done, self._token, token)
        ended = token == self._choice.eos[0]
        for eos in self._choice.eos[1:]:
            ended = ended | (token == eos)
        self._done = ended
        return token


def generate(
    logits: Array,
    state: Any,
    step: Step,
    n_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos: Any = None,
    seed: Any = 0,
) -> tuple[Array, Any]:
    """n_tokens tokens (B, n_tokens), the first from these logits (B, V), and the state after the last but one.

    step maps (tokens (B,), state) to (logits (B, V), state), and memory does not grow with the tokens. When all
    sequences have drawn an eos, generation stops. Options as of `Choice` and `Stream`.

    Raises OptionError for options out of range.
    """
    n_tokens = whole("generate", 0, n_tokens=n_tokens)
    choice = Choice.checked(
        logits.shape[-1],
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        eos=eos,
    )
    stream = Stream(logits, state, step, choice, seed=seed)
    return stream.take(n_tokens), stream.state


def check_count(n_tokens: Any, return_state: Any) -> None:
    """Raise for what no model can generate, before a prompt is run."""
    whole("generate", 0, n_tokens=n_tokens)
    flag("generate", return_state=return_state)


def taken(stream: Stream, n_tokens: Any, return_state: bool) -> Any:
    """What `generate` of a model returns: tokens (B, n_tokens), with return_state (tokens, state)."""
    tokens = stream.take(plain(n_tokens))
    return (tokens, stream.state) if return_state else tokens


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
    order = np.argsort(-logits, axis=-1, kind="stable")  # likeliest first
    ranked = np.take_along_axis(logits, order, axis=-1).astype(np.float64)
    with np.errstate(over="ignore"):  # to -inf, which no token is drawn with
        p = np.exp((ranked - ranked[:, :1]) / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if top_k is not None:
        p[:, top_k:] = 0
    if top_p is not None:
        p = np.where(np.cumsum(p, axis=-1) - p < top_p * p.sum(axis=-1, keepdims=True), p, 0)
    if min_p is not None:
        p = np.where(p >= min_p * p[:, :1], p, 0)
    total = np.cumsum(p, axis=-1)
    rank = (total <= rng.random((len(p), 1)) * total[:, -1:]).sum(axis=-1)
    return np.take_along_axis(order, np.minimum(rank, (p > 0).sum(axis=-1) - 1)[:, None], axis=-1)[:, 0]


def penalized(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """The logits, of tokens that were seen l / penalty or, of negative ones, l penalty."""
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def tokens_of(ids: Array, lengths: Array | None, padding: str, vocab_size: int) -> np.ndarray:
    """Which tokens stand in prompts (B, L) without their padding: bool (B, V)."""
    found = to_numpy(ids).astype(np.int64)
    k = np.arange(found.shape[1])
    steps = np.full(len(found), found.shape[1]) if lengths is None else to_numpy(lengths).astype(np.int64)
    within = k < steps[:, None] if padding == "right" else k >= found.shape[1] - steps[:, None]
    seen = np.zeros((len(found), vocab_size), dtype=bool)
    rows, columns = np.nonzero(within)
    seen[rows, found[rows, columns]] = True
    return seen


def _generator(seed: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise OptionError(f"generate: seed = {seed!r} seeds no generator: {error}.") from error
