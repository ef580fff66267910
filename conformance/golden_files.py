"""Reads the numbers of other implementations in `golden/`, whose README gives sources, equations and names."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Numbers = dict[str, np.ndarray]
FOLDER = Path(__file__).with_name("golden")


def files(*patterns: str, without: str = "", where: Callable[[Numbers], bool] = lambda numbers: True) -> Any:
    """Parametrizes a test by `path`: every file that fits one of the patterns; none at all is an error."""
    found = sorted(
        path
        for path in FOLDER.glob("*.npz")
        if any(fnmatch(path.stem, p) for p in patterns)
        and not (without and fnmatch(path.stem, without))
        and where(read(path))
    )
    if not found:
        raise FileNotFoundError(f"no file in {FOLDER} fits {', '.join(patterns)}")
    return pytest.mark.parametrize("path", found, ids=[path.stem for path in found])


def read(path: Path) -> Numbers:
    with np.load(path) as arrays:
        return dict(arrays)


def described(path: Path) -> str:
    """What the README says that made a file, with its options; nothing where it does not list it."""
    lines = FOLDER.joinpath("README.md").read_text().splitlines()
    return next((line for line in lines if line.startswith(f"| {path.name} |")), "")


def discretization(path: Path, config: dict[str, Any] | None = None) -> str:
    """Of the configuration where there is one, else of the file's name: S4's own default is zoh."""
    named = "bilinear" if "bilinear" in path.stem else "zoh"
    return str((config or {}).get("disc", named))
