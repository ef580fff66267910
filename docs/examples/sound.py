"""Sound from files: clips of one channel at one rate, or a plucked string where there is no file."""

from __future__ import annotations

import os
import wave
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = {1: (np.dtype("u1"), 128.0), 2: (np.dtype("<i2"), 2.0**15), 4: (np.dtype("<i4"), 2.0**31)}  # bytes a sample


@dataclass(frozen=True)
class Clips:
    """Clips in [-1, 1] to learn from and to be tested on, and samples a second."""

    train: list[np.ndarray]
    test: list[np.ndarray]
    rate: int
    name: str


def clips_of(path: Path | None, rate: int = 8000, shortest: int = 1) -> Clips:
    """The sound of a WAV file, a folder of them, or an .npz of samples, offsets and sample_rate; as None a string.

    Channels become one, their mean, and other rates the one asked for. Every tenth clip is for testing, or those that
    is_test of the .npz names; one long clip is cut into tenths. Raises SystemExit for files without sound, and for
    clips of fewer samples than `shortest`.
    """
    if path is None:
        return Clips(
            [plucked(rate, seed) for seed in range(40)], [plucked(rate, 100 + s) for s in range(4)], rate, "string"
        )
    if not path.exists():
        raise SystemExit(f"audio: there is no {path}. Give a WAV file, a folder of them, or an .npz file, by --data.")
    held = None
    if path.suffix == ".npz":
        clips, held = _read_npz(path, rate)
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".wav" and file.is_file())
        if not files:
            raise SystemExit(f"audio: {path} holds no .wav file.")
        clips = [read_wav(file, rate) for file in files]
    else:
        clips = [read_wav(path, rate)]
    if len(clips) == 1:
        clips = np.array_split(clips[0], 10)
    for clip in clips:
        if len(clip) < shortest:
            raise SystemExit(
                f"audio: a clip of {path} has {len(clip)} samples at {rate} Hz, but the pools need {shortest}. Leave "
                "it out."
            )
    held = np.arange(len(clips)) % 10 == 9 if held is None else held
    if held.all() or not held.any():
        raise SystemExit(f"audio: {path} has no clips to learn from, or none to be tested on ({len(clips)} in all).")
    pick = lambda wanted: [clip for clip, is_held in zip(clips, held, strict=True) if is_held == wanted]  # noqa: E731
    return Clips(pick(False), pick(True), rate, path.stem)


