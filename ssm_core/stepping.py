"""One step of a discrete diagonal system after another, with everything that does not change prepared."""

from __future__ import annotations

from collections.abc import Callable

from ._arrays import Array, namespace
from ._dispatch import dispatched
from .modes.recurrent import observed

DiagonalStep = Callable[[Array, Array], tuple[Array, Array]]


def diagonal_stepper(poles: Array, B: Array, C: Array, *, conj_pairs: bool, several_outputs: bool) -> DiagonalStep:
    """A function (state (..., N), u (...)) -> (state, C state): x = poles x + B u, y = C x (2 Re with conj_pairs)."""
    step: DiagonalStep = _diagonal_stepper(poles, B, C, conj_pairs=conj_pairs, several_outputs=several_outputs)
    return step


@dispatched
def _diagonal_stepper(poles: Array, B: Array, C: Array, *, conj_pairs: bool, several_outputs: bool) -> DiagonalStep:
    xp = namespace("diagonal_stepper", poles=poles, B=B, C=C)

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        state = poles * state + B * u[..., None]
        return state, observed(C, state, several_outputs, conj_pairs, xp)

    return step
