"""A diagonal system of several inputs as systems of one state each between two matrices: u -> B u -> x -> C x.

Its kernel would have an entry for every pair of an output and an input; its states have one convolution each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..._arrays.idioms import matmul
from ..._arrays.library import Array, is_complex
from ...recurrences.pairs import joined, real_rows
from ...systems.records import Diagonal
from ..run import Run
from ..vandermonde import DiagonalPropagator

Mode = Callable[[Run], tuple[Array, Array | None]]


def run_modal(run: Run, mode: Mode) -> tuple[Array, Array | None]:
    """`mode` applied to every state by itself; memory of the states of all steps (..., N, L)."""
    xp, system = run.xp, run.system
    B = system.B
    if is_complex(B) and not is_complex(run.u):
        drive = matmul(xp.real(B), run.u, xp) + 1j * matmul(xp.imag(B), run.u, xp)
    else:
        drive = matmul(B, run.u, xp)
    poles = system.poles[..., None]
    one = xp.ones_like(poles)
    powers = run.propagator.powers[..., None]
    single = Diagonal(poles, one, one, discrete=True)
    inner = replace(
        run,
        system=single,
        propagator=DiagonalPropagator(single, powers.logarithms, xp),
        u=drive,
        batch=(*run.batch, system.poles.shape[-1]),
        initial=None if run.initial is None else run.initial[..., None],
        segments=run.segments.for_rows(),
    )
    states, last = mode(inner)
    return _observed(run, states), None if last is None else last[..., 0]


def _observed(run: Run, states: Array) -> Array:
    """C x, or 2 Re of it, for states (..., N, L): (...[, M], L)."""
    xp, several, C = run.xp, run.propagator.several_outputs, run.system.C
    C, pairs = C if several else C[..., None, :], run.system.conj_pairs
    if pairs and is_complex(states):
        y = matmul(real_rows(C, xp), joined(states, xp, axis=-2), xp)
    else:
        y = matmul(C, states, xp)
        y = y if not pairs else 2 * xp.real(y) if is_complex(y) else 2 * y
    return y if several else y[..., 0, :]
