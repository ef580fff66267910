"""One step of a discrete system after another, with everything that does not change prepared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.dispatch import dispatched
from .._arrays.idioms import conjugated, matmul
from .._arrays.library import Array, Namespace, is_complex, namespace
from ..recurrences.diagonal import driven, observed
from ..recurrences.pairs import halved, joined, real_rows
from ..systems import records
from ..systems.conversions import dense_form
from ..systems.records import DPLR, Dense, Diagonal

SystemStep = Callable[[Array, Array], tuple[Array, Array]]


def system_stepper(system: Any, xp: Namespace) -> SystemStep:
    """A function (state (..., N), u (...[, P])) -> (state, C state): x = A x + B u, y = C x (2 Re with conj_pairs)."""
    rank = records.batch_rank(system)
    several_inputs = records.inputs(system, rank) is not None
    several_outputs = records.outputs(system, rank) is not None
    if isinstance(system, Diagonal) and not several_inputs:
        return diagonal_stepper(
            system.poles, system.B, system.C, conj_pairs=system.conj_pairs, several_outputs=several_outputs
        )
    pairs = getattr(system, "conj_pairs", False)
    moved = next(make for kind, make in _MOVED.items() if isinstance(system, kind))(system, xp)

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        state = moved(state) + driven(system.B, u, several_inputs, xp)
        return state, observed(system.C, state, several_outputs, pairs, xp)

    return step


def in_halves(step: SystemStep, xp: Namespace) -> SystemStep:
    """A step on (Re x, Im x) as one on x."""

    def on_halves(state: Array, u: Array) -> tuple[Array, Array]:
        state, y = step(joined(state, xp), u)
        return halved(state, xp), y

    return on_halves


def diagonal_stepper(poles: Array, B: Array, C: Array, *, conj_pairs: bool, several_outputs: bool) -> SystemStep:
    """A function (state (..., N), u (...)) -> (state, C state): x = poles x + B u, y = C x (2 Re with conj_pairs)."""
    step: SystemStep = _diagonal_stepper(poles, B, C, conj_pairs=conj_pairs, several_outputs=several_outputs)
    return step


@dispatched
def _diagonal_stepper(poles: Array, B: Array, C: Array, *, conj_pairs: bool, several_outputs: bool) -> SystemStep:
    xp = namespace("diagonal_stepper", poles=poles, B=B, C=C)

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        state = poles * state + B * u[..., None]
        return state, observed(C, state, several_outputs, conj_pairs, xp)

    return step


def _dense_product(system: Dense, xp: Namespace) -> Callable[[Array], Array]:
    return lambda x: matmul(system.A, x[..., None], xp)[..., 0]


def _dplr_product(system: DPLR, xp: Namespace) -> Callable[[Array], Array]:
    """poles x - sum_r P_r Q_r^H x, the products over both halves of conjugate pairs."""
    P = xp.matrix_transpose(system.P)
    Q_H = conjugated(system.Q, xp)

    def product(x: Array) -> Array:
        inner = matmul(Q_H, x[..., None], xp)
        if system.conj_pairs:
            inner = 2 * xp.real(inner) if is_complex(inner) else 2 * inner
        return system.poles * x - matmul(P, inner, xp)[..., 0]

    return product


_MOVED: dict[type, Any] = {
    Dense: _dense_product,
    DPLR: _dplr_product,
    Diagonal: lambda system, xp: lambda x: system.poles * x,
}


def real_system_stepper(system: Any, xp: Namespace, *, liquid: bool = False) -> SystemStep:
    """A function (state, u) -> (state, C state) of a discrete system with real outputs, on (Re x, Im x)."""
    if not is_complex(records.state_field(system)):
        return system_stepper(system, xp)
    if not isinstance(system, Diagonal):
        return system_stepper(dense_form(system, xp), xp)
    rank = records.batch_rank(system)
    several_inputs = records.inputs(system, rank) is not None
    several_outputs = records.outputs(system, rank) is not None
    re, im = xp.real(system.poles), xp.imag(system.poles)
    B, C = joined(system.B, xp, axis=-2 if several_inputs else -1), real_rows(system.C, xp)
    n = re.shape[-1]

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        drive = driven(B, u, several_inputs, xp)
        x, y, a, b = state[..., :n], state[..., n:], re, im
        if liquid:
            a, b = a + drive[..., :n], b + drive[..., n:]
        state = xp.concat([a * x - b * y, b * x + a * y], axis=-1) + drive
        return state, observed(C, state, several_outputs, False, xp)

    return step
