"""Strange inputs are computed rightly or refused: two minutes of `fuzzing`, with a seed of their own."""

from __future__ import annotations

import warnings

import fuzzing
import pytest


def test_fuzz():
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts, bugs = fuzzing.run(minutes=2, seed=0)
    assert not bugs, "\n".join(bugs)
    assert min(counts["right"], counts["refused"]) > 100
