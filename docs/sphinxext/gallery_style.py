"""How the gallery's pictures look: the same in every example, readable on a light page and on a dark one."""

from __future__ import annotations

import multiprocessing
from typing import Any

COLORS = ("#2563eb", "#e4572e", "#17a398", "#8f5bd7", "#e0a100", "#5b6470")
STYLE = {
    "figure.figsize": (7.2, 4.0),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "font.size": 10,
}


def reset(_configuration: dict[str, Any], _file: str) -> None:
    """Called by sphinx-gallery before every example."""
    import matplotlib as mpl

    if multiprocessing.get_start_method(allow_none=True) == "loky":
        _settle()
    mpl.rcdefaults()
    mpl.use("agg")
    mpl.rcParams.update(STYLE)
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=COLORS)


def _settle() -> None:
    """For one of joblib's processes: it may start others, and it stays.

    What an example starts knows no joblib. And joblib takes 300 MB more than after the first example for a leak, and
    stops the process with a warning; the frameworks alone are more, and a new process imports them again.
    """
    from joblib.externals.loky import process_executor

    multiprocessing.set_start_method("spawn", force=True)
    process_executor._MAX_MEMORY_LEAK_SIZE = float("inf")
