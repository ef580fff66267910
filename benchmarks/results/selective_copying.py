"""Selective copying: what is remembered depends on the input, so that no time-invariant layer does it alone.

Gu and Dao, Mamba, 2023: two layers with S4 reach 18 %, with Mamba's selective scan 97 to 99.8 %.
"""

from __future__ import annotations

from typing import Any

from ssm_core import models

from . import report, tasks
from .loop import Run
from .recipe import Recipe

LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("Mamba", {}),
    "Mamba2": ("Mamba2", {"d_state": 32, "head_dim": 16}),
    "GLA": ("GLA", {"heads": 2}),
    "H3": ("H3", {"d_state": 32}),
    "S4D": ("S4D", {"d_state": 64}),
    "LRU": ("LRU", {"d_state": 64}),
}


def run(run: Run) -> dict[str, Any]:
    width, updates, batch, lr, length, remembered, vocab = (
        (32, 1500, 16, 1e-2, 32, 4, 8) if run.small else (64, 400_000, 64, 5e-3, 4096, 16, 16)
    )
    task = tasks.over_lengths(tasks.selective_copying(remembered, vocab), length, (length,), 512)
    recipes = {
        name: Recipe(models.LanguageModel(vocab, width, 2, layer, options), updates, batch, lr=lr)
        for name, (layer, options) in LAYERS.items()
    }
    found = run.compare(task, recipes)
    report.lines(
        run.folder / "picture.png", report.losses(found), title=f"selective copying of {remembered} tokens",
        xlabel="update", ylabel="cross-entropy",
    )  # fmt: skip
    return found
