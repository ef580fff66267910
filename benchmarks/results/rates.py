"""Trained at one sampling rate and tested at half of it, for every time-invariant layer.

A continuous system is sampled at another step by `rate`; a discrete one (LRU, LinOSS, RTF) has no step to change, and
hears the same samples faster. Published for S4: Speech Commands at 16 kHz 98.32 %, tested at 8 kHz 96.30 % (Gu, Goel
and Ré, 2021). Here the classes are four melodies of tones in noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssm_core import models

from . import report
from .loop import Run
from .recipe import Recipe, Scored, Task


def continuous(length: int) -> dict[str, dict[str, Any]]:
    """Layers with a step, and their options."""
    known = ("S4D", "S4", "DSS", "S5", "SSM", "LMU")
    own = {"DSS": {"length": length}, "LMU": {"theta": length}}
    return {layer: {"d_state": 32} | own.get(layer, {}) for layer in known}


DISCRETE = {"LRU": {"d_state": 32}, "LinOSS": {"d_state": 32}, "DLinOSS": {"d_state": 32}, "RTF": {"d_state": 16}}


def melodies(draw: np.random.Generator, size: int, length: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Two tones, one after the other in noise, (size, length, 1), and which two they are, (size,)."""
    t = np.arange(length) / length
    label = draw.integers(0, classes, size)
    first = np.asarray([4.0, 8.0, 4.0, 6.0])[label], np.asarray([8.0, 4.0, 6.0, 4.0])[label]
    tones = [np.sin(2 * np.pi * f[:, None] * t + draw.uniform(0, 2 * np.pi, (size, 1))) for f in first]
    change = draw.uniform(0.4, 0.6, (size, 1))
    x = np.where(t < change, *tones) + smooth(draw.normal(size=(size, length)))
    return x[..., None].astype(np.float32), label


def smooth(noise: np.ndarray, cut: int = 12) -> np.ndarray:
    """Its lowest frequencies, of deviation 0.7: half the samples say as much."""
    spectrum = np.fft.rfft(noise)
    spectrum[:, cut:] = 0
    low = np.fft.irfft(spectrum, noise.shape[1])
    return 0.7 * low / low.std()


def run(run: Run) -> dict[str, Any]:
    width, updates, batch, length = (16, 250, 32, 128) if run.small else (64, 5000, 64, 1024)
    x, y = melodies(np.random.default_rng(1), 512, length)
    known = continuous(length)

    def task(told: Mapping[str, Any]) -> Task:
        tests = {"all": Scored(x, y), "half": Scored(x[:, ::2], y, told), "half, not told": Scored(x[:, ::2], y)}
        return Task(lambda draw, size: melodies(draw, size, length), tests)

    recipes = {
        layer: Recipe(models.SequenceModel(1, 4, width, 2, layer, options), updates, batch, lr=1e-2)
        for layer, options in (known | DISCRETE).items()
    }
    found = run.compare({layer: task({"rate": 2.0} if layer in known else {}) for layer in recipes}, recipes)
    report.bars(run.folder / "picture.png", found, title="trained at one rate, tested at half", ylabel="accuracy")
    return found
