"""Strange inputs are computed rightly or refused: the same examples of `fuzzing` in every run, two minutes of them."""

from __future__ import annotations

import warnings

import fuzzing
import pytest


def test_fuzz():
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts, bugs = fuzzing.run(minutes=2, seed=0, rounds=3)
    assert not bugs, "\n".join(bugs)
    assert min(counts["right"], counts["refused"]) > 100
