"""Other implementations: packages that may be installed, and repositories in a folder given by --peers.

    DIR/s4            state-spaces/s4, DIR/annotated-s4  srush/annotated-s4

Nothing of them enters the project. What is missing is reported with its reason.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

folder: Path | None = None  # set by the command line


class Missing(Exception):
    """Why a peer is not here."""


def package(name: str, *modules: str) -> Any:
    """An installed package, or modules of it as a tuple."""
    try:
        found = [importlib.import_module(module) for module in modules or (name,)]
    except ImportError as error:
        raise Missing(f"not installed ({error})") from error
    return tuple(found) if modules else found[0]


def repository(name: str, module: str) -> Any:
    """A module of a repository in the folder of peers."""
    if folder is None:
        raise Missing("no --peers DIR given")
    root = folder / name
    if not root.is_dir():
        raise Missing(f"no folder {name} in {folder}")
    sys.path.insert(0, str(root))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except Exception as error:  # of a foreign hand: whatever it raises, it is not here
        raise Missing(f"cannot be imported ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(str(root))


def those_here(makers: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the makers make, and the reasons of those that are missing."""
    found, missing = {}, {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except Missing as error:
            missing[name] = str(error)
    return found, missing
