"""What a training is: a model, an optimizer with its schedule, and a task that gives batches and tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ssm_core import models

NONE = -100  # a target that neither loss nor accuracy counts

Batch = tuple[np.ndarray, np.ndarray]  # inputs, and targets: classes as int64, or float32 values


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine decay to zero, its gradients clipped, every option written out."""

    model: models.Model
    updates: int
    batch: int = 64
    lr: float = 3e-3
    ssm_lr: float = 1e-3  # of the poles, the steps and B, which have no weight decay
    weight_decay: float = 0.01
    warmup: float = 0.1  # fraction of all updates
    clip: float = 1.0  # norm of all gradients
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    loss: str = "classes"  # cross-entropy; "squares": of the last steps, as many as targets have

    def factors(self) -> np.ndarray:
        """Of the learning rates, float32 (updates,)."""
        k, warm = np.arange(self.updates), max(1, round(self.warmup * self.updates))
        cosine = 0.5 * (1 + np.cos(math.pi * np.maximum(k - warm, 0) / max(self.updates - warm, 1)))
        return np.minimum((k + 1) / warm, cosine).astype(np.float32)


class Scored(NamedTuple):
    """Inputs with the targets that a model is scored by, and options of the model's call."""

    inputs: np.ndarray
    targets: np.ndarray
    options: Mapping[str, Any] = {}


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Of the targets that count: the fraction that has the largest output."""
    counted = targets != NONE
    return float((outputs.argmax(-1) == targets)[counted].mean())


def mean_square(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Of the last steps, as many as there are targets."""
    return float(np.square(outputs[:, -targets.shape[1] :] - targets, dtype=np.float64).mean())


@dataclass(frozen=True)
class Task:
    """Batches drawn from a generator of random numbers, and tests by name."""

    batch: Callable[[np.random.Generator, int], Batch]
    tests: Mapping[str, Scored]
    score: Callable[[np.ndarray, np.ndarray], float] = accuracy
    watched: Mapping[str, Scored] = field(default_factory=dict)  # scored during the training too


def drawn_from(inputs: np.ndarray, targets: np.ndarray) -> Callable[[np.random.Generator, int], Batch]:
    """Batches of a data set."""

    def batch(draw: np.random.Generator, size: int) -> Batch:
        chosen = draw.integers(0, len(inputs), size)
        return inputs[chosen], targets[chosen]

    return batch
