"""The examples of the gallery run cell by cell, as it runs them, and what every cell draws is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

for package in ("torch", "flax", "equinox", "optax", "matplotlib", "sklearn", "scipy", "pywt"):
    pytest.importorskip(package, reason=f"the gallery needs {package}, which is not installed")

EXAMPLES = sorted((Path(__file__).parent / "gallery").glob("*.py"))


def cells(text: str) -> list[str]:
    return re.split(r"^(?=# %%)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_draws(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    names: dict[str, object] = {"__name__": "__main__", "__file__": str(example)}
    drawn, line = 0, 0
    for cell in cells(example.read_text(encoding="utf-8")):
        exec(compile("\n" * line + cell, str(example), "exec"), names)
        line += cell.count("\n")
        figures = [plt.figure(number) for number in plt.get_fignums()]
        assert all(ax.has_data() for figure in figures for ax in figure.axes), f"empty axes before line {line + 1}"
        drawn += len(figures)
        plt.close("all")  # a figure is shown behind the cell that makes it: nothing is added to it later
    assert drawn
