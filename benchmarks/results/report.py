"""What a result leaves: JSON, a picture, and its rows as text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import floor


def write(path: Path, name: str, numbers: Mapping[str, Any], **about: Any) -> None:
    """The numbers of a result, with the machine and the versions that they belong to; whole at any time."""
    told = {"name": name, **about, "machine": floor.machine(), "numbers": numbers}
    beside = path.with_suffix(".new.json")
    beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def lines(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log: str = "",
) -> None:
    """Curves with their names, on axes of which `log` names those that are logarithmic ("x", "y", "xy")."""
    with axes(path, title=title, xlabel=xlabel, ylabel=ylabel) as ax:
        for i, (name, (x, y)) in enumerate(curves.items()):
            ax.plot(x, y, marker="osv^D*"[i % 6], markersize=4, label=name, linestyle=("-", "--", ":")[i // 10 % 3])
        if "x" in log:
            ax.set_xscale("log", base=2)
        if "y" in log:
            ax.set_yscale("log")


def over_lengths(path: Path, found: Mapping[str, Mapping[str, Any]], *, title: str, unit: str) -> None:
    """The accuracies of every model over the lengths of its tests."""
    lines(path, scores(found), title=title, xlabel=unit, ylabel="accuracy", log="x")


def bars(path: Path, found: Mapping[str, Mapping[str, Any]], *, title: str, ylabel: str) -> None:
    """The scores of every model side by side, a color a test."""
    tests = list(next(iter(found.values()))["scores"])
    with axes(path, title=title, xlabel="", ylabel=ylabel) as ax:
        for i, test in enumerate(tests):
            places = [k + 0.8 * (i + 0.5) / len(tests) - 0.4 for k in range(len(found))]
            ax.bar(places, [one["scores"][test] for one in found.values()], 0.8 / len(tests), label=test)
        ax.set_xticks(range(len(found)), list(found))


@contextmanager
def axes(path: Path, **labels: str) -> Iterator[Any]:
    """Axes to draw on, with a legend, which become a picture."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    yield ax
    ax.set(**labels)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def scores(found: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Curves over the tests, whose names are numbers."""
    return {
        name: ([float(test) for test in one["scores"]], list(one["scores"].values())) for name, one in found.items()
    }


def losses(found: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Curves over the updates: the watched score where there is one, else the loss."""
    curves = {}
    for name, one in found.items():
        if one["watched"]:
            curves[name] = tuple(map(list, zip(*((row[0], row[1]) for row in one["watched"]), strict=True)))
        else:
            n = len(one["losses"])
            curves[name] = ([(i + 0.5) * one["updates"] / n for i in range(n)], one["losses"])
    return curves
