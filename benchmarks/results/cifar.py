"""Gray images of CIFAR-10 as 1024 pixels, with the minimal S4D: the example of state-spaces/s4, which tells 84 %.

Four blocks of 128 channels with norms behind the residuals, dropout 0.1, batches of 64, 100 epochs, AdamW at 0.01 with
weight decay 0.01, and 0.001 for the poles and steps. In the small size its own code has been trained too, on the same
batches from the same first weights; cifar_original.json keeps what that gave, and says how.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssm_core import models

from . import data, report
from .loop import Run
from .recipe import Recipe, Scored, Task, drawn_from

ORIGINAL = Path(__file__).with_name("cifar_original.json")


def run(run: Run) -> dict[str, Any]:
    x, y, x_test, y_test = data.cifar(run)
    width, depth, updates, batch, tested = (32, 2, 6_000, 32, 1000) if run.small else (128, 4, 78_200, 64, len(x_test))
    model = models.SequenceModel(1, 10, width, depth, layer_options={"trainable_B": False}, dropout=0.1, postnorm=True)
    recipe = Recipe(model, updates, batch, lr=0.01, warmup=0.0)
    watched = {"some of them": Scored(x_test[: tested // 4], y_test[: tested // 4])}
    task = Task(drawn_from(x, y), {"test images": Scored(x_test[:tested], y_test[:tested])}, watched=watched)
    found = run.compare(task, {"S4D": recipe})
    if run.small:
        found["the original"] = json.loads(ORIGINAL.read_text(encoding="utf-8"))
    report.lines(
        run.folder / "picture.png",
        report.losses(found),
        title="sequential CIFAR-10",
        xlabel="update",
        ylabel="accuracy",
    )
    return found
