"""The Python code that README.md and the pages of the documentation show runs as it stands.

The blocks of a page run from top to bottom in one namespace, in an empty folder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

from ssm_core.layers import LAYERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(Path(__file__).parent.glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONAL = ("torch", "jax", "flax", "equinox", "optax", "scipy", "matplotlib", "array_api_strict", "transformers")


def blocks(page: Path) -> list[tuple[int, str]]:
    """(number of the first line, code) of the fenced Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    code = blocks(page)
    for package in OPTIONAL:
        if any(re.search(rf"\b{package}\b", text) for _, text in code):
            pytest.importorskip(package, reason=f"{page.name} shows code that needs {package}, which is not installed")
    module = ModuleType(f"code_of_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there for their module
    with patch.dict(LAYERS):  # a page's own layer is registered for that page only
        for line, text in code:
            exec(compile("\n" * line + text, str(page), "exec"), vars(module))
