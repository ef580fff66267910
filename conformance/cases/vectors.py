"""HGRN, RG-LRU and RWKV-4 with inputs, calls and the truth of them: sequences, steps and chunk summaries."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from ..backends import HALF
from ..examples import Draw
from ..truth import vectors as truth
from .duality import LENGTHS, PACKED, within
from .functions import REALS, Case

BATCH, W, L = 2, 4, 9
SIGNALS = {"hgrn": ("x", "log_decay"), "rg_lru": ("x", "input_gate", "recurrent_gate"), "rwkv4": ("k", "v")}
CONSTANTS = {"hgrn": (), "rg_lru": ("recurrent_param",), "rwkv4": ("log_decay", "bonus")}
STATES = {"hgrn": ("initial",), "rg_lru": ("initial",), "rwkv4": truth.SUMS}


def _number(d: Draw, name: str, *shape: int) -> Any:
    if name == "den":
        return d.uniform(1, 3, *shape)
    return -d.uniform(0.1, 2, *shape) if name == "log_decay" else d.real(*shape)


def _drawn(function: str, *cut: str) -> Callable[[Draw], dict[str, Any]]:
    """`cut` says how sequences begin and end, and whether there are "states"."""
    batch, n = (1, len(PACKED) - 1) if "packed" in cut else (BATCH, BATCH)

    def draw(d: Draw) -> dict[str, Any]:
        found = {name: _number(d, name, batch, L, W) for name in SIGNALS[function]}
        found |= {name: _number(d, name, W) for name in CONSTANTS[function]}
        if "states" in cut:
            found |= {name: _number(d, name, n, W) for name in STATES[function]}
        masks = {"reset": d.resets(batch, L), "lengths": np.asarray(LENGTHS), "packed": np.asarray(PACKED)}
        return found | {"cu_seqlens" if name == "packed" else name: m for name, m in masks.items() if name in cut}

    return draw


def _given(v: SimpleNamespace, function: str, whole: str) -> dict[str, Any]:
    """The arguments by name, the parts of a state as one of them."""
    held = {n: x for n, x in vars(v).items() if n not in ("xp", "device")}
    if function == "rwkv4" and "num" in held:
        held[whole] = tuple(held.pop(part) for part in truth.SUMS)
    return held


def _flat(y: Any, state: Any) -> tuple[Any, ...]:
    return (y, *state) if isinstance(state, tuple) else (y, state)


def _case(function: str, name: str, *cut: str, dtypes: tuple[str, ...] = REALS, **options: Any) -> Case:
    states = "packed" not in cut or "states" in cut

    def shown(found: Any, v: SimpleNamespace) -> Any:
        if not states:
            return found
        y, state = found
        return (*within(y, 1), *_flat(y, state)[1:]) if hasattr(v, "lengths") else _flat(y, state)

    def call(v: SimpleNamespace) -> Any:
        given = _given(v, function, "initial")
        return shown(getattr(ssm_core, function)(**given, **options, return_state=states), v)

    def expected(v: SimpleNamespace) -> Any:
        return shown(getattr(truth, function)(v, return_state=states), v)

    half = (True, *([True] if "lengths" in cut else []), False, False, False)
    known = ("cu_seqlens",) if "packed" in cut and states else ()
    draw = _drawn(function, *cut)
    return Case(function, name, draw, call, expected, dtypes, terms=64 * L, half=half, known=known)


def _step(function: str) -> Case:
    whole = "state"

    def draw(d: Draw) -> dict[str, Any]:
        found = {name: _number(d, name, BATCH, W) for name in SIGNALS[function]}
        found |= {name: _number(d, name, W) for name in CONSTANTS[function]}
        names = STATES[function] if function == "rwkv4" else (whole,)
        return found | {name: _number(d, name, BATCH, W) for name in names}

    def call(v: SimpleNamespace) -> Any:
        return _flat(*getattr(ssm_core, f"{function}_update")(**_given(v, function, whole)))

    def expected(v: SimpleNamespace) -> Any:
        held = {n: x[:, None] if n in SIGNALS[function] else x for n, x in vars(v).items() if n not in ("xp", "device")}
        if whole in held:
            held["initial"] = held.pop(whole)
        y, state = getattr(truth, function)(SimpleNamespace(**held), return_state=True)
        return _flat(y[:, 0], state)

    half = (True, False, False, False)
    return Case(f"{function}_update", "step", draw, call, expected, (*REALS, *HALF), terms=64, half=half)


def _summary(function: str) -> Case:
    def call(v: SimpleNamespace) -> Any:
        given = _given(v, function, "initial")
        initial = given.pop("initial")
        given.pop("bonus", None)
        return getattr(ssm_core, f"{function}_summary")(**given).after(initial)

    def expected(v: SimpleNamespace) -> Any:
        return getattr(truth, function)(v, return_state=True)[1]

    draw, half = _drawn(function, "states"), (False, False, False)
    return Case(f"{function}_summary", "of_a_chunk", draw, call, expected, REALS, terms=64 * L, half=half)


ALL = tuple(
    case
    for function, options in (("hgrn", {}), ("rg_lru", {}), ("rwkv4", {"chunk": 4}))
    for case in (
        _case(function, "begins", dtypes=(*REALS, *HALF)),
        _case(function, "everything", "states", "reset", **options),
        _case(function, "lengths", "states", "reset", "lengths", **options),
        _case(function, "packed", "packed", **options),
        _case(function, "packed-states", "packed", "states", **options),
        _step(function),
        _summary(function),
    )
)
