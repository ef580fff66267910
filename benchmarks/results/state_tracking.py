"""Products of permutations of three things: reflections of a delta rule compose them, diagonal states cannot.

A product of n (I - beta k k^T) a token reaches every permutation of three things in one layer with n = 2 and beta up to
2 (Siems, Carstensen, Zela, Hutter, Pontil and Grazzi, DeltaProduct, 2025); a diagonal transition commutes.
No layer has its short convolution, which mixes neighbors without a state.
"""

from __future__ import annotations

from typing import Any

from ssm_core import models

from . import report, tasks
from .loop import Run
from .recipe import Recipe


def run(run: Run) -> dict[str, Any]:
    width, updates, batch, trained, tested = (
        (32, 1000, 64, 10, (10, 20, 40, 80)) if run.small else (128, 50_000, 256, 128, (64, 128, 256, 512))
    )
    products = {"heads": 2, "head_dim": width // 2, "expand_v": 1.0, "d_conv": 1, "forget_gate": False}
    products |= {"output_gate": False}
    layers: dict[str, tuple[str, dict[str, Any]]] = {
        f"DeltaProduct n = {n}, beta to {1 + negative}": (
            "GatedDeltaProduct",
            products | {"num_householder": n, "negative_eigenvalues": bool(negative)},
        )
        for n in (1, 2)
        for negative in (0, 1)
    }
    layers |= {"Mamba": ("Mamba", {"d_conv": 1}), "GLA": ("GLA", {"heads": 2}), "S4D": ("S4D", {"d_state": 32})}
    recipes = {
        name: Recipe(
            models.LanguageModel(6, width, 1, layer, options, channel_mix="gated_mlp"), updates, batch, lr=1e-2
        )
        for name, (layer, options) in layers.items()
    }
    found = run.compare(tasks.over_lengths(tasks.composed(3), trained, tested, 128), recipes)
    report.over_lengths(run.folder / "picture.png", found, title=f"S3, trained on {trained} steps", unit="steps")
    return found
