"""Draws the picture of the documentation's front page, docs/images/front.png: an electrocardiogram remembered."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pywt

import ssm_core

PICTURE = Path(__file__).parents[1] / "images" / "front.png"
INK, SIGNAL, MEMORY = "#7b8794", "#a9b4c0", "#2f7bf6"


def draw(path: Path = PICTURE, N: int = 64) -> Path:
    """With a transparent background and colors that are readable on white and on black."""
    ecg = pywt.data.ecg().astype(float)
    ecg = (ecg - ecg.mean()) / ecg.std()
    L = len(ecg)
    c = ssm_core.hippo_project(ecg, "legs", N)
    past = np.linspace(0.0, 1.0, 1200)
    with plt.rc_context({"font.size": 9, "text.color": INK, "lines.solid_capstyle": "round"}):
        figure, rows = plt.subplots(1, 3, figsize=(10, 2.1), layout="constrained", sharey=True)
        for ax, now in zip(rows, (L // 3, 2 * L // 3, L), strict=True):
            ax.plot(ecg, color=SIGNAL, linewidth=1.1)
            ax.plot(now * (1 - past), ssm_core.hippo_reconstruct(c[now - 1], "legs", past), color=MEMORY, linewidth=1.8)
            ax.axvline(now - 1, color=INK, linewidth=0.8, linestyle=":")
            ax.set_title(f"{now} samples, {N} numbers", color=INK, fontsize=10)
            ax.axis("off")
        figure.savefig(path, dpi=200, transparent=True)
        plt.close(figure)
    return path


if __name__ == "__main__":
    draw()
