"""Handwritten digits as 784 pixels, in rows or in a random order that all images share.

Published: S4 99.63 % in rows and 98.70 % permuted (Gu, Goel and Ré, 2021), LRU and S5 the like.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core import models

from . import data, report
from .loop import Run
from .recipe import Recipe, Scored, Task, drawn_from


def run(run: Run, permuted: bool = False) -> dict[str, Any]:
    x, y, x_test, y_test = data.mnist(run)
    if permuted:
        order = np.random.default_rng(0).permutation(x.shape[1])
        x, x_test = x[:, order], x_test[:, order]
    width, depth, updates, tested = (16, 2, 800, 1000) if run.small else (128, 6, 120_000, len(x_test))
    test = {"test images": Scored(x_test[:tested], y_test[:tested])}
    watched = {"some of them": Scored(x_test[: tested // 4], y_test[: tested // 4])}
    task = Task(drawn_from(x, y), test, watched=watched)
    recipes = {
        layer: Recipe(models.SequenceModel(1, 10, width, depth, layer, options), updates, 50, lr=1e-2)
        for layer, options in {"S4D": {"d_state": 32}, "LRU": {"d_state": 32}}.items()
    }
    found = run.compare(task, recipes)
    report.lines(
        run.folder / "picture.png", report.losses(found), xlabel="update", ylabel="accuracy",
        title="permuted MNIST" if permuted else "sequential MNIST",
    )  # fmt: skip
    return found
