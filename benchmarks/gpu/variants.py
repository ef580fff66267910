"""What compiled code cannot decide: constants of the kernels as they are and otherwise, beside each other by the clock.

Registers and spills that ptxas counts for Hopper stand beside a variant where they are the reason to try it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


def tile(T: int, D: int, warps: int) -> Any:
    """Of the selective scan, for 16 states."""
    return lambda states, channels: (T, D, 16, warps)


# Work of `timings`: the operator, and its variants by name.
VARIANTS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "selective_scan": ("selective", {
        "one tile in flight": {"STAGES": (1, 1)},  # 96 registers forward, not 64
        "four tiles in flight, three backward": {"STAGES": (4, 3)},
        "half of the warps": {"tile": tile(16, 16, 4)},  # sums over channels within a thread, and spills backward
        "8 steps of 32 channels": {"tile": tile(8, 32, 8)},  # fewer parts of gradients, more states kept
    }),
    "ssd": ("duality", {
        "one chunk of the walk in flight": {"WALK_STAGES": 1},  # 179 registers, not 211
        "three chunks of the walk in flight": {"WALK_STAGES": 3},
        "one head a program": {"HEADS": 1},  # 184 bytes spilled, not 400, and eight times the gradients of B and C
        "four heads a program": {"HEADS": 4},
    }),
    "S4D chunk": ("state_passing", {
        "16 steps": {"STEPS": 16},  # 0, 152, 0 bytes spilled, not 120, 616, 200, and twice as many turns
        "four warps": {"WARPS": 4},
        "8 rows forward": {"FORWARD_ROWS": 8},  # 0 bytes spilled, not 120, and twice as many programs
    }),
    "linear_scan, (B, L, H)": ("scans", {
        "one warp": {"WARPS": 1},  # which has all steps: nothing goes through shared memory
        "one warp, five tiles in flight": {"WARPS": 1, "STAGES": 5},
    }),
    "linear_scan, narrow": ("scans", {
        "time in one piece": {"FEWEST": 2**31},  # 32 programs, each with 16 tiles one after another
        "half of the segments": {"PROGRAMS": 256},  # of two tiles each
    }),
}  # fmt: skip

# Work of `libraries` with CuPy and with JAX: the module of their backend, and constants of it by name.
OF_CUPY: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "linear_scan": {
        "always in blocks of time": ("scans", {"ENOUGH": 2**31}),  # five passes over memory, not three
    },
    "linear_scan, time last": {
        "a row a thread": ("scans", {"STAGED": False}),  # 128 registers, not 255, and no line of memory is read at once
        "always in blocks of time": ("scans", {"ENOUGH": 2**31}),
    },
    "selective_scan": {
        "a row a thread": ("selective", {"STAGED": False}),  # 168 registers either way, and no shared memory
        "in one piece": ("selective", {"FILLED": 128}),  # half of the exponentials, a third of the threads
    },
}
OF_JAX: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "selective_scan": {
        "8 steps a turn": ("selective", {"UNROLL": 8}),  # 432 launches forward, not 720, and twice as long to compile
        "half as many blocks": ("selective", {"WIDE": 2**21}),
        "twice as many blocks": ("selective", {"WIDE": 2**23}),
    },
}


def changed(operator: str, constants: dict[str, Any]) -> AbstractContextManager[None]:
    """Within the block the kernels of an operator are launched with other constants."""
    folder = f"ssm_core.backends.torch.{operator}"
    return with_constants([f"{folder}.{name}" for name in ("body", "triton_kernels")], constants)


@contextmanager
def with_constants(names: list[str], constants: dict[str, Any]) -> Iterator[None]:
    """Within the block the modules have other constants."""
    modules = [importlib.import_module(name) for name in names]
    places = [(module, name) for module in modules for name in constants if hasattr(module, name)]
    missing = set(constants) - {name for _, name in places}
    if missing:
        raise AttributeError(f"{' and '.join(names)} have no {', '.join(sorted(missing))}")
    before = [getattr(*place) for place in places]
    try:
        for module, name in places:
            setattr(module, name, constants[name])
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)
