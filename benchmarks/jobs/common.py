"""What the jobs share: sizes, checks, and the ways to run a function of PyTorch or JAX for timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..harness import Work

H, D_STATE = 256, 64  # channels, and real states of each (32 conjugate pairs)
BATCH, LENGTH = 8, 2048  # of whole layers


def close(actual: Any, expected: Any, tolerance: float) -> None:
    """Raise unless the results agree, relative to the largest value."""
    found = error(on_host(actual), on_host(expected))
    if not found < tolerance:
        raise AssertionError(f"the results differ by {found:.1e} of the largest value; nothing was timed")


def error(actual: Any, expected: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def on_host(x: Any) -> np.ndarray:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def in_torch(work: Callable[[], Any], backward: bool) -> Work:
    """The work of a forward pass, without recording it or with its backward."""
    import torch

    if backward:
        return lambda: work().sum().backward()
    return torch.no_grad()(work)


def in_jax(function: Callable[..., Any], arguments: tuple[Any, ...], backward: bool) -> Work:
    """A compiled function, or the gradients of its sum for all arguments."""
    import jax

    if backward:
        run = jax.jit(jax.grad(lambda *given: function(*given).sum(), tuple(range(len(arguments)))))
    else:
        run = jax.jit(function)
    return lambda: jax.block_until_ready(run(*arguments))


def passes(backward: bool) -> str:
    """How a job's name says what was run."""
    return "fwd+bwd" if backward else "fwd"
