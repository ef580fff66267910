"""Multi-query associative recall over the width: how large a memory must be to hold the pairs.

Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra and Re, Zoology, 2023: attention recalls at any width,
convolutions only where the width grows with the length; Yang, Wang, Zhang, Shen and Kim, 2024: DeltaNet recalls all of
64 pairs at widths where memories with decays do not. As in Arora and others, Based, 2024, batches mix numbers of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssm_core import models

from . import report, tasks
from .loop import Run
from .recipe import Recipe


def layers(width: int, length: int) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        "LocalAttention": ("LocalAttention", {"heads": 1, "window": length, "rotary": 1.0}),
        "DeltaNet": ("DeltaNet", {"heads": 1}),
        "RWKV7": ("RWKV7", {"head_dim": width}),
        "Mamba2": ("Mamba2", {"d_state": 32, "head_dim": 16}),
        "Mamba": ("Mamba", {}),
        "GLA": ("GLA", {"heads": 1}),
        "LinearAttention": ("LinearAttention", {"heads": 1}),
        "H3": ("H3", {"d_state": 32}),
        "Hyena": ("Hyena", {"l_max": length}),
        "S4D": ("S4D", {"d_state": 32}),
    }


def run(run: Run) -> dict[str, Any]:
    widths, updates, batch, lr, length, pairs, vocab = (
        ((16, 32, 64), 1500, 64, 5e-3, 32, (1, 2, 4, 8), 32)
        if run.small
        else ((64, 128, 256, 512), 50_000, 128, 3e-3, 512, (4, 8, 16, 32, 64), 8192)
    )
    task = tasks.over_pairs(pairs, vocab, length, 256)
    recipes = {
        f"{name} {width}": Recipe(models.LanguageModel(vocab, width, 2, layer, options), updates, batch, lr=lr)
        for width in widths
        for name, (layer, options) in layers(width, length).items()
    }
    found = run.compare(task, recipes)
    title = f"recall of {max(pairs)} pairs among {length} tokens"
    curves = by_width(found, str(max(pairs)))
    report.lines(run.folder / "picture.png", curves, title=title, xlabel="width", ylabel="accuracy", log="x")
    return found


def by_width(found: dict[str, dict[str, Any]], test: str) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """The score in one test of every layer, over its widths."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, one in found.items():
        layer, _, width = name.rpartition(" ")
        x, y = curves.setdefault(layer, ([], []))
        x.append(float(width))
        y.append(one["scores"][test])
    return dict(curves)
