"""The picture of the digits example: two loss curves, what was learned, and how well."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

import ssm_core

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

BEFORE, AFTER, ACCENT, INK = "#9aa5b1", "#1f6f8b", "#e4572e", "#22303c"
STYLE = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b8c1cb",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e9edf1",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def draw(
    path: Path,
    losses: dict[str, np.ndarray],
    start: Path,
    end: Path,
    images: np.ndarray,
    labels: np.ndarray,
    stepped: np.ndarray,
) -> Path:
    """Write the picture; start and end are weight files, stepped the logits (B, L, 10) after every pixel."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(14, 8.6), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
        grid = figure.add_gridspec(2, 3, width_ratios=(1.15, 1, 1))
        _loss_curves(figure, grid[0, :2], losses)
        _confusion(figure.add_subplot(grid[0, 2]), labels, stepped[:, -1].argmax(-1))
        _kernels(figure, grid[1, 0], start, end, images.shape[1])
        _poles(figure.add_subplot(grid[1, 1]), start, end)
        _belief(figure, grid[1, 2], images, labels, stepped)
        figure.savefig(path, dpi=160)
        plt.close(figure)
    return path


def _loss_curves(figure: Figure, place: SubplotSpec, losses: dict[str, np.ndarray]) -> None:
    inner = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.05)
    top = figure.add_subplot(inner[0])
    below = figure.add_subplot(inner[1], sharex=top)
    top.semilogy(losses["torch"], color=ACCENT, alpha=0.55, linewidth=3.2, label="PyTorch")
    top.semilogy(losses["flax"], color=INK, linewidth=0.8, label="Flax")
    top.set(title="Same weights, same batches: the same training in PyTorch and in Flax", ylabel="cross-entropy")
    top.tick_params(labelbottom=False)
    top.legend(loc="upper right", ncols=2)
    difference = np.abs(losses["torch"] - losses["flax"])
    below.semilogy(np.maximum(difference, 1e-9), color=AFTER, linewidth=0.8)
    below.set(xlabel="update", ylabel="|difference|", xlim=(0, len(difference) - 1))
    below.set_ylim(top=100 * max(difference.max(), 1e-9))
    below.annotate(
        f"largest {difference.max():.1e}", (1, 1), (-4, -4), "axes fraction", "offset points", ha="right", va="top"
    )


def _confusion(axes: Axes, labels: np.ndarray, predicted: np.ndarray) -> None:
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, predicted), 1)
    shade = np.ma.masked_equal(counts / np.maximum(counts.sum(1, keepdims=True), 1), 0)
    axes.imshow(shade, cmap=matplotlib.colors.LinearSegmentedColormap.from_list("", ("#dcebf0", AFTER)), vmin=0, vmax=1)
    for (row, column), n in np.ndenumerate(counts):
        if n:
            axes.text(
                column, row, n, ha="center", va="center", color="white" if row == column else ACCENT, fontsize=8.5
            )
    axes.set(title=f"NumPy, one pixel at a time: {np.mean(labels == predicted):.1%} right")
    axes.set(xlabel="predicted", ylabel="digit", xticks=range(10), yticks=range(10))
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _first_layer(weights: Path) -> tuple[ssm_core.layers.S4D, ssm_core.layers.Parameters]:
    model, params = ssm_core.load(weights)
    return model.block(), model.block_parameters(params, 0)


def _kernels(figure: Figure, place: SubplotSpec, start: Path, end: Path, length: int) -> None:
    before, after = (layer.kernel(params, length)[0] for layer, params in map(_first_layer, (start, end)))
    change = np.linalg.norm(after - before, axis=-1) / np.linalg.norm(before, axis=-1)
    chosen = np.argsort(change)[::-1][: min(4, len(change))]
    panels = place.subgridspec(len(chosen), 1, hspace=0.06).subplots(sharex=True, squeeze=False)[:, 0]
    for axes, h in zip(panels, np.sort(chosen), strict=True):
        axes.axhline(0, color="#d5dbe1", linewidth=0.8)
        axes.plot(before[h], color=BEFORE, linewidth=1.3, linestyle=(0, (4, 2)), label="before")
        axes.plot(after[h], color=AFTER, linewidth=1.8, label="after training")
        axes.set(yticks=[], ylabel=f"channel {h}", xlim=(0, length - 1))
        axes.yaxis.label.set_size(8.5)
        axes.spines["left"].set_visible(False)
    panels[0].set_title("Kernels of the first layer that changed most")
    panels[-1].set_xlabel("pixels ago", loc="left")
    panels[-1].legend(loc="upper right", bbox_to_anchor=(1.02, -0.25), ncols=2, borderaxespad=0)