def read_wav(path: Path, rate: int) -> np.ndarray:
    """One channel of a WAV file of whole numbers, at this rate, in [-1, 1]."""
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, own, n = file.getparams()[:4]
            data = file.readframes(n)
    except (wave.Error, EOFError, OSError) as error:
        why = str(error) or "it ends too soon"
        raise SystemExit(f"audio: {path} is no WAV file of whole numbers ({why}).") from error
    if width == 3:  # 24 bits, as the upper ones of 32
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data[: len(padded) * 3], np.uint8).reshape(-1, 3)
        data, width = padded.tobytes(), 4
    if width not in WIDTHS or own < 1:
        raise SystemExit(f"audio: {path} has samples of {width} bytes, {own} a second. Convert it to 16 bits, 8000 Hz.")
    dtype, scale = WIDTHS[width]
    samples = np.frombuffer(data[: len(data) // (width * channels) * width * channels], dtype).astype(np.float64)
    samples = (samples - (128 if width == 1 else 0)) / scale
    if samples.size == 0:
        raise SystemExit(f"audio: {path} holds no samples.")
    return resampled(samples.reshape(-1, channels).mean(axis=1), own, rate)


def _read_npz(path: Path, rate: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The clips between the offsets, and which are for testing if that is said."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            held = file.get("is_test")
            samples, offsets, own = file["samples"], file["offsets"], int(file["sample_rate"])
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SystemExit(f"audio: {path} holds no samples, offsets and sample_rate ({error}).") from error
    _check_npz(path, samples, offsets, own, held)
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1) if samples.dtype.kind == "i" else 1.0
    cut = np.split(samples if samples.ndim == 1 else samples.mean(axis=1), offsets[1:-1])
    return [resampled(clip / scale, own, rate) for clip in cut], held


def _check_npz(path: Path, samples: np.ndarray, offsets: np.ndarray, rate: int, held: np.ndarray | None) -> None:
    """SystemExit for arrays that are no clips."""
    numbers = samples.dtype.kind in "if" and np.isfinite(samples).all()
    if samples.ndim not in (1, 2) or 0 in samples.shape[1:] or not numbers:
        found = f"{samples.dtype} {samples.shape}"
        raise SystemExit(
            f"audio: samples of {path} must be (n,) or (n, channels), signed integers or finite ({found})."
        )
    increases = offsets.ndim == 1 and offsets.size > 1 and offsets.dtype.kind in "iu" and (np.diff(offsets) >= 0).all()
    if not increases or offsets[0] != 0 or offsets[-1] != len(samples):
        raise SystemExit(f"audio: offsets of {path} must be (clips + 1,), from 0 to the {len(samples)} samples.")
    if rate < 1 or (held is not None and held.shape != (len(offsets) - 1,)):
        raise SystemExit(
            f"audio: {path} needs a positive sample_rate ({rate}), and an entry of is_test for every clip."
        )


def resampled(x: np.ndarray, own: int, rate: int) -> np.ndarray:
    """x (L,) at another rate: its spectrum, cut or continued with zeros, of the clip between two mirror images."""
    if own == rate or len(x) == 0:
        return x
    L, n = len(x), max(round(len(x) * rate / own), 1)
    mirrored = np.concatenate([x, x[::-1]])  # without a jump where the end meets the beginning
    spectrum = np.fft.rfft(mirrored)[: n + 1]
    return np.fft.irfft(spectrum, 2 * n)[:n] * (n / L)


def plucked(rate: int, seed: int, seconds: float = 1.0) -> np.ndarray:
    """Four notes of a plucked string, noise in a loop that loses its high tones: Karplus and Strong, 1983."""
    draw, notes = np.random.default_rng(seed), []
    for pitch in draw.choice([110.0, 130.8, 146.8, 164.8, 196.0, 220.0], 4):
        period, n = round(rate / pitch), round(rate * seconds / 4)
        note = np.zeros(n + period)
        note[:period] = draw.uniform(-1, 1, period)
        for start in range(period, n + period, period):  # a period at a time
            before = note[start - period : start]
            after = 0.498 * (before + np.concatenate([before[-1:], before[:-1]]))
            note[start : start + period] = after[: len(note) - start]
        notes.append(note[:n])
    return np.concatenate(notes)


def write_wav(path: Path, x: np.ndarray, rate: int) -> None:
    """Samples (L,) in [-1, 1] as a WAV file of 16 bits."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setparams((1, 2, rate, len(x), "NONE", ""))
        file.writeframes((np.clip(x, -1, 1) * (2**15 - 1)).astype("<i2").tobytes())


def spectrogram(x: np.ndarray, window: int = 256, hop: int = 64) -> np.ndarray:
    """Decibels (window / 2 + 1, frames) of a clip."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, window // 2), window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))).T ** 2
    return 10 * np.log10(np.maximum(power, 1e-6))


def order_bits(train: Sequence[np.ndarray], test: Sequence[np.ndarray], order: int, levels: int = 256) -> float:
    """Bits a sample of clips of whole numbers, each guessed by its counts behind the `order` samples before it.

    p_k(x | c) = (n(c, x) + g p_{k-1}(x | c')) / (n(c) + g),  p_{-1} = 1 / levels,  g = 4 levels that a context has seen
    little of; c' is c without its oldest sample, and silence stands before every clip.
    """
    p: Any = 1 / levels
    for k in range(order + 1):
        known, asked = (_contexts(clips, k, levels) for clips in (train, test))
        joint, counts = np.unique(known, return_counts=True)
        context, sums = np.unique(known // levels, return_counts=True)
        n_joint, n_context = _count(joint, counts, asked), _count(context, sums, asked // levels)
        p = (n_joint + 4 * p) / (n_context + 4)
    return float(-np.log2(p).mean())


def _contexts(clips: Sequence[np.ndarray], k: int, levels: int) -> np.ndarray:
    """Of every sample one number for it and the k samples before it, the sample last."""
    codes = []
    for clip in clips:
        padded = np.concatenate([np.full(k, levels // 2), clip]).astype(np.int64)
        code = np.zeros(len(clip), np.int64)
        for i in range(k + 1):
            code = code * levels + padded[i : i + len(clip)]
        codes.append(code)
    return np.concatenate(codes)


def _count(keys: np.ndarray, counts: np.ndarray, asked: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, counts[place], 0)
