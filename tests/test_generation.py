"""Drawing tokens: the likeliest, or by chance with exactly the probabilities that the options promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from wrong import check_refused, rows

from ssm_core import OptionError
from ssm_core.models.generation import Choice, Stream, generate, penalized, sampled, tokens_of

LOGITS = np.log(np.asarray([0.05, 0.3, 0.2, 0.3, 0.05, 0.1]))
V = len(LOGITS)
N = 50_000  # draws of a distribution
TABLE = np.random.default_rng(0).normal(size=(V, V))  # the logits after each token


class Chain:
    """A model whose logits depend on the last token alone, and whose state counts the steps."""

    def __init__(self, xp: Any = np, table: np.ndarray = TABLE) -> None:
        self.table, self.xp, self.seen = xp.asarray(table), xp, []

    def __call__(self, tokens: Any, state: Any) -> tuple[Any, Any]:
        assert tokens.ndim == 1
        self.seen.append(np.asarray(tokens))
        return self.xp.take(self.table, tokens, axis=0), state + 1

    def start(self, *tokens: int) -> Any:
        return self.xp.take(self.table, self.xp.asarray(tokens), axis=0)


def probabilities(logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None) -> np.ndarray:
    """Token by token, as the options are documented."""
    p = np.exp(logits / temperature)
    p = p / p.sum()
    kept = sorted(range(len(p)), key=lambda i: (-p[i], i))[:top_k]
    if top_p is not None:
        share, fewest = sum(p[i] for i in kept), []
        for i in kept:
            fewest.append(i)
            if sum(p[j] for j in fewest) >= top_p * share - 1e-12:
                break
        kept = fewest
    return np.asarray([p[i] if i in kept else 0.0 for i in range(len(p))]) / sum(p[i] for i in kept)


def frequencies(logits: np.ndarray, temperature: float, top_k: int | None = None, top_p: float | None = None) -> Any:
    batch = np.broadcast_to(logits, (N, len(logits)))
    tokens = sampled(batch, temperature, top_k, top_p, np.random.default_rng(0))
    return np.bincount(tokens, minlength=len(logits)) / N


OPTIONS = [
    (1.0, None, None), (0.5, None, None), (3.0, None, None), (1.0, 1, None), (1.0, 2, None), (1.0, 3, None),
    (2.0, 4, None), (1.0, V, None), (1.0, None, 0.25), (1.0, None, 0.55), (1.0, None, 0.61), (1.0, None, 0.95),
    (1.0, None, 1.0), (1.0, None, 1e-9), (0.7, None, 0.8), (1.0, 3, 0.5), (1.0, 4, 0.9), (2.0, 2, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), OPTIONS)
def test_probabilities(temperature: float, top_k: int | None, top_p: float | None):
    """Within five standard deviations; what is excluded is never drawn."""
    wanted = probabilities(LOGITS, temperature, top_k, top_p)
    found = frequencies(LOGITS, temperature, top_k, top_p)
    np.testing.assert_array_less(np.abs(found - wanted), 5 * np.sqrt(wanted * (1 - wanted) / N) + 1e-12)
    assert (found[wanted == 0] == 0).all()


def test_the_rows_of_a_batch_are_drawn_independently():
    rng = np.random.default_rng(3)
    tokens = np.stack([sampled(np.stack([LOGITS, LOGITS]), 1.0, None, None, rng) for _ in range(10_000)])
    joint = np.zeros((V, V))
    np.add.at(joint, (tokens[:, 0], tokens[:, 1]), 1 / len(tokens))
    p = np.exp(LOGITS)
    np.testing.assert_allclose(joint, p[:, None] * p, atol=0.02)


def test_every_seed_draws_from_the_same_distribution():
    chain, seeds = Chain(), 4000
    first = np.asarray([generate(LOGITS[None], 0, chain, 1, temperature=1.0, seed=s)[0][0, 0] for s in range(seeds)])
    found = np.bincount(first, minlength=V) / seeds
    np.testing.assert_allclose(found, np.exp(LOGITS), atol=5 * 0.5 / np.sqrt(seeds))


def test_a_chain_of_draws_has_the_probabilities_of_every_step():
    chain = Chain()
    start = chain.start(*[2] * 20_000)
    tokens, _ = generate(start, 0, chain, 2, temperature=0.8, top_k=4, seed=5)
    for token in range(V):
        after = tokens[tokens[:, 0] == token, 1]
        if len(after) > 500:
            wanted = probabilities(TABLE[token], 0.8, 4, None)
            found = np.bincount(after, minlength=V) / len(after)
            np.testing.assert_allclose(found, wanted, atol=2.5 / np.sqrt(len(after)))


# Ties and extremes ---------------------------------------------------------------------------------------------------


def test_ties_are_drawn_alike():
    np.testing.assert_allclose(frequencies(np.zeros(V), 1.0), 1 / V, atol=0.01)
    np.testing.assert_allclose(frequencies(np.zeros(V), 1.0, top_k=2), [0.5, 0.5, 0, 0, 0, 0], atol=0.015)
    np.testing.assert_array_equal(frequencies(np.zeros(V), 1.0, top_p=1e-3), [1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(frequencies(np.zeros(4), 1.0, top_p=0.5), [0.5, 0.5, 0, 0], atol=0.015)


def test_the_first_of_the_likeliest_wins():
    tokens, _ = generate(np.asarray([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]]), 0, Chain(), 1)
    np.testing.assert_array_equal(tokens, [[1], [0]])


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-3])
def test_a_temperature_near_zero_takes_the_likeliest(temperature: float):
    np.testing.assert_array_equal(frequencies(np.asarray([-800.0, 30.0, 900.0]), temperature), [0, 0, 1])


def test_a_high_temperature_forgets_the_logits():
    np.testing.assert_allclose(frequencies(LOGITS, 1e9), 1 / V, atol=0.01)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.999}, {"top_p": 1.0, "top_k": V}])
def test_tokens_that_cannot_be(options: Any):
    """Logits of -inf, and of numbers whose exponential overflows."""
    logits = np.asarray([-np.inf, 5000.0, -np.inf, 5000.0, -5000.0, -np.inf])
    np.testing.assert_allclose(frequencies(logits, 1.0, **options), [0, 0.5, 0, 0.5, 0, 0], atol=0.015)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logits_of_other_precisions(dtype: Any):
    np.testing.assert_allclose(frequencies(LOGITS.astype(dtype), 1.0), np.exp(LOGITS), atol=0.015)


def test_a_vocabulary_of_one():
    tokens, _ = generate(np.zeros((2, 1)), 0, Chain(table=np.zeros((1, 1))), 3, temperature=1.0, top_k=1, top_p=0.5)
    np.testing.assert_array_equal(tokens, np.zeros((2, 3)))


# The loop ------------------------------------------------------------------------------------------------------------


def test_greedy_is_the_argmax(xp: Any):
    chain = Chain(xp)
    tokens, state = generate(chain.start(1, 4), 0, chain, 5)
    wanted, last = np.zeros((2, 5), int), np.asarray([1, 4])
    for k in range(5):
        last = TABLE[last].argmax(-1)
        wanted[:, k] = last
    np.testing.assert_array_equal(np.asarray(tokens), wanted)
    assert state == 4
    np.testing.assert_array_equal(np.stack(chain.seen, 1), wanted[:, :-1])


def test_draws_are_the_same_in_every_library(xp: Any):
    options: Any = {"temperature": 1.3, "top_k": 5, "top_p": 0.9, "seed": 7}
    found, _ = generate(Chain(xp).start(1, 4), 0, Chain(xp), 20, **options)
    wanted, _ = generate(Chain().start(1, 4), 0, Chain(), 20, **options)
    np.testing.assert_array_equal(np.asarray(found), wanted)
    assert len(set(wanted.ravel())) > 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_of_no_steps(temperature: float, xp: Any):
    chain = Chain(xp)
    tokens, state = generate(chain.start(1, 4), "untouched", chain, 0, temperature=temperature)
    assert tokens.shape == (2, 0)
    assert "int" in str(tokens.dtype)
    assert state == "untouched"
    assert not chain.seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("eos", [None, 0])
def test_an_empty_batch(eos: int | None, temperature: float, xp: Any):
    chain = Chain(xp)
    tokens, _ = generate(chain.start(1)[:0, :], 0, chain, 3, temperature=temperature, eos=eos)
    assert tokens.shape[0] == 0
    assert "int" in str(tokens.dtype)


def test_seeds():
    def drawn(seed: Any) -> Any:
        return generate(Chain().start(1, 2, 3), 0, Chain(), 10, temperature=2.0, seed=seed)[0]

    np.testing.assert_array_equal(drawn(0), drawn(0))
    np.testing.assert_array_equal(drawn(np.random.default_rng(4)), drawn(4))
    assert (drawn(0) != drawn(1)).any()
    assert (drawn(None) != drawn(None)).any()
    rng = np.random.default_rng(4)
    assert (drawn(rng) != drawn(rng)).any()


def test_two_calls_with_one_generator_are_one_call():
    whole, _ = generate(Chain().start(1, 2), 0, Chain(), 9, temperature=1.0, seed=3)
    rng, chain = np.random.default_rng(3), Chain()
    first, state = generate(chain.start(1, 2), 0, chain, 4, temperature=1.0, seed=rng)
    logits, state = chain(first[:, -1], state)
    second, state = generate(logits, state, chain, 5, temperature=1.0, seed=rng)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
    assert state == 8


# The end of a text ---------------------------------------------------------------------------------------------------

# 0 -> 1 -> 2 -> 3 -> 4 -> 5 -> 0
CYCLE = np.roll(np.eye(V), 1, axis=1)


def test_sequences_end_with_eos_and_are_filled_with_it(xp: Any):
    chain = Chain(xp, CYCLE)
    tokens, _ = generate(chain.start(0, 2, 3), 0, chain, 4, eos=4)
    np.testing.assert_array_equal(np.asarray(tokens), [[1, 2, 3, 4], [3, 4, 4, 4], [4, 4, 4, 4]])


def test_generation_stops_when_all_have_ended(xp: Any):
    chain = Chain(xp, CYCLE)
    tokens, state = generate(chain.start(1, 2, 3), 0, chain, 100, eos=4)
    np.testing.assert_array_equal(np.asarray(tokens), [[2, 3, 4], [3, 4, 4], [4, 4, 4]])
    assert state == 2
    tokens, state = generate(chain.start(3, 3), 0, chain, 100, eos=4)
    np.testing.assert_array_equal(np.asarray(tokens), [[4], [4]])
    assert state == 0


def test_eos_of_nobody_changes_nothing():
    tokens, _ = generate(Chain(table=CYCLE).start(0), 0, Chain(table=CYCLE), 3, eos=5)
    np.testing.assert_array_equal(tokens, [[1, 2, 3]])


def test_eos_among_draws():
    tokens, _ = generate(Chain().start(*[1] * 50), 0, Chain(), 30, temperature=2.0, eos=2, seed=1)
    plain, _ = generate(Chain().start(*[1] * 50), 0, Chain(), 30, temperature=2.0, seed=1)
    for row, free in zip(tokens, plain, strict=True):
        end = int(np.argmax(free == 2)) if (free == 2).any() else len(free)
        np.testing.assert_array_equal(row[:end], free[:end])
        assert (row[end:] == 2).all()


@pytest.mark.parametrize("eos", [[4, 0], (0, 4), np.asarray([4, 0]), [np.int64(4), np.int32(0)]])
def test_a_sequence_ends_with_any_of_several_tokens_and_keeps_it(eos: Any, xp: Any):
    chain = Chain(xp, CYCLE)
    tokens, _ = generate(chain.start(2, 5, 3), 0, chain, 9, eos=eos)
    np.testing.assert_array_equal(np.asarray(tokens), [[3, 4], [0, 0], [4, 4]])


# What is left out, and what is repeated ------------------------------------------------------------------------------


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, 6), (0.3, 4), (0.6, 3), (0.7, 2), (1.0, 2)])
def test_min_p_keeps_what_is_likely_beside_the_likeliest(min_p: float, kept: int):
    p = np.exp(LOGITS) * (np.exp(LOGITS) >= min_p * 0.3 - 1e-12)
    assert (p > 0).sum() == kept
    batch = np.broadcast_to(LOGITS, (N, V))
    tokens = sampled(batch, 1.0, None, None, np.random.default_rng(0), min_p=min_p)
    np.testing.assert_allclose(np.bincount(tokens, minlength=V) / N, p / p.sum(), atol=0.015)


@pytest.mark.parametrize("temperature", [0.0, 1e-3])
def test_a_penalty_of_repetitions_lowers_what_was_drawn(temperature: float, xp: Any):
    """Logits 3, 2, -1: with a penalty of 2 the first is worth 1.5 once drawn, so the second follows, then worth 1."""
    chain = Chain(xp, np.asarray([[3.0, 2.0, -1.0]] * 3))
    tokens, _ = generate(chain.start(0), 0, chain, 3, repetition_penalty=2.0, temperature=temperature)
    np.testing.assert_array_equal(np.asarray(tokens), [[0, 1, 0]])
    np.testing.assert_array_equal(penalized(np.asarray([3.0, -1.0, 2.0]), np.asarray([1, 1, 0]) > 0, 2.0), [1.5, -2, 2])


def test_tokens_of_a_prompt_are_those_without_its_padding():
    ids, lengths = np.asarray([[1, 2, 0], [3, 3, 3]]), np.asarray([2, 1])
    right, left = (tokens_of(ids, lengths, padding, 4) for padding in ("right", "left"))
    np.testing.assert_array_equal(right, [[False, True, True, False], [False, False, False, True]])
    np.testing.assert_array_equal(left, [[True, False, True, False], [False, False, False, True]])


def test_a_stream_is_generation_one_by_one():
    chain = Chain()
    wanted, _ = generate(chain.start(1, 4), 0, Chain(), 6, temperature=1.0, seed=3)
    stream = Stream(chain.start(1, 4), 0, chain, Choice(temperature=1.0), seed=3)
    for k in range(6):
        np.testing.assert_array_equal(next(stream), wanted[:, k])
        assert stream.state == k
    assert len(list(Stream(chain.start(3, 3), 0, Chain(table=CYCLE), Choice(eos=(4,))))) == 2


# Wrong options -------------------------------------------------------------------------------------------------------


def call(n: Any = 3, **options: Any) -> Callable[[], Any]:
    return lambda: generate(Chain().start(1, 2), 0, Chain(), n, **options)


def drawing(**options: Any) -> Callable[[], Any]:
    return call(temperature=1.0, **options)


WRONG = {
    "generate": [
        *((call(n), OptionError, "n_tokens = .* must be a whole number of at least 0") for n in (-1, 1.0, "3", None)),
        (call(True), OptionError, "n_tokens = True must be a whole number"),
        *((call(temperature=t), OptionError, "temperature = .* at least 0") for t in (-1, -1e-9, "1", None, True)),
        *((call(temperature=t), OptionError, "temperature = .* at least 0") for t in (np.inf, np.nan, [1.0])),
        *((drawing(top_k=k), OptionError, r"top_k = .* must lie in \[1, 6\]") for k in (0, -1, 7, 2.0, "2", True)),
        *((drawing(top_p=p), OptionError, r"top_p = .* must lie in \(0, 1\]") for p in (0, -0.1, 1.1, np.nan, "1")),
        *((drawing(top_p=p), OptionError, r"top_p = .* must lie in \(0, 1\]") for p in (True, [0.5])),
        (call(top_k=2), OptionError, "need a temperature above 0"),
        (call(top_p=0.5), OptionError, "need a temperature above 0"),
        *((call(eos=e), OptionError, r"eos = .* must be a token in \[0, 6\)") for e in (-1, 6, 1.0, "1", True, [])),
        *((call(eos=e), OptionError, r"eos = .* several") for e in ([6], (1, -1), [1.0], [True], [[1]], np.ones(2))),
        *((drawing(min_p=p), OptionError, r"min_p = .* must lie in \[0, 1\]") for p in (-0.1, 1.1, np.nan, "1", True)),
        *(
            (call(repetition_penalty=p), OptionError, "must be positive")
            for p in (0, -1, np.inf, np.nan, None, "2", True)
        ),
        (call(min_p=0.5), OptionError, "need a temperature above 0"),
        *((drawing(seed=s), OptionError, "seed = .* seeds no generator") for s in (-1, "one", 1.5, object())),
    ]
}


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(WRONG))
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)
