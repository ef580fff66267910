"""Sequential MNIST in a random order of pixels, see `mnist`."""

from __future__ import annotations

from typing import Any

from . import mnist
from .loop import Run


def run(run: Run) -> dict[str, Any]:
    return mnist.run(run, permuted=True)
