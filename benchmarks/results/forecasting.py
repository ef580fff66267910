"""The oil temperature of ETTh1 for the next 720 hours, from the 720 before.

Published, of one variable: S4 0.116, Informer 0.269 mean square (Gu, Goel and Ré, 2021). The months are split
12 / 4 / 4. The input is the past and then as many zeros, with a mark of which is which; asked are the last 720 outputs.
Both are told less the last value of the past, as by Zeng, Chen, Zhang and Xu (Are Transformers effective for time
series forecasting?, 2022): the months of the test are 1.3 deviations colder than those of the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core import models

from . import data, report
from .loop import Run
from .recipe import Recipe, Scored, Task, mean_square

HOURS, YEAR, SPLIT = 720, 8640, (11520, 14400)


def windows(oil: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (B, 1440, 2) and targets (B, 720, 1), less the last value of the past."""
    past, wanted = (oil[first[:, None] + np.arange(begin, begin + HOURS)] for begin in (-HOURS, 0))
    last = past[:, -1:]
    u = np.zeros((len(first), 2 * HOURS, 2), np.float32)
    u[:, :HOURS, 0], u[:, HOURS:, 1] = past - last, 1
    return u, (wanted - last)[..., None]


def run(run: Run) -> dict[str, Any]:
    oil = data.etth1(run)
    width, updates, batch, every = (16, 300, 16, 48) if run.small else (128, 3000, 50, 1)
    tests = {
        name: Scored(*windows(oil, np.arange(begin, end - HOURS + 1, every)))
        for name, begin, end in (("validation", YEAR, SPLIT[0]), ("test", *SPLIT))
    }

    def batches(draw: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        return windows(oil, draw.integers(HOURS, YEAR - HOURS + 1, size))

    task = Task(batches, tests, mean_square, watched={"validation": tests["validation"]})
    recipes = {
        layer: Recipe(
            models.SequenceModel(2, 1, width, 2, layer, options, dropout=0.25, pool=None, postnorm=True),
            updates, batch, lr=4e-3, loss="squares",
        )
        for layer, options in {
            "S4D": {"d_state": 32, "bidirectional": True}, "S4": {"d_state": 32, "bidirectional": True}, "Mamba": {}
        }.items()
    }  # fmt: skip
    found = run.compare(task, recipes)
    u, wanted = tests["test"].inputs, tests["test"].targets
    naive = {
        "the last value": u[:, HOURS - 1 : HOURS, :1],
        "the mean of the past": u[:, :HOURS, :1].mean(1, keepdims=True),
        "the last day": np.tile(u[:, HOURS - 24 : HOURS, :1], (1, HOURS // 24, 1)),
    }
    report.lines(
        run.folder / "picture.png", report.losses(found), title="ETTh1, 720 hours", xlabel="update",
        ylabel="mean square, validation",
    )  # fmt: skip
    return found | {name: {"scores": {"test": mean_square(y + 0 * wanted, wanted)}} for name, y in naive.items()}
