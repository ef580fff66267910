"""Chunk summaries: the state that a summary makes of a state, against the loop over the steps from that state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from .. import truth
from ..examples import PAIRS, Draw
from ..truth import gated
from .duality import MAMBA3_STATE, _mamba3_inputs, _ssd_inputs
from .functions import REALS, STANDARD, Case

BATCH, H, N, L, DT = 2, 4, 3, 9, 0.1


def _diagonal(name: str, per_step: bool) -> Case:
    def draw(d: Draw) -> dict[str, Any]:
        rows = (L, N) if per_step else (N,)
        return {"u": d.signal(L), "A": d.gates(*rows), "B": d.signal(*rows), "state": d.signal(N)}

    def expected(v: SimpleNamespace) -> Any:
        x = v.state
        for k in range(L):
            A, B = (v.A[k], v.B[k]) if per_step else (v.A, v.B)
            x = A * x + B * v.u[k]
        return np.prod(v.A, axis=0) if per_step else v.A**L, x

    def call(v: SimpleNamespace) -> Any:
        summary = ssm_core.diagonal_summary(v.u, v.A, v.B, per_step=per_step)
        return summary.through, summary.after(v.state)

    return Case("diagonal_summary", name, draw, call, expected, STANDARD, terms=32 * L, half=(False, False))


def _of_system() -> Case:
    def draw(d: Draw) -> dict[str, Any]:
        return PAIRS.fields(d) | {"u": d.real(L), "state": d.complex(4)}

    def expected(v: SimpleNamespace) -> Any:
        Ab, gain = truth.discretize_poles(v.poles, DT, "zoh")
        x = v.state
        for k in range(L):
            x = Ab * x + gain * v.B * v.u[k]
        return Ab**L, x

    def call(v: SimpleNamespace) -> Any:
        summary = ssm_core.scan_summary(PAIRS.system(v), v.u, dt=DT)
        return summary.through, summary.after(v.state)

    return Case("scan_summary", "pairs", draw, call, expected, REALS, terms=32 * L, half=(False, False))


def _selective(rule: str) -> Case:
    def draw(d: Draw) -> dict[str, Any]:
        width = 2 * N if rule == "trapezoidal" else N
        signals = {"u": d.real(BATCH, H, L), "dt": d.uniform(0.1, 1, BATCH, H, L), "B": d.real(BATCH, N, L)}
        return signals | {"A": -d.uniform(0.2, 1.5, H, N), "initial": d.real(BATCH, H, width)}

    def expected(v: SimpleNamespace) -> Any:
        return gated.selective_scan(SimpleNamespace(**vars(v), C=v.B), discretization=rule)[1]

    def call(v: SimpleNamespace) -> Any:
        return ssm_core.selective_summary(v.u, v.dt, v.A, v.B, discretization=rule).after(v.initial)

    return Case("selective_summary", rule, draw, call, expected, REALS, terms=64 * L, half=(False,))


def _ssd() -> Case:
    def call(v: SimpleNamespace) -> Any:
        return ssm_core.ssd_summary(v.x, v.dt, v.A, v.B, chunk=4).after(v.initial)

    def expected(v: SimpleNamespace) -> Any:
        return gated.ssd(v, return_state=True)[1]

    return Case("ssd_summary", "groups", _ssd_inputs("initial"), call, expected, REALS, terms=64 * L, half=(False,))


def _mamba3() -> Case:
    def call(v: SimpleNamespace) -> Any:
        options = {"trap": v.trap, "angles": v.angles, "B_bias": v.B_bias, "chunk": 4}
        summary = ssm_core.mamba3_summary(v.x, v.dt, v.A, v.B, **options)
        return summary.after(tuple(getattr(v, name) for name in MAMBA3_STATE))

    def expected(v: SimpleNamespace) -> Any:
        return tuple(gated.mamba3_scan(v, return_state=True)[1])

    draw = _mamba3_inputs("initial", "B_bias")
    return Case("mamba3_summary", "biased", draw, call, expected, REALS, terms=64 * L, half=(False,) * 4)


ALL = (
    _diagonal("constant", per_step=False),
    _diagonal("per_step", per_step=True),
    _of_system(),
    *map(_selective, ("mamba", "trapezoidal")),
    _ssd(),
    _mamba3(),
)
