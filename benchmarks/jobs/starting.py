"""What comes before the first result: importing, and compiling in JAX."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np

import ssm_core

from ..harness import Case, Job
from .common import BATCH, D_STATE, H


def importing(module: str, *others: str) -> Case:
    """The import of a module in a fresh process, against those of what it stands on."""

    def fresh(statement: str) -> Any:
        return lambda: subprocess.run([sys.executable, "-c", statement], check=True)

    run = {f"import {other}": fresh(f"import {other}") for other in others}
    return Case(f"import {module}", fresh(f"import {module}"), run, repeats=5)


def compiling(kind: str) -> list[Case]:
    """The first call of a layer in JAX, forward and backward, over lengths: it must not grow."""
    import jax
    import jax.numpy as jnp

    options = {"d_state": D_STATE} if kind == "S4D" else {}
    layer = getattr(ssm_core.layers, kind)(H, **options)
    params = layer.initial_parameters(0, xp="jax")

    def first_call(length: int) -> Any:
        u = jnp.asarray(np.zeros((BATCH, length, H), np.float32))

        def compile() -> None:
            jax.clear_caches()
            jax.jit(jax.grad(lambda p, u: layer.apply(p, u).sum(), (0, 1))).lower(params, u).compile()

        return compile

    lengths = (1024, 4096, 16384)
    return [Case(f"{kind} jax, compile L={n}", first_call(n), {}, wanted="", repeats=2) for n in lengths]


JOBS = {
    "import": Job(lambda: importing("ssm_core", "numpy", "torch"), "numpy"),
    "import-torch": Job(lambda: importing("ssm_core.adapters.torch", "torch"), "torch"),
    "import-jax": Job(lambda: importing("ssm_core.adapters.flax", "jax", "flax.nnx"), "jax"),
    "compile-s4d": Job(lambda: compiling("S4D"), "jax"),
    "compile-mamba": Job(lambda: compiling("Mamba"), "jax"),
}
