"""Multi-query associative recall over the width, for eight layers: how large a memory must be to hold the pairs.

Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra and Re, Zoology, 2023: attention recalls at any width,
convolutions only where the width grows with the length, gated and delta memories in between.
"""

from __future__ import annotations

from typing import Any

from ssm_core import models

from . import report, tasks
from .loop import Run
from .recipe import Recipe


def layers(width: int, length: int) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        "LocalAttention": ("LocalAttention", {"heads": 1, "window": length, "rotary": 1.0}),
        "S4D": ("S4D", {"d_state": 32}),
        "H3": ("H3", {"d_state": 32}),
        "Hyena": ("Hyena", {"l_max": length}),
        "Mamba": ("Mamba", {}),
        "Mamba2": ("Mamba2", {"d_state": 32, "head_dim": 16}),
        "GLA": ("GLA", {"heads": 1}),
        "DeltaNet": ("DeltaNet", {"heads": 1}),
    }


def run(run: Run) -> dict[str, Any]:
    widths, updates, batch, length, pairs, vocab = (
        ((16, 32), 600, 32, 16, 2, 16) if run.small else ((64, 128, 256, 512), 50_000, 128, 512, 64, 8192)
    )
    task = tasks.over_lengths(tasks.recall(pairs, vocab), length, (length,), 256)
    recipes = {
        f"{name} {width}": Recipe(models.LanguageModel(vocab, width, 2, layer, options), updates, batch, lr=1e-2)
        for width in widths
        for name, (layer, options) in layers(width, length).items()
    }
    found = run.compare(task, recipes)
    report.lines(
        run.folder / "picture.png", by_width(found), title=f"recall of {pairs} pairs, {length} tokens",
        xlabel="width", ylabel="accuracy", log="x",
    )  # fmt: skip
    return found


def by_width(found: dict[str, dict[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, one in found.items():
        layer, _, width = name.rpartition(" ")
        x, y = curves.setdefault(layer, ([], []))
        x.append(float(width))
        y.extend(one["scores"].values())
    return curves
