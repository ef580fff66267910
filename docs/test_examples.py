"""The examples run, on a few images and for a few updates."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("torch", "flax", "matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(package, reason=f"the examples need {package}, which is not installed")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(Path(__file__).parent / "examples")
    return importlib.import_module


@pytest.fixture
def digits(example: Callable[[str], Any]) -> Any:
    return example("digits")


def test_digits_in_both_frameworks_and_numpy(digits: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = digits.digits()
    few = digits.Images(images.train[:64], images.train_label[:64], images.test[:20], images.test_label[:20])
    model = replace(digits.DIGITS.model, d_model=4, n_layers=1)
    recipe = replace(digits.DIGITS, model=model, epochs=2)
    path = digits.run_digits(recipe, few, tmp_path, least=0.0)
    assert path.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.count("numpy: 20 of 20 test images") == 2
    assert "largest difference of the two loss curves" in printed


def test_mnist_from_a_file(digits: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (40, 6, 6), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    model = replace(digits.MNIST.model, d_model=4, n_layers=1)
    recipe = replace(digits.MNIST, model=model, epochs=2, batch=10)
    accuracy = digits.run_mnist(recipe, digits.mnist(tmp_path / "images.npz"), tmp_path, "torch")
    assert 0 <= accuracy <= 1
    printed = capsys.readouterr().out
    assert "40 images of 36 pixels" in printed
    assert printed.count("test accuracy") == 2


def test_language_model_of_bytes(example: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Trained for half a second; PyTorch, Flax and NumPy write the same bytes."""
    language = example("language")
    text = language.read_text(None)
    assert len(text) > 100_000
    options = {"vocab_size": 256, "d_model": 8, "n_layers": 1, "layer_options": {"d_state": 4, "head_dim": 4}}
    language.run(text[:8000], 0.5, tmp_path, options, n=10)
    printed = capsys.readouterr().out
    assert printed.count("the first 10 of 10 bytes are those of torch") == 2
    assert "of a bigram model" in printed


def test_bigrams(example: Callable[[str], Any]):
    """A text in which every byte tells the next: next to no bits."""
    text = np.tile(np.arange(4), 1000)
    assert example("language").bigram_bits(text, text) < 0.01
