"""The functions of Mamba-2 and Mamba-3 with inputs, a call and the truth of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from ..backends import HALF
from ..examples import Draw
from ..truth.gated import MAMBA3_STATE, causal_conv1d, mamba3_scan, rms_norm, selective_state_update, ssd
from .functions import REALS, Case

BATCH, H, P, G, N, L, TAPS, RANK = 2, 4, 3, 2, 5, 9, 4, 2
LENGTHS = (L, 4)
PACKED = (0, 4, 4, 9)  # the sequence in the middle is empty
SIGNALS = (*REALS, *HALF)
MAPS = ("x_map", "z_map", "out_map")

Draws = Callable[[Draw], dict[str, Any]]


def within(y: Any, axis: int) -> tuple[Any, ...]:
    """A batch of outputs up to the lengths, beyond which they are unspecified."""
    at = (slice(None),) * (axis - 1)
    return tuple(y[(i, *at, slice(0, n), ...)] for i, n in enumerate(LENGTHS))


def _case(
    function: str,
    name: str,
    draw: Draws,
    plain: Callable[..., Any],
    *,
    axis: int = 1,  # that of time in y
    dtypes: tuple[str, ...] = REALS,
    known: tuple[str, ...] = (),
    **options: Any,
) -> Case:
    """A case whose inputs are the arguments by name, the options apart; plain takes the options too."""

    def shown(found: Any, lengths: Any) -> tuple[Any, ...]:
        y, *state = found if isinstance(found, tuple) else (found,)
        state = [*state[0]] if state and isinstance(state[0], tuple) else state
        return (*within(y, axis), *state) if lengths is not None else (y, *state)

    def call(v: SimpleNamespace) -> Any:
        given = {n: x for n, x in vars(v).items() if n not in ("xp", "device", *MAMBA3_STATE, *MAPS)}
        for whole, parts in (("initial", MAMBA3_STATE), ("rank_maps", MAPS)):
            if hasattr(v, parts[0]):
                given[whole] = tuple(getattr(v, part) for part in parts)
        return shown(getattr(ssm_core, function)(**given, **options), given.get("lengths"))

    def expected(v: SimpleNamespace) -> Any:
        return shown(plain(v, **options), getattr(v, "lengths", None))

    half = (True, True, False) if "lengths" in draw(Draw(1)) else (True, False)
    many = (*half, *half[-1:] * 3)  # all but y are states
    return Case(function, name, draw, call, expected, dtypes, terms=64 * L, half=many, known=known)


# The dual of Mamba-2 -------------------------------------------------------------------------------------------------


def _ssd_inputs(*more: str, groups: int = G, batch: int = BATCH, states: int = BATCH) -> Draws:
    def draw(d: Draw) -> dict[str, Any]:
        rows = (batch, L, groups, N)
        found = {"x": d.real(batch, L, H, P), "dt": d.uniform(0.1, 1, batch, L, H), "A": -d.uniform(0.2, 1.5, H)}
        found |= {"B": d.real(*rows), "C": d.real(*rows)}
        if "A_k" in more:
            found["A"] = -d.uniform(0.2, 1.5, batch, L, H)
        others = {
            "initial": lambda: d.real(states, H, P, N), "D": lambda: d.real(H), "D_p": lambda: d.real(H, P),
            "z": lambda: d.real(batch, L, H, P), "dt_bias": lambda: d.real(H), "reset": lambda: d.resets(batch, L),
            "lengths": lambda: np.asarray(LENGTHS), "cu_seqlens": lambda: np.asarray(PACKED),
        }  # fmt: skip
        return found | {n.removesuffix("_p"): make() for n, make in others.items() if n in more}

    return draw


AROUND = {"dt_softplus": True, "return_state": True}
SSD = (
    _case("ssd", "groups", _ssd_inputs("initial"), ssd, dtypes=SIGNALS, return_state=True),
    _case(
        "ssd", "everything-chunks_of_4", _ssd_inputs("initial", "D", "z", "dt_bias", "reset"), ssd, dtypes=SIGNALS,
        dt_limit=(0.3, 2.0), chunk=4, **AROUND,
    ),
    _case(
        "ssd", "A_and_D_of_all-lengths", _ssd_inputs("initial", "A_k", "D_p", "lengths", "reset", groups=H), ssd,
        return_state=True, chunk=5,
    ),
    _case("ssd", "packed", _ssd_inputs("z", "cu_seqlens", groups=1, batch=1), ssd, dtypes=SIGNALS, chunk=4),
    _case(
        "ssd", "packed-states", _ssd_inputs("initial", "A_k", "cu_seqlens", batch=1, states=3), ssd,
        known=("cu_seqlens",), return_state=True, chunk=2,
    ),
)  # fmt: skip


# Mamba-3 -------------------------------------------------------------------------------------------------------------


def _mamba3_inputs(
    *more: str, rank: int = 0, turning: int = 2, angled: int = H, batch: int = BATCH, states: int = BATCH
) -> Draws:
    """rank 0 is one input a step without an axis for it; angled is 1 where all heads share their angles."""
    ranked = (rank,) if rank else ()

    def draw(d: Draw) -> dict[str, Any]:
        rows = (batch, L, *ranked, G, N)
        found = {"x": d.real(batch, L, H, P), "dt": d.uniform(0.1, 1, batch, L, H)}
        found |= {"A": -d.uniform(0.2, 1.5, *((H,) if "A_h" in more else (batch, L, H))), "trap": d.real(batch, L, H)}
        found |= {"B": d.real(*rows), "C": d.real(*rows), "angles": d.real(batch, L, angled, turning)}
        maps = {n: d.real(H, rank, P) for n in MAPS} if rank else {}
        found |= {n: x if n != "z_map" or "z" in more else None for n, x in maps.items()}
        if "initial" in more:
            found |= {"t": d.uniform(0, 6, states, H, turning), "S": d.real(states, H, P, N)}
            found |= {"K": d.real(states, H, *ranked, N), "before": d.real(states, H, *ranked, P)}
        others = {
            "B_bias": lambda: d.real(H, *ranked, N), "C_bias": lambda: d.real(H, *ranked, N), "D": lambda: d.real(H),
            "z": lambda: d.real(batch, L, H, P), "reset": lambda: d.resets(batch, L),
            "lengths": lambda: np.asarray(LENGTHS), "cu_seqlens": lambda: np.asarray(PACKED),
        }  # fmt: skip
        return found | {n: make() for n, make in others.items() if n in more}

    return draw


MAMBA3 = (
    _case(
        "mamba3_scan", "shared_angles", _mamba3_inputs("initial", "A_h", angled=1), mamba3_scan, dtypes=SIGNALS,
        return_state=True,
    ),
    _case(
        "mamba3_scan", "everything-chunks_of_4",
        _mamba3_inputs("initial", "B_bias", "C_bias", "D", "z", "reset", turning=1), mamba3_scan, return_state=True,
        chunk=4,
    ),
    _case(
        "mamba3_scan", "rank-lengths",
        _mamba3_inputs("initial", "B_bias", "C_bias", "D", "z", "lengths", "reset", rank=RANK, angled=1), mamba3_scan,
        dtypes=SIGNALS, return_state=True, chunk=5,
    ),
    _case("mamba3_scan", "rank-no_gate", _mamba3_inputs("D", rank=3), mamba3_scan, return_state=True, chunk=3),
    _case(
        "mamba3_scan", "no_angles", _mamba3_inputs("z", "B_bias", turning=0), mamba3_scan, return_state=True, chunk=1
    ),
    _case("mamba3_scan", "packed", _mamba3_inputs("A_h", "cu_seqlens", batch=1, angled=1), mamba3_scan, chunk=4),
    _case(
        "mamba3_scan", "packed-states",
        _mamba3_inputs("initial", "C_bias", "cu_seqlens", rank=RANK, batch=1, states=3), mamba3_scan,
        known=("cu_seqlens",), return_state=True, chunk=2,
    ),
)  # fmt: skip


# Short convolutions, norms, single steps -----------------------------------------------------------------------------


def _taps(*more: str, taps: int = TAPS, length: int = L) -> Draws:
    def draw(d: Draw) -> dict[str, Any]:
        found = {"u": d.real(BATCH, H, length), "weight": d.real(H, taps)}
        others = {
            "bias": lambda: d.real(H), "initial": lambda: d.real(BATCH, H, taps - 1),
            "reset": lambda: d.resets(BATCH, length), "lengths": lambda: np.asarray(LENGTHS),
        }  # fmt: skip
        return found | {n: make() for n, make in others.items() if n in more}

    return draw


CAUSAL_CONV1D = (
    _case("causal_conv1d", "state", _taps("bias", "initial"), causal_conv1d, dtypes=SIGNALS, return_state=True),
    _case(
        "causal_conv1d", "reset-lengths", _taps("initial", "reset", "lengths"), causal_conv1d, axis=2,
        return_state=True,
    ),
    _case("causal_conv1d", "one_tap", _taps("bias", "reset", taps=1), causal_conv1d, return_state=True),
    _case("causal_conv1d", "two_steps", _taps("initial", length=2), causal_conv1d, return_state=True),
    _case("causal_conv1d", "output_alone", _taps(), causal_conv1d, dtypes=SIGNALS),
)  # fmt: skip


def _features(*more: str) -> Draws:
    def draw(d: Draw) -> dict[str, Any]:
        found = {"x": d.real(BATCH, L, 6), "weight": d.real(6), "gate": d.real(BATCH, L, 6)}
        return {n: x for n, x in found.items() if n in ("x", *more)}

    return draw


RMS_NORM = (
    _case("rms_norm", "weight", _features("weight"), rms_norm, dtypes=SIGNALS),
    _case("rms_norm", "gate_first-groups", _features("weight", "gate"), rms_norm, dtypes=SIGNALS, groups=2),
    _case("rms_norm", "gate_after", _features("weight", "gate"), rms_norm, groups=2, gate_first=False),
    _case("rms_norm", "no_weight", _features(), rms_norm, epsilon=0.1),
)


def _one_step(*more: str, per_head: bool) -> Draws:
    vector = (H,) if per_head else (H, P)

    def draw(d: Draw) -> dict[str, Any]:
        found = {"state": d.real(BATCH, H, P, N), "x": d.real(BATCH, H, P), "dt": d.uniform(0.1, 1, BATCH, H, P)}
        found |= {"A": -d.uniform(0.2, 1.5, *((H,) if per_head else (H, P, N)))}
        found |= {"B": d.real(BATCH, G, N), "C": d.real(BATCH, G, N)}
        others = {"D": lambda: d.real(*vector), "dt_bias": lambda: d.real(*vector), "z": lambda: d.real(BATCH, H, P)}
        return found | {n: make() for n, make in others.items() if n in more}

    return draw


STATE_UPDATE = (
    _case(
        "selective_state_update", "heads", _one_step("D", "dt_bias", "z", per_head=True), selective_state_update,
        dtypes=SIGNALS, dt_softplus=True,
    ),
    _case(
        "selective_state_update", "features", _one_step("D", "dt_bias", "z", per_head=False), selective_state_update,
        dt_softplus=True,
    ),
    _case("selective_state_update", "bare", _one_step(per_head=False), selective_state_update, dtypes=SIGNALS),
)  # fmt: skip

ALL = (*SSD, *MAMBA3, *CAUSAL_CONV1D, *RMS_NORM, *STATE_UPDATE)
