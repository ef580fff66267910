"""The selective scan with inputs, a call and the truth of it, as in `cases`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from .backends import HALF
from .cases import REALS, Case
from .examples import Draw

BATCH, H, N, L = 2, 4, 3, 9
ROWS = {"constant": (H, N), "shared": (BATCH, N, L), "grouped": (BATCH, 2, N, L)}


def _case(
    name: str,
    rows: str,
    *,
    complex_A: bool = False,
    around: bool = False,
    dtypes: tuple[str, ...] = REALS,
    **options: Any,
) -> Case:
    def draw(d: Draw) -> dict[str, Any]:
        numbers = d.complex if complex_A else d.real
        A = d.poles(H, N) if complex_A else -d.uniform(0.2, 1.5, H, N)
        found = {"u": d.real(BATCH, H, L), "dt": d.uniform(0.1, 1, BATCH, H, L), "A": A, "B": numbers(*ROWS[rows])}
        found |= {"C": numbers(*ROWS[rows]), "initial": numbers(BATCH, H, N)}
        if around:
            found |= {"D": d.real(H), "dt_bias": d.real(H), "z": d.real(BATCH, H, L), "reset": d.resets(BATCH, L)}
        return found

    def call(v: SimpleNamespace) -> Any:
        given = {n: x for n, x in vars(v).items() if n not in ("xp", "device")}
        return ssm_core.selective_scan(**given, dt_softplus=around, return_state=True, **options)

    def expected(v: SimpleNamespace) -> Any:
        return truth(v, around, options.get("discretization", "mamba"))

    return Case("selective_scan", name, draw, call, expected, dtypes, terms=64 * L, half=(True, False))


def truth(v: SimpleNamespace, around: bool, discretization: str) -> tuple[np.ndarray, np.ndarray]:
    """Step by step, in double precision."""
    dt = np.log1p(np.exp(v.dt + v.dt_bias[:, None])) if around else v.dt
    x, outputs = v.initial, []
    for k in range(L):
        B, C = (_at(rows, k) for rows in (v.B, v.C))
        w = dt[..., k, None] * v.A
        gain = dt[..., k, None] if discretization == "mamba" else (np.exp(w) - 1) / v.A
        x = np.where(v.reset[:, k, None, None], 0, x) if around else x
        x = np.exp(w) * x + gain * B * v.u[..., k, None]
        y = np.sum(C * x, axis=-1)
        outputs.append(2 * y.real if np.iscomplexobj(y) else y)
    y = np.stack(outputs, axis=-1)
    return ((y + v.D[:, None] * v.u) * v.z / (1 + np.exp(-v.z)) if around else y), x


def _at(rows: np.ndarray, k: int) -> np.ndarray:
    """The rows of step k for every channel: broadcasts to (batch, H, N)."""
    if rows.ndim == 4:
        return np.repeat(rows[..., k], H // rows.shape[1], axis=1)
    return rows[:, None, :, k] if rows.ndim == 3 else rows[None]


ALL = (
    _case("shared", "shared", dtypes=(*REALS, *HALF)),
    _case("grouped-everything-chunks_of_4", "grouped", around=True, chunk=4),
    _case("constant-zoh", "constant", discretization="zoh"),
    _case("complex", "grouped", complex_A=True, chunk=5),
)
