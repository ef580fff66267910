"""Gated linear attention with inputs, a call and the truth of it: decays, reads, normalizers, cuts in time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from ..backends import HALF
from ..examples import Draw
from ..truth.decay import gated_linear_attention
from .functions import REALS, Case

BATCH, H, G, K, V, L = 2, 4, 2, 3, 5, 9
LENGTHS = (L, 4)
PACKED = (0, 4, 4, 9)  # the sequence in the middle is empty
SIGNALS = (*REALS, *HALF)
PARTS = ("S", "n", "m")

Draws = Callable[[Draw], dict[str, Any]]


def inputs(
    *more: str, decay: str | None = "head", groups: int = H, parts: int = 0, batch: int = BATCH, states: int = BATCH,
    length: int = L,
) -> Draws:  # fmt: skip
    decays = {"head": (batch, length, H), "channel": (batch, length, H, K), "constant": (H,), "constants": (H, K)}

    def draw(d: Draw) -> dict[str, Any]:
        found = {"q": d.real(batch, length, groups, K), "k": d.real(batch, length, groups, K)}
        found |= {"v": d.real(batch, length, H, V)}
        if decay is not None:
            found["log_decay"] = -np.exp(d.uniform(-4, 1, *decays[decay]))
        others = {
            "log_input": lambda: 2 * d.real(batch, length, H), "bonus": lambda: d.real(H, K),
            "reset": lambda: d.resets(batch, length), "lengths": lambda: np.asarray(LENGTHS),
            "cu_seqlens": lambda: np.asarray(PACKED),
        }  # fmt: skip
        found |= {n: make() for n, make in others.items() if n in more}
        state = {"S": (states, H, K, V), "n": (states, H, K), "m": (states, H)}
        return found | {n: d.real(*state[n]) for n in PARTS[:parts]}

    return draw


def arguments(v: SimpleNamespace) -> dict[str, Any]:
    given = {n: x for n, x in vars(v).items() if n not in ("xp", "device", *PARTS)}
    parts = tuple(getattr(v, n) for n in PARTS if hasattr(v, n))
    return given | ({"initial": parts if len(parts) > 1 else parts[0]} if parts else {})


def flat(found: Any) -> tuple[Any, ...]:
    """(y, state) with the parts of the state apart."""
    if not isinstance(found, tuple):
        return (found,)
    y, state = found
    return (y, *state) if isinstance(state, tuple) else (y, state)


def _case(name: str, draw: Draws, dtypes: tuple[str, ...] = REALS, known: tuple[str, ...] = (), **options: Any) -> Case:
    def shown(found: tuple[Any, ...], lengths: Any) -> tuple[Any, ...]:
        if lengths is None:
            return found
        return (*(found[0][i, :n, ...] for i, n in enumerate(LENGTHS)), *found[1:])

    def call(v: SimpleNamespace) -> Any:
        found = ssm_core.gated_linear_attention(**arguments(v), **options)
        return shown(flat(found), getattr(v, "lengths", None))

    def expected(v: SimpleNamespace) -> Any:
        found = gated_linear_attention(v, **options)
        return shown(found if isinstance(found, tuple) else (found,), getattr(v, "lengths", None))

    half = (True, True, *(False,) * 3) if "lengths" in draw(Draw(1)) else (True, *(False,) * 3)
    return Case("gated_linear_attention", name, draw, call, expected, dtypes, terms=64 * L, half=half, known=known)


STATED: dict[str, Any] = {"return_state": True}
READ_LATE: dict[str, Any] = {"exclusive": True, "scale": 1.0, **STATED}
OF_DECAYS = (
    _case("no_decay-groups", inputs(decay=None, groups=G, parts=1), SIGNALS, **STATED),
    _case("constant-groups-reset", inputs("reset", decay="constant", groups=G, parts=1), chunk=4, **STATED),
    _case("channel", inputs(decay="channel", parts=1), SIGNALS, chunk=4, **STATED),
    _case("channel-groups-input-lengths", inputs("log_input", "lengths", "reset", decay="channel", groups=G, parts=1),
          chunk=5, **STATED),
    _case("late-bonus", inputs("bonus", "reset", decay="channel", parts=1), SIGNALS, chunk=3, **READ_LATE),
    _case("late-constants-lengths", inputs("bonus", "lengths", decay="constants", groups=G), **READ_LATE),
    _case("late-one_decay", inputs(parts=1), chunk=2, **READ_LATE),
    _case("bonus-same_step", inputs("bonus", "log_input"), scale=0.5, **STATED),
)  # fmt: skip
OF_NORMALIZERS = (
    _case("sum-channel", inputs("reset", decay="channel", parts=2), normalize="sum", epsilon=20.0, chunk=4, **STATED),
    _case("max", inputs("log_input", parts=3), SIGNALS, normalize="max", **STATED),
    _case("max-reset-lengths", inputs("log_input", "reset", "lengths", parts=3), normalize="max", chunk=4, **STATED),
    _case("max-no_input-groups", inputs(decay="constant", groups=G), normalize="max", chunk=2),
)
PACKING = (
    _case("packed", inputs("bonus", "cu_seqlens", decay="channel", batch=1), chunk=4, exclusive=True),
    _case("packed-max-states", inputs("log_input", "cu_seqlens", batch=1, states=3, parts=3), known=("cu_seqlens",),
          normalize="max", chunk=2, **STATED),
)  # fmt: skip


def _update(name: str, draw: Draws, dtypes: tuple[str, ...] = REALS, **options: Any) -> Case:
    """The first step of a sequence."""

    def of_step(d: Draw) -> dict[str, Any]:
        found = draw(d)
        constant = ("bonus", *PARTS) if found["log_decay"].ndim > 2 else ("bonus", "log_decay", *PARTS)
        return {n: x if n in constant else x[:, 0] for n, x in found.items()}

    def call(v: SimpleNamespace) -> Any:
        given = arguments(v)
        state = given.pop("initial")
        return flat(ssm_core.gated_linear_attention_update(state, **given, **options))

    def expected(v: SimpleNamespace) -> Any:
        given = {n: x if n in ("bonus", *PARTS) else x[:, None] for n, x in vars(v).items()}
        if v.log_decay.ndim == 1:
            given["log_decay"] = v.log_decay
        y, *state = gated_linear_attention(SimpleNamespace(**given), **options, **STATED)
        return y[:, 0], *state

    half = (True, *(False,) * 3)
    return Case("gated_linear_attention_update", name, of_step, call, expected, dtypes, terms=64, half=half)


UPDATE = (
    _update("heads-groups-input", inputs("log_input", groups=G, parts=1), SIGNALS),
    _update("late-bonus", inputs("bonus", decay="channel", parts=1), exclusive=True, scale=1.0),
    _update("sum-constant", inputs(decay="constant", parts=2), normalize="sum", epsilon=20.0),
    _update("max", inputs("log_input", parts=3), SIGNALS, normalize="max"),
)


def _summary(name: str, draw: Draws, **options: Any) -> Case:
    """The state that a summary makes of a state."""

    def of_summary(d: Draw) -> dict[str, Any]:
        return {n: x for n, x in draw(d).items() if n != "q"}

    def call(v: SimpleNamespace) -> Any:
        given = arguments(v)
        state = given.pop("initial")
        after = ssm_core.gated_linear_attention_summary(**given, **options).after(state)
        return after if isinstance(after, tuple) else (after,)

    def expected(v: SimpleNamespace) -> Any:
        return gated_linear_attention(SimpleNamespace(**vars(v), q=v.k), **options, **STATED)[1:]

    half = (False,) * 3
    return Case("gated_linear_attention_summary", name, of_summary, call, expected, terms=64 * L, half=half)


SUMMARY = (
    _summary("channel-lengths", inputs("lengths", decay="channel", parts=1), chunk=4),
    _summary("one_decay-reset", inputs("reset", "log_input", groups=G, parts=1)),
    _summary("sum", inputs(decay="constants", parts=2), normalize="sum"),
    _summary("max-lengths", inputs("log_input", "lengths", parts=3), normalize="max"),
    _summary("max-reset", inputs("log_input", "reset", parts=3), normalize="max", chunk=2),
)

ALL = (*OF_DECAYS, *OF_NORMALIZERS, *PACKING, *UPDATE, *SUMMARY)
