"""The selective scan with inputs, a call and the truth of it, as in `cases`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from ..backends import HALF
from ..examples import Draw
from ..truth import gated
from .duality import LENGTHS, PACKED, within
from .functions import REALS, Case

BATCH, H, N, L = 2, 4, 3, 9


def _case(
    name: str,
    rows: str,
    *,
    complex_A: bool = False,
    around: bool = False,
    cut: str = "",
    dtypes: tuple[str, ...] = REALS,
    **options: Any,
) -> Case:
    """`cut` says how sequences begin and end: "reset", "lengths", "packed" in one, or "packed" with "states" too."""
    packed, held = "packed" in cut, 2 if options.get("discretization") == "trapezoidal" else 1
    batch, n = (1, len(PACKED) - 1) if packed else (BATCH, BATCH)
    states = not packed or "states" in cut
    shape = {"constant": (H, N), "shared": (batch, N, L), "grouped": (batch, 2, N, L)}[rows]

    def draw(d: Draw) -> dict[str, Any]:
        numbers = d.complex if complex_A else d.real
        A = d.poles(H, N) if complex_A else -d.uniform(0.2, 1.5, H, N)
        found = {"u": d.real(batch, H, L), "dt": d.uniform(0.1, 1, batch, H, L), "A": A, "B": numbers(*shape)}
        found |= {"C": numbers(*shape)} | ({"initial": numbers(n, H, held * N)} if states else {})
        if around:
            found |= {"D": d.real(H), "dt_bias": d.real(H), "z": d.real(batch, H, L)}
        if around or "reset" in cut:
            found["reset"] = d.resets(batch, L)
        if "lengths" in cut:
            found["lengths"] = np.asarray(LENGTHS)
        return found | ({"cu_seqlens": np.asarray(PACKED)} if packed else {})

    def shown(found: tuple[Any, Any]) -> Any:
        y, state = found
        return (*within(y, 2), state) if "lengths" in cut else (y, state) if states else y

    def call(v: SimpleNamespace) -> Any:
        given = {n: x for n, x in vars(v).items() if n not in ("xp", "device")}
        found = ssm_core.selective_scan(**given, dt_softplus=around, return_state=states, **options)
        return shown(found if states else (found, None))

    def expected(v: SimpleNamespace) -> Any:
        return shown(gated.selective_scan(v, around, options.get("discretization", "mamba")))

    half = (True, True, False) if "lengths" in cut else (True, False)
    known = ("cu_seqlens",) if packed and states else ()
    return Case("selective_scan", name, draw, call, expected, dtypes, terms=64 * L, half=half, known=known)


ALL = (
    _case("shared", "shared", dtypes=(*REALS, *HALF)),
    _case("grouped-everything-chunks_of_4", "grouped", around=True, chunk=4),
    _case("constant-zoh", "constant", discretization="zoh"),
    _case("complex", "grouped", complex_A=True, chunk=5),
    _case("lengths", "shared", cut="reset lengths", chunk=4),
    _case("packed", "shared", around=False, cut="packed", dtypes=(*REALS, *HALF), chunk=4),
    _case("packed-states", "constant", complex_A=True, cut="packed states", chunk=2),
    _case("trapezoidal", "shared", discretization="trapezoidal", dtypes=(*REALS, *HALF)),
    _case("trapezoidal-everything", "grouped", around=True, discretization="trapezoidal", chunk=4),
    _case("trapezoidal-complex-lengths", "grouped", complex_A=True, cut="reset lengths", discretization="trapezoidal",
          chunk=2),
    _case("trapezoidal-packed-states", "constant", cut="packed states", discretization="trapezoidal", chunk=3),
)  # fmt: skip
