"""The examples of the gallery run as programs, and each draws something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

for package in ("torch", "flax", "optax", "matplotlib", "sklearn", "scipy", "pywt"):
    pytest.importorskip(package, reason=f"the gallery needs {package}, which is not installed")

EXAMPLES = sorted((Path(__file__).parent / "gallery").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_draws(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    try:
        runpy.run_path(str(example), run_name="__main__")
        assert plt.get_fignums()
    finally:
        plt.close("all")
