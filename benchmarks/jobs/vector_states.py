"""The jobs of recurrences with vectors as states, HGRN, RG-LRU and RWKV-4: beside a scan of their steps, and memory.

Batch 2, 2048 steps, 512 channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import ssm_core

from ..harness import Case, Job
from .common import close, in_jax, in_torch, passes
from .memory import at_most

BATCH, L, WIDTH = 2, 2048, 512
MEMORY_LENGTH = 16384
CHUNK = 64  # steps between the states that RWKV-4 keeps

Arrays = dict[str, Any]


def signals(kind: str, length: int) -> tuple[Arrays, Arrays]:
    """Signals (batch, L, W) and constants (W,), as layers give them."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    x, y, z = (drawn(BATCH, length, WIDTH) for _ in range(3))
    line = np.linspace(-6, -1, WIDTH, dtype=np.float32)
    made: dict[str, tuple[Arrays, Arrays]] = {
        "HGRN": ({"x": x, "log_decay": -np.log1p(np.exp(-y))}, {}),
        "RG-LRU": ({"x": x, "input_gate": y, "recurrent_gate": z}, {"recurrent_param": line}),
        "RWKV-4": ({"k": x, "v": y}, {"log_decay": -np.exp(line), "bonus": drawn(WIDTH)}),
    }
    return made[kind]


OPERATORS = {"HGRN": ssm_core.hgrn, "RG-LRU": ssm_core.rg_lru, "RWKV-4": ssm_core.rwkv4}
UPDATES = {"HGRN": ssm_core.hgrn_update, "RG-LRU": ssm_core.rg_lru_update, "RWKV-4": ssm_core.rwkv4_update}


def operator_jax(kind: str, backward: bool) -> Case:
    """The compiled operator beside a compiled scan of its plain step."""
    import jax
    import jax.numpy as jnp

    moving, constant = signals(kind, L)
    names = (*moving, *constant)
    arrays = tuple(jnp.asarray(a) for a in (*moving.values(), *constant.values()))

    def run(*arrays: Any) -> Any:
        return OPERATORS[kind](**dict(zip(names, arrays, strict=True)))

    def steps(*arrays: Any) -> Any:
        given = dict(zip(names, arrays, strict=True))
        at = {name: jnp.moveaxis(given.pop(name), 1, 0) for name in moving}

        def step(state: Any, at: Arrays) -> tuple[Any, Any]:
            y, state = UPDATES[kind](state, **at, **given)
            return state, y

        first: Any = jnp.zeros((BATCH, WIDTH))
        if kind == "RWKV-4":
            first = (first, first, first)
        if kind != "RG-LRU":
            return jnp.moveaxis(jax.lax.scan(step, first, at)[1], 0, 1)
        y, first = UPDATES[kind](None, **{name: a[0] for name, a in at.items()}, **given)  # a sequence begins
        rest = jax.lax.scan(step, first, {name: a[1:] for name, a in at.items()})[1]
        return jnp.moveaxis(jnp.concatenate([y[None], rest]), 0, 1)

    def check() -> None:
        close(run(*arrays), steps(*arrays), 1e-4)

    others = {"lax.scan of steps": in_jax(steps, arrays, backward)}
    return Case(f"{kind} jax {passes(backward)}", in_jax(run, arrays, backward), others, check, "wanted: 1x", repeats=5)


def long_operator(kind: str) -> Case:
    """Forward and backward of a long sequence in PyTorch: its memory, beside that of inputs and outputs."""
    import torch

    moving, constant = signals(kind, MEMORY_LENGTH)
    given = {name: torch.as_tensor(a).requires_grad_() for name, a in (moving | constant).items()}
    output = BATCH * MEMORY_LENGTH * WIDTH
    states = 3 * output // CHUNK if kind == "RWKV-4" else 0  # others have their outputs as states
    wanted = at_most(sum(x.numel() for x in given.values()), output, states)
    run = in_torch(lambda: OPERATORS[kind](**given), True)
    return Case(f"{kind} torch fwd+bwd, L {MEMORY_LENGTH}", run, {}, None, wanted, repeats=0)


JOBS = {
    **{
        f"{kind.lower()}-jax{tail}": Job(lambda kind=kind, backward=backward: operator_jax(kind, backward), "jax")
        for kind in OPERATORS
        for tail, backward in (("", False), ("-backward", True))
    },
    **{f"memory-{kind.lower()}": Job(lambda kind=kind: long_operator(kind), memory=True) for kind in OPERATORS},
}
