"""Fixtures that the tests share: the array libraries that the core must be pure for, and golden numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import array_api_compat.numpy
import array_api_strict
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "conformance" / "golden"


@pytest.fixture(params=["numpy", "strictest"])
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A namespace: numpy; the standard and nothing else, without what no compiler can trace."""
    if request.param == "numpy":
        yield array_api_compat.numpy
    else:
        with array_api_strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False):
            yield array_api_strict


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Reads a file of golden numbers; conformance/golden/README.md says where they come from."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays)

    return read


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a model's directory may be made, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """JAX without most optimizations, which take longer than what they speed up on small arrays."""
    try:
        import jax
    except ImportError:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