def _poles(axes: Axes, start: Path, end: Path) -> None:
    """Continuous poles of all channels of the first layer, each with its conjugate."""
    pairs = []
    for weights in (start, end):
        layer, params = _first_layer(weights)
        system, _ = layer.system(params, np)
        pairs.append(ssm_core.poles(system).ravel())
    before, after = pairs
    axes.plot(
        np.stack([before.real, after.real]),
        np.stack([before.imag, after.imag]),
        color=BEFORE,
        alpha=0.35,
        linewidth=0.6,
    )
    axes.scatter(after.real, after.imag, s=11, color=AFTER, alpha=0.75, linewidths=0, label="after training", zorder=3)
    axes.scatter(
        before.real, before.imag, s=26, facecolors="white", edgecolors=INK, linewidths=1, label="before", zorder=4
    )
    axes.axvline(0, color=ACCENT, linewidth=1)
    axes.set(title="Poles of the first layer", xlabel="Re: decay", ylabel="Im: frequency")
    axes.set_ylim(-1.12 * np.abs(after.imag).max(), 1.3 * np.abs(after.imag).max())
    axes.legend(loc="upper left", ncols=2)


def _belief(figure: Figure, place: SubplotSpec, images: np.ndarray, labels: np.ndarray, stepped: np.ndarray) -> None:
    """Class probabilities after every pixel of one image, above the pixels as they arrive."""
    chance = np.exp(stepped - stepped.max(-1, keepdims=True))
    chance = chance / chance.sum(-1, keepdims=True)
    shown = _late_verdict(chance, labels)
    chance, pixels = chance[shown], images[shown, :, 0]
    side, final = int(len(pixels) ** 0.5), chance[-1].argmax()
    inner = place.subgridspec(2, 2, width_ratios=(5, 1), height_ratios=(14, 1), hspace=0.02, wspace=0.02)
    axes, image = figure.add_subplot(inner[0, 0]), figure.add_subplot(inner[0, 1])
    strip = figure.add_subplot(inner[1, 0], sharex=axes)
    for digit in np.argsort(chance.max(0)):
        high = chance[:, digit].max() > 0.4
        color = AFTER if digit == final else ACCENT if high else BEFORE
        axes.plot(chance[:, digit], color=color, linewidth=2.4 if digit == final else 1.2, alpha=1 if high else 0.5)
        if high:
            peak = int(chance[:, digit].argmax())
            text = {"ha": "center", "color": color, "weight": "bold", "annotation_clip": False}
            axes.annotate(str(digit), (peak, chance[peak, digit]), (0, 4), textcoords="offset points", **text)
    axes.set(title="What stepping believes as pixels arrive", ylabel="probability", ylim=(0, 1.08))
    axes.tick_params(labelbottom=False)
    strip.imshow(pixels[None], cmap="gray_r", aspect="auto")
    strip.set(xlabel="pixels seen", xlim=(-0.5, len(pixels) - 0.5))
    image.imshow(pixels.reshape(side, side), cmap="gray_r")
    image.set(xticks=[], anchor="N")
    for bare in (strip, image):
        bare.set(yticks=[])
        bare.grid(visible=False)
        bare.spines[:].set(visible=True, color="#d5dbe1")


def _late_verdict(chance: np.ndarray, labels: np.ndarray) -> int:
    """The image that was classified right in the end, but only shortly before it."""
    verdict = chance.argmax(-1)
    pixels_settled = np.cumprod((verdict == verdict[:, -1:])[:, ::-1], axis=1).sum(1)
    right = np.flatnonzero(verdict[:, -1] == labels)
    candidates = right if len(right) else np.arange(len(labels))
    return int(candidates[np.argmin(pixels_settled[candidates] - 10 * chance[candidates, -1].max(-1))])
