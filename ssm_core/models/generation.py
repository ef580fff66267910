"""Drawing tokens one after another: greedy, or by chance from the likeliest of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from itertools import islice
from typing import Any, Self

import numpy as np

from .._arrays.dispatch import is_traced
from .._arrays.library import Array, computable, device, namespace, to_numpy
from .._arrays.numbers import flag, plain, whole
from .sampling import Choice, check_highest, generator, penalized, sampled

Step = Callable[[Array, Any], tuple[Array, Any]]


class Stream:
    """Tokens (B,) as they come, without end but for eos: an iterator, whose memory does not grow.

    `state` is the one that all tokens but the last have entered. To go on from there: `stream(last[:, None],
    state=stream.state)`. States are values, which nothing changes: those that are kept are where a text can go back to.
    A `copy` keeps the draws and the repetitions too.

    logits   (B, V), of the first token
    step     maps (tokens (B,), state) to (logits (B, V), state)
    seed     of NumPy's generator, or one: the draws are made on the host, the same in every framework
    seen     bool (B, V) of NumPy: the tokens of the prompt, for the penalty of repetitions; none if None
    """

    def __init__(
        self, logits: Array, state: Any, step: Step, choice: Choice, *, seed: Any = 0, seen: np.ndarray | None = None
    ) -> None:
        self.state = state
        self._logits, self._step, self._choice, self._rng = logits, step, choice, generator(seed)
        self._xp, self._token, self._done = namespace("generate", logits=logits), None, None
        self._seen = np.zeros(logits.shape, dtype=bool) if seen is None else seen
        self._check()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Array:
        if self._done is not None and bool(self._xp.all(self._done)):
            raise StopIteration
        if self._token is not None:
            self._logits, self.state = self._step(self._token, self.state)
        self._token = self._held(self._chosen())
        return self._token

    def copy(self) -> Self:
        """One that goes on from here by itself, with the same draws. A copy that is kept undoes what comes after."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._rng, other._seen = deepcopy(self._rng), self._seen.copy()
        return other

    __copy__ = copy

    def take(self, n_tokens: int) -> Array:
        """The next tokens (B, at most n_tokens)."""
        xp, tokens = self._xp, list(islice(self, min(n_tokens, sys.maxsize)))
        if tokens:
            self._check()
            return xp.stack(tokens, axis=1)
        index = xp.argmax(self._logits, axis=-1)
        return xp.zeros((self._logits.shape[0], 0), dtype=index.dtype, device=device(index))

    def _check(self) -> None:
        """Raise for logits that are no numbers: a state that has broken stays so."""
        if not is_traced(self._logits):
            check_highest(to_numpy(self._xp.max(computable(self._logits, self._xp), axis=-1)))

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

    Raises OptionError for options out of range; DomainError for logits that hold NaN.
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


def tokens_of(ids: Array, lengths: Array | None, padding: str, vocab_size: int) -> np.ndarray:
    """Which tokens stand in prompts (B, L) without their padding: bool (B, V)."""
    found = to_numpy(ids).astype(np.int64)
    L = found.shape[1]
    k, steps = np.arange(L), np.full(len(found), L) if lengths is None else np.minimum(to_numpy(lengths), np.int64(L))
    within = k < steps[:, None] if padding == "right" else k >= L - steps[:, None]
    seen = np.zeros((len(found), vocab_size), dtype=bool)
    rows, columns = np.nonzero(within)
    seen[rows, found[rows, columns]] = True
    return seen
