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


def small_recipes(audio: Any) -> dict[str, Any]:
    model = {"d_model": 4, "n_layers": 1, "layer_options": {"d_state": 4}}
    return {
        name: replace(recipe, model=replace(recipe.model, **model), updates=4, batch=2, length=64, every=1)
        for name, recipe in audio.RECIPES.items()
    }


def test_sound(example: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Plucked strings, a few updates of both models, sound made in NumPy, a picture."""
    audio, sound = example("audio"), example("sound")
    clips = sound.clips_of(None, 800, 16)
    assert {len(clip) for clip in clips.train} == {800}
    few = replace(clips, train=clips.train[:4], test=clips.test[:2])
    bits = audio.run(few, tmp_path, small_recipes(audio), seconds=0.05)
    assert all(0 < found < 9 for found in bits.values())
    assert bits["counts, order 1"] < bits["counts, order 0"]
    assert (tmp_path / "spectrograms.png").read_bytes().startswith(b"\x89PNG")
    assert sound.read_wav(tmp_path / "sashimi_0.wav", 800).shape == (40,)
    assert f"sound in {tmp_path}" in capsys.readouterr().out


def test_a_stopped_training_goes_on_to_the_same_numbers(example: Callable[[str], Any], tmp_path: Path):
    audio, training = example("audio"), example("audio_training")
    clips = [np.random.default_rng(i).integers(0, 256, 90) for i in range(3)]
    recipe = small_recipes(audio)["sashimi"]
    whole = training.train("whole", recipe, clips, tmp_path / "whole")
    training.train("first", recipe, clips, tmp_path / "cut", stop=2)
    rest = training.train("rest", recipe, clips, tmp_path / "cut")
    for (name, p), q in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert (p == q).all(), name
    assert training.bits_a_sample(whole, clips) == training.bits_a_sample(rest, clips)
    with pytest.raises(SystemExit, match="is of another model, sound or length of training"):
        training.train("other", recipe, clips[:2], tmp_path / "cut")
    (tmp_path / "cut").write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit, match="cannot be read"):
        training.train("rest", recipe, clips, tmp_path / "cut")
    training.torch.save([1.0], tmp_path / "cut")
    with pytest.raises(SystemExit, match="is of another model"):
        training.train("rest", recipe, clips, tmp_path / "cut")


def test_counts_of_sounds(example: Callable[[str], Any]):
    """Samples that follow from the two before them: one bit by the one before, next to none by two."""
    bits = example("sound").order_bits
    clips = [np.tile([1, 2, 1, 3], 500)] * 2
    assert bits(clips, clips, 0) == pytest.approx(1.5, abs=0.05)
    assert bits(clips, clips, 1) == pytest.approx(0.5, abs=0.05)
    assert bits(clips, clips, 2) < 0.05


def test_sounds_of_any_kind(example: Callable[[str], Any], tmp_path: Path):
    """Two channels, other rates and widths of samples become one channel at one rate."""
    sound, t = example("sound"), np.arange(1600)
    tone = 0.5 * np.sin(2 * np.pi * t / 40)
    for width, (dtype, scale) in sound.WIDTHS.items():
        stereo = np.stack([tone, np.zeros_like(tone)], axis=1) * scale + (128 if width == 1 else 0)
        with sound.wave.open(str(tmp_path / f"{width}.wav"), "wb") as file:
            file.setparams((2, width, 1600, len(t), "NONE", ""))
            file.writeframes(stereo.astype(dtype).tobytes())
        x = sound.read_wav(tmp_path / f"{width}.wav", 800)
        np.testing.assert_allclose(x[50:-50], tone[::2][50:-50] / 2, atol=0.02)
    clips = sound.clips_of(tmp_path / "2.wav", 1600, 16)
    assert [len(clips.train), len(clips.test), sum(map(len, clips.train + clips.test))] == [9, 1, 1600]
    np.savez(tmp_path / "clips.npz", samples=np.zeros(90, np.int16), offsets=np.asarray([0, 40, 90]), sample_rate=8000)
    with pytest.raises(SystemExit, match="none to be tested on"):
        sound.clips_of(tmp_path / "clips.npz", 8000, 16)


def test_clips_of_an_npz_that_are_none(example: Callable[[str], Any], tmp_path: Path):
    whole = {"samples": np.zeros(80, np.int16), "offsets": np.asarray([0, 40, 80]), "sample_rate": 8000}
    for changed, message in (
        ({"samples": np.full(80, np.nan)}, "must be .* finite"),
        ({"samples": np.zeros((2, 5, 8), np.int16)}, r"must be \(n,\)"),
        ({"samples": np.zeros(80, bool)}, "signed integers or finite"),
        ({"samples": np.zeros((80, 0))}, r"must be .* \(float64 \(80, 0\)\)"),
        ({"sample_rate": [8000, 8000]}, "holds no samples, offsets and sample_rate"),
        ({"offsets": np.asarray([0, 60, 40, 80])}, "offsets"),
        ({"offsets": np.asarray([0, 40, 90])}, "to the 80 samples"),
        ({"offsets": np.asarray([0, 0, 80])}, "has 0 samples"),
        ({"sample_rate": 0}, "positive sample_rate"),
        ({"is_test": np.ones(3)}, "is_test for every clip"),
        ({"is_test": np.ones(2)}, "none to be tested on|no clips to learn from"),
    ):
        np.savez(tmp_path / "clips.npz", **(whole | changed))
        with pytest.raises(SystemExit, match=f"^audio: .*{message}"):
            example("sound").clips_of(tmp_path / "clips.npz", 8000, 16)


def test_sounds_that_cannot_be_read(example: Callable[[str], Any], tmp_path: Path):
    sound = example("sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound")
    sound.write_wav(tmp_path / "silent.wav", np.zeros(0), 8000)
    sound.write_wav(tmp_path / "short.wav", np.zeros(100), 8000)
    header = bytearray((tmp_path / "short.wav").read_bytes())
    header[24:28] = bytes(4)  # samples a second
    (tmp_path / "timeless.wav").write_bytes(header)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:20])
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    (tmp_path / "none" / "folder.wav").mkdir(parents=True)
    for name, message in {
        "missing.wav": "there is no .*missing.wav. Give a WAV file",
        "empty.wav": r"is no WAV file of whole numbers \(it ends too soon\)",
        "text.wav": "is no WAV file",
        "silent.wav": "holds no samples",
        "timeless.wav": "has samples of 2 bytes, 0 a second",
        "short.wav": "has 10 samples at 8000 Hz, but the pools need 16",
        "other.npz": "holds no samples, offsets and sample_rate",
        "torn.npz": "holds no samples, offsets and sample_rate",
        "single.npz": "holds no samples, offsets and sample_rate",
        "none": "holds no .wav file",
    }.items():
        with pytest.raises(SystemExit, match=f"^audio: .*{message}"):
            sound.clips_of(tmp_path / name, 8000, 16)
