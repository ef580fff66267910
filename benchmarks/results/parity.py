"""Parity beyond the lengths of the training: it needs a transition of eigenvalue -1 that the input chooses.

Grazzi, Siems, Zela, Franke, Hutter and Pontil, Unlocking state-tracking in linear RNNs through negative eigenvalues,
2024: with eigenvalues in (0, 1) no number of layers tells the parity of all lengths.
"""

from __future__ import annotations

from typing import Any

from ssm_core import models

from . import report, tasks
from .loop import Run
from .recipe import Recipe


def run(run: Run) -> dict[str, Any]:
    width, updates, batch, trained, tested = (
        (32, 800, 32, 32, (16, 32, 64, 128, 256)) if run.small else (128, 20_000, 256, 40, (40, 64, 128, 256))
    )
    delta = {"heads": 2, "d_conv": 4}
    layers: dict[str, tuple[str, dict[str, Any]]] = {
        "DeltaNet, beta to 1": ("DeltaNet", delta),
        "DeltaNet, beta to 2": ("DeltaNet", delta | {"negative_eigenvalues": True}),
        "RWKV7": ("RWKV7", {"head_dim": width // 2}),
        "Mamba": ("Mamba", {}),
        "GLA": ("GLA", {"heads": 2}),
        "MLSTM": ("MLSTM", {"heads": 2}),
        "LRU": ("LRU", {"d_state": 32}),
        "S4D": ("S4D", {"d_state": 32}),
    }
    recipes = {
        name: Recipe(
            models.LanguageModel(2, width, 1, layer, options, channel_mix="gated_mlp"), updates, batch, lr=5e-3
        )
        for name, (layer, options) in layers.items()
    }
    found = run.compare(tasks.over_lengths(tasks.parity, trained, tested, 256), recipes)
    report.over_lengths(run.folder / "picture.png", found, title=f"parity, trained on {trained} bits", unit="bits")
    return found
