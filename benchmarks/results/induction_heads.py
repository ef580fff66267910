"""Induction heads: recall of what followed a mark, on sequences up to many times as long as those of the training.

Gu and Dao, Mamba, 2023: trained on 256 tokens, two layers of Mamba are right to 2^20 tokens;
attention, H3 and Hyena fail beyond twice the length.
"""

from __future__ import annotations

from typing import Any

from ssm_core import models

from . import report, tasks
from .loop import Run
from .recipe import Recipe


def run(run: Run) -> dict[str, Any]:
    width, updates, batch, trained, tested = (
        (32, 500, 16, 32, (16, 32, 64, 128, 512, 2048))
        if run.small
        else (64, 200_000, 8, 256, tuple(2**k for k in range(6, 21, 2)))
    )
    layers: dict[str, tuple[str, dict[str, Any]]] = {
        "Mamba": ("Mamba", {}),
        "Mamba2": ("Mamba2", {"d_state": 32, "head_dim": 16}),
        "H3": ("H3", {"d_state": 32}),
        "Hyena": ("Hyena", {"l_max": max(tested)}),
        "S4D": ("S4D", {"d_state": 64}),
    }
    recipes = {
        name: Recipe(models.LanguageModel(16, width, 2, layer, options), updates, batch, lr=5e-3)
        for name, (layer, options) in layers.items()
    }
    found = run.compare(tasks.over_lengths(tasks.induction(16), trained, tested, 128), recipes)
    report.over_lengths(
        run.folder / "picture.png", found, title=f"induction heads, trained on {trained} tokens", unit="tokens"
    )
    return found
