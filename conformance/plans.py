"""Ways to cut a sequence into pieces, each run in a mode of its own: drawn by hypothesis, or every mode once."""

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
COMPILED = {"conv": 31, "chunk": 65, "scan": 33, "step": 2}  # of every mode but `auto`, which is one of the others


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


def compiled_plans(backend: Backend, modes: tuple[str, ...]) -> list[Plan]:
    """Every mode once, since each takes a second and more to compile; of four modes two without a first state."""
    lengths = {mode: COMPILED[mode] for mode in modes if mode in COMPILED} or dict.fromkeys(modes, 33)
    pieces = tuple((max(k for k in LENGTHS if k <= n and backend.can_loop(k)), mode) for mode, n in lengths.items())
    cuts = [pieces[:2], pieces[2:]] if len(pieces) > 3 else [pieces if len(pieces) > 1 else 2 * pieces]
    return [Plan(cut, seed, initial=seed == 0) for seed, cut in enumerate(cuts)]


def explore(backend: Backend, examples: int, body: Callable[[Plan], Any], modes: tuple[str, ...] = MODES) -> None:
    """body for some plans, the same ones in every run; for few where each is compiled."""
    if backend.compiles:
        for plan in compiled_plans(backend, modes):
            body(plan)
        return
    configured = settings(
        max_examples=examples,
        phases=(Phase.generate, Phase.shrink),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    configured(given(plans(backend, modes))(body))()
