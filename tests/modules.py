"""What tests of modules share: a framework with its modules, a signal, and weights on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import adapters

B, L, H = 2, 20, 4
INNER = {"d_state": 8, "dt_max": 0.5}
FRAMEWORKS = ("torch", "flax", "equinox")
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "channels": {"channels": 2, "n_ssm": 2},
    "real": {"real": True, "init": "real"},
    "bidirectional": {"bidirectional": True},
}


class Framework:
    """What the tests need of a framework: its arrays, and modules with the weights of a definition."""

    def __init__(self, name: str) -> None:
        if name != "torch":
            pytest.importorskip("jax")
        pytest.importorskip(name)
        self.name = name
        self.adapter = getattr(adapters, name)
        self.xp = ssm_core._arrays.library.resolve("torch" if name == "torch" else "jax")

    def module(self, cls: str, *args: Any, seed: int = 0, **options: Any) -> Any:
        if self.name == "torch":
            import torch

            torch.manual_seed(seed)
        elif self.name == "flax":
            from flax import nnx

            options["rngs"] = nnx.Rngs(seed)
        else:
            import jax

            options["key"] = jax.random.key(seed)
        return getattr(self.adapter, cls)(*args, **options)

    def run(self, f: Any, *args: Any) -> Any:
        """f of modules and arrays, compiled where one operation after another would take far longer."""
        if self.name == "torch":
            return f(*args)
        if self.name == "equinox":
            import equinox

            return equinox.filter_jit(f)(*args)
        from flax import nnx

        return nnx.jit(f)(*args)

    def s4d(self, **options: Any) -> Any:
        return self.module("S4D", H, **{**INNER, **options})

    def model(self, **options: Any) -> Any:
        return self.module("SequenceModel", 3, 2, d_model=H, n_layers=1, layer_options=INNER, **options)

    def asarray(self, x: Any) -> Any:
        return self.xp.asarray(x)


def signal(width: int = H, length: int = L) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, length, width)).astype(np.float32)


def to_numpy(x: Any) -> np.ndarray:
    return ssm_core._arrays.library.to_numpy(x)


def host(module: Any) -> dict[str, np.ndarray]:
    """The weights of a module as plain arrays, by their names in files."""
    return {name: to_numpy(x) for name, x in module.arrays().items()}


def close(x: Any, y: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(to_numpy(x), to_numpy(y), rtol=tolerance, atol=tolerance)
