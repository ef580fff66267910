"""What is installed, which backends are active, and why the others are not."""

from __future__ import annotations

from .dispatch import FRAMEWORKS, load
from .errors import is_absent


def backend_table() -> list[tuple[str, str, str, str]]:
    """Rows of (framework, version, fused functions or "-", devices or the reason why it is not active)."""
    return [_row(name) for name in FRAMEWORKS]


def show_backends() -> None:
    """Print which array libraries are installed, which functions are fused for them, and why others have none.

    `python -m ssm_core` prints the same.
    """
    table = [("framework", "version", "fused functions", "devices"), *backend_table()]
    widths = [max(len(row[i]) for row in table) for i in range(3)]
    for row in table:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    print("Every other array-API library runs the generic bodies.")


def _row(name: str) -> tuple[str, str, str, str]:
    try:
        module = load(name)
    except ImportError as error:
        reason = "not installed" if is_absent(error, name, f"{name}lib") else f"not active: {error}"
        return name, _version(name), "-", reason
    return name, _version(name), ", ".join(module.FUSED), module.devices()


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and seldom needed

    for package in (name, "cupy-cuda12x", "cupy-cuda13x") if name == "cupy" else (name,):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "-"
