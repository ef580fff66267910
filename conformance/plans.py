"""Random ways to cut a sequence into pieces, each run in a mode of its own, drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .backends import Backend

MODES = ("conv", "chunk", "scan", "auto", "step")
RESTARTING = ("chunk", "scan", "auto")  # modes that take resets
# Around the chunk of 64 steps, and that of 32 with resets.
LENGTHS = (1, 2, 5, 16, 31, 33, 40, 65, 130)
STEPPED = 7  # the longest piece that is run step by step


@dataclass(frozen=True)
class Plan:
    """Pieces (length, mode) of a sequence, and what else is there."""

    pieces: tuple[tuple[int, str], ...]
    seed: int
    initial: bool

    @property
    def length(self) -> int:
        return sum(n for n, _ in self.pieces)


def plans(backend: Backend, modes: tuple[str, ...] = MODES) -> st.SearchStrategy[Plan]:
    lengths = st.sampled_from([n for n in LENGTHS if backend.can_loop(n)])
    piece = st.sampled_from(modes).flatmap(
        lambda mode: st.tuples(st.integers(1, STEPPED) if mode == "step" else lengths, st.just(mode))
    )
    pieces = st.lists(piece, min_size=2, max_size=4).map(tuple)
    return st.builds(Plan, pieces, st.integers(0, 2**16), st.booleans())


def explore(backend: Backend, examples: int, body: Callable[[Plan], Any], modes: tuple[str, ...] = MODES) -> None:
    """body for some plans, the same ones in every run; fewer where each is compiled, and those are not shrunk."""
    compiled = backend.family == "jax"
    configured = settings(
        max_examples=max(2, examples // 4) if compiled else examples,
        phases=(Phase.generate,) if compiled else (Phase.generate, Phase.shrink),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    configured(given(plans(backend, modes))(body))()
