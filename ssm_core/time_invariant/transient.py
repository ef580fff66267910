"""Dense matrices whose powers grow far before they decay, as those of companion forms do.

Squaring A^k leaves roundings of eps |A^k| |A^k| (entry by entry), which every later squaring magnifies as much again:
for a filter of clustered poles near the circle the powers then grow without end, where the recurrence does not. With

    G = max_k (1/N sum_ij |(A^k)_ij (A^k)_ji|)^(1/2),   k = 1, 2, 4, ... < L

which does not depend on the units of the states, doubling loses 2 log10 G digits, and more once eps G^2 is near 1.
HiPPO matrices have G near 1, `butter(2, 0.1)` has 2, `butter(4, 0.01)` 3e4. Steps lose what the system itself
magnifies.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from .._arrays.idioms import matmul, moved
from .._arrays.library import Array, Namespace, device, readable, to_numpy
from ..recurrences.fold import fold
from ..systems import records
from .conditioning import LONGEST, check_digits, looked_at, roundings
from .krylov import DensePropagator
from .modes.scan import run_steps
from .rational import in_double
from .run import Run

LARGEST_GROWTH = 10.0
ITERATIONS = 12  # of the power method for a norm


def powers_grow(A: Array, length: int) -> bool:
    """Whether G of one of the matrices A (..., N, N) exceeds LARGEST_GROWTH; where a trace hides the values, no."""
    if 0 in A.shape or length < 2 or not readable(A):
        return False
    power = to_numpy(A)
    if length * math.log(max(_norm(power), 1.0)) <= math.log(LARGEST_GROWTH):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range((length - 1).bit_length() - 1):
            power = power @ power
            size = np.abs(power)
            found = float(np.max(np.mean(np.sum(size * np.matrix_transpose(size), axis=-1), axis=-1)))
            if not found <= LARGEST_GROWTH**2:
                return math.isfinite(found)
    return False


def _norm(A: np.ndarray) -> float:
    """|A|_2 of the largest of the matrices, from below, by the power method: most of those in use contract."""
    x = np.ones_like(A[..., :1])
    for _ in range(ITERATIONS):
        x = np.matrix_transpose(A.conj()) @ (A @ x)
        size = np.max(np.abs(x), axis=-2, keepdims=True)
        x = x / np.where(size == 0, 1, size)
    before, after = (np.linalg.norm(v, axis=-2) for v in (x, A @ x))
    return float(np.max(after / np.where(before == 0, 1, before)))


def takes_no_powers(operation: str, run: Run) -> bool:
    """Whether a run is one of steps, for the growth of its powers; rational systems have a way of their own.

    Raises where steps lose the digits too, and values of the host say so.
    """
    if type(run.system) is not records.Dense or not powers_grow(run.system.A, run.length):
        return False
    check_steps(operation, run.system, run.length, False)
    return True


def run_in_double(run: Run) -> tuple[Array, Array | None]:
    """The run of a Dense system step by step in double precision, where the library has it."""
    xp, system = run.xp, run.system
    wide = records.map_arrays(lambda x: in_double(x, xp), replace(system, D=None))
    initial = None if run.initial is None else in_double(run.initial, xp)
    y, state = run_steps(replace(run, system=wide, u=in_double(run.u, xp), initial=initial))
    y = xp.astype(y, xp.result_type(system.A.dtype, system.B.dtype, system.C.dtype, run.u.dtype), copy=False)
    return y, None if state is None else xp.astype(state, run.zero_state().dtype, copy=False)


def kernel_by_steps(system: records.Dense, length: int, xp: Namespace) -> Array:
    """C A^l B, l = 0..length-1, from x_l = A x_{l-1} in double precision: (...[, M][, P], length)."""
    dtype = xp.result_type(*(x.dtype for x in records.present_arrays(replace(system, D=None)).values()))
    wide = DensePropagator(records.map_arrays(lambda x: in_double(x, xp), replace(system, D=None)), None, xp)
    C = xp.matrix_transpose(wide.C)
    first = wide.B + xp.zeros_like(wide.A[..., :1])

    def body(x: Array, k: Array) -> tuple[Array, Array]:
        return matmul(wide.A, x, xp), matmul(C, x, xp)[None, ...]

    K, _ = fold(body, first, (xp.arange(length, device=device(wide.A)),), chunk=1, recompute=False)
    return xp.astype(wide.with_axes_of(moved(K, 0, -1, xp)), dtype, copy=False)


def check_steps(operation: str, system: Any, length: int, always: bool) -> None:
    """Raise where rounding A leaves the taps fewer than two or three digits, if their values are at hand.

    With A + t E, E as large as A entry by entry and of random signs: max |dK/dt| / max |K| at t = 0, whose states
    (x, dx/dt) go by [A 0; E A].
    """
    arrays = system.A, system.B, system.C
    if not looked_at(arrays, always):
        return
    eps = roundings(*arrays)
    plain: Any = records.map_arrays(to_numpy, replace(system, D=None))
    A, zero, axis = plain.A, np.zeros_like(plain.A), records.batch_rank(plain)
    E = A * np.random.default_rng(0).choice((-1.0, 1.0), A.shape)
    turned = replace(
        plain,
        A=np.concatenate([np.concatenate([A, zero], -1), np.concatenate([E, A], -1)], -2),
        B=np.concatenate([plain.B, np.zeros_like(plain.B)], axis),
        C=np.concatenate([np.zeros_like(plain.C), plain.C], -1),
    )
    with np.errstate(all="ignore"):
        K, slope = (np.max(np.abs(kernel_by_steps(x, min(length, LONGEST), compat))) for x in (plain, turned))
    check_digits(operation, float(slope / K) if 0 < K < np.inf and np.isfinite(slope) else 0.0,
                 eps, "Keep the system in sections of two states, or diagonal.")  # fmt: skip
