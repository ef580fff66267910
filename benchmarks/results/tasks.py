"""Synthetic tasks: batches (B, L) of tokens with the class that every step should tell, `NONE` where none is asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from .recipe import NONE, Batch, Scored, Task

Maker = Callable[[np.random.Generator, int, int], Batch]  # (draw, batch, length)


def over_lengths(make: Maker, trained: int, tested: Sequence[int], size: int) -> Task:
    """Batches of one length, and tests of each of several, drawn apart from the batches."""
    tests = {str(L): Scored(*make(np.random.default_rng([29, L]), size, L)) for L in tested}
    return Task(lambda draw, batch: make(draw, batch, trained), tests)


def composed(n: int) -> Maker:
    """Permutations of n things as tokens; asked is the product of those up to now, p_1 p_2 ... p_k."""
    group = list(itertools.permutations(range(n)))
    number = {p: i for i, p in enumerate(group)}
    product = np.asarray([[number[tuple(p[i] for i in q)] for q in group] for p in group])

    def make(draw: np.random.Generator, batch: int, length: int) -> Batch:
        tokens = draw.integers(0, len(group), (batch, length))
        return tokens, _running(tokens, lambda before, token: product[before, token])

    return make


def parity(draw: np.random.Generator, batch: int, length: int) -> Batch:
    """Bits; asked is whether the number of ones up to now is odd."""
    bits = draw.integers(0, 2, (batch, length))
    return bits, bits.cumsum(axis=1) % 2


def _running(tokens: np.ndarray, compose: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    found = tokens.copy()
    for k in range(1, tokens.shape[1]):
        found[:, k] = compose(found[:, k - 1], tokens[:, k])
    return found


def over_pairs(pairs: Sequence[int], vocab: int, length: int, size: int) -> Task:
    """Recall in batches that mix numbers of pairs, and tests of each of these numbers."""
    tests = {str(n): Scored(*recall([n], vocab)(np.random.default_rng([29, n]), size, length)) for n in pairs}
    make = recall(pairs, vocab)
    return Task(lambda draw, batch: make(draw, batch, length), tests)


def recall(pairs: Sequence[int], vocab: int, power: float = 0.01) -> Maker:
    """Keys with their values, then every key once more among zeros; asked is its value, at the place of the key.

    Every sequence has one of the numbers of pairs, those with few of them being what is learned first.

    Places of the questions follow the power law of Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra and Re,
    Zoology, 2023: gap g with a weight g^(power - 1). Keys are tokens below vocab / 2, values those above, 0 is empty.
    """

    def make(draw: np.random.Generator, batch: int, length: int) -> Batch:
        tokens, targets = np.zeros((batch, length), np.int64), np.full((batch, length), NONE)
        for row, target, n in zip(tokens, targets, draw.choice(pairs, batch), strict=True):
            rooms = (length - 2 * n) // 2
            weights = np.arange(1, rooms + 1) ** (power - 1.0)
            keys = draw.choice(np.arange(1, vocab // 2), n, replace=False)
            values = draw.integers(vocab // 2, vocab, n)
            row[: 2 * n] = np.stack([keys, values], axis=1).reshape(-1)
            places = 2 * n + 2 * draw.choice(rooms, n, replace=False, p=weights / weights.sum())
            row[places], target[places] = keys, values
        return tokens, targets

    return make


def selective_copying(remembered: int, vocab: int) -> Maker:
    """Tokens 2 ... vocab - 1 at random places among zeros, then as many marks 1; asked are the tokens, in order.

    Jing and others, Gated orthogonal recurrent units, 2019; Gu and Dao, Mamba, 2023. length is that of the zeros.
    """

    def make(draw: np.random.Generator, batch: int, length: int) -> Batch:
        tokens = np.zeros((batch, length + remembered), np.int64)
        targets = np.full_like(tokens, NONE)
        tokens[:, length:] = 1
        targets[:, length:] = draw.integers(2, vocab, (batch, remembered))
        places = np.sort(draw.random((batch, length)).argsort(axis=1)[:, :remembered], axis=1)
        np.put_along_axis(tokens, places, targets[:, length:], axis=1)
        return tokens, targets

    return make


def induction(vocab: int) -> Maker:
    """Random tokens 1 ... vocab - 1 with a mark 0 among them and at the end; asked is what followed the first mark.

    Fu, Dao, Saab, Thomas, Rudra and Re, Hungry hungry hippos, 2022; Gu and Dao, Mamba, 2023.
    """

    def make(draw: np.random.Generator, batch: int, length: int) -> Batch:
        tokens, targets = draw.integers(1, vocab, (batch, length)), np.full((batch, length), NONE)
        rows, places = np.arange(batch), draw.integers(0, length - 2, batch)
        tokens[rows, places] = tokens[:, -1] = 0
        targets[:, -1] = tokens[rows, places + 1]
        return tokens, targets

    return make
