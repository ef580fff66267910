"""Spoken digits, sample by sample: raw sound of 8 kHz without features.

Published for the ten words of Speech Commands at 16 kHz: S4 98.32 % (Gu, Goel and Ré, 2021). The Free Spoken
Digit Dataset has six speakers, who are in the tests too.
"""

from __future__ import annotations

from typing import Any

from ssm_core import models

from . import data, report
from .loop import Run
from .recipe import Recipe, Scored, Task, drawn_from


def run(run: Run) -> dict[str, Any]:
    width, depth, updates, batch, length = (16, 2, 400, 16, 2048) if run.small else (128, 6, 30_000, 32, 8192)
    x, y, x_test, y_test = data.digits(run, length)
    task = Task(
        drawn_from(x, y),
        {"test clips": Scored(x_test, y_test)},
        watched={"some of them": Scored(x_test[::4], y_test[::4])},
    )
    recipes = {
        layer: Recipe(models.SequenceModel(1, 10, width, depth, layer, options), updates, batch, lr=1e-2)
        for layer, options in {"S4D": {"d_state": 32}, "Mamba": {"d_state": 8}}.items()
    }
    found = run.compare(task, recipes)
    report.lines(
        run.folder / "picture.png", report.losses(found), title="spoken digits", xlabel="update", ylabel="accuracy"
    )
    return found
