"""The gated delta rule with inputs, a call and the truth of it: decays, keys that erase, substeps, cuts in time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from ..backends import HALF
from ..examples import Draw
from ..truth.delta import gated_delta
from .functions import REALS, Case

BATCH, H, G, K, V, L = 2, 4, 2, 3, 5, 9
LENGTHS = (L, 4)
PACKED = (0, 4, 4, 9)  # the sequence in the middle is empty
SIGNALS = (*REALS, *HALF)
TIMELESS = ("initial", "log_decay")

Draws = Callable[[Draw], dict[str, Any]]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def inputs(
    *more: str, decay: str | None = "head", groups: int = H, substeps: int = 0, batch: int = BATCH, states: int = BATCH,
    length: int = L,
) -> Draws:  # fmt: skip
    decays = {"head": (batch, length, H), "channel": (batch, length, H, K), "constant": (H,), "constants": (H, K)}
    many = (batch, length, *((substeps,) if substeps else ()))

    def draw(d: Draw) -> dict[str, Any]:
        found = {"q": d.real(batch, length, groups, K), "k": unit(d.real(*many, groups, K)), "v": d.real(*many, H, V)}
        if decay is not None:
            found["log_decay"] = -np.exp(d.uniform(-4, 1, *decays[decay]))
        others = {
            "beta": lambda: d.uniform(0, 2, *many, H), "erase": lambda: d.uniform(0, 1, *many, groups, K),
            "write": lambda: d.uniform(0, 1, *many, H, V), "a": lambda: 0.5 * d.real(*many, H, K),
            "b": lambda: 0.5 * d.real(*many, groups, K), "initial": lambda: d.real(states, H, K, V),
            "reset": lambda: d.resets(batch, length), "lengths": lambda: np.asarray(LENGTHS),
            "cu_seqlens": lambda: np.asarray(PACKED),
        }  # fmt: skip
        return found | {n: make() for n, make in others.items() if n in more}

    return draw


def arguments(v: SimpleNamespace) -> dict[str, Any]:
    return {n: x for n, x in vars(v).items() if n not in ("xp", "device")}


def _case(name: str, draw: Draws, dtypes: tuple[str, ...] = REALS, known: tuple[str, ...] = (), **options: Any) -> Case:
    def shown(found: Any, lengths: Any) -> tuple[Any, ...]:
        y, *state = found if isinstance(found, tuple) else (found,)
        return (y, *state) if lengths is None else (*(y[i, :n, ...] for i, n in enumerate(LENGTHS)), *state)

    def call(v: SimpleNamespace) -> Any:
        return shown(ssm_core.gated_delta(**arguments(v), **options), getattr(v, "lengths", None))

    def expected(v: SimpleNamespace) -> Any:
        return shown(gated_delta(v, **options), getattr(v, "lengths", None))

    half = (True, True, False) if "lengths" in draw(Draw(1)) else (True, False)
    return Case("gated_delta", name, draw, call, expected, dtypes, terms=64 * L, half=half, known=known)


STATED: dict[str, Any] = {"return_state": True}
RUNS = (
    _case("no_decay-groups", inputs("beta", "initial", decay=None, groups=G), SIGNALS, **STATED),
    _case("one_decay-reset", inputs("beta", "initial", "reset", groups=G), SIGNALS, chunk=4, **STATED),
    _case("constants-single_steps", inputs("beta", "reset", decay="constants"), chunk=1, **STATED),
    _case("channel", inputs("beta", "initial", decay="channel"), SIGNALS, chunk=4, **STATED),
    _case("erase-write-lengths", inputs("erase", "write", "lengths", "reset", decay="channel", groups=G),
          chunk=5, **STATED),
    _case("other_key-reset", inputs("beta", "a", "reset", "initial", groups=G), chunk=2, **STATED),
    _case("general-reset", inputs("a", "b", "reset", "initial", decay="channel"), SIGNALS, chunk=3, scale=1.0,
          **STATED),
    _case("general-lengths-beta", inputs("a", "b", "beta", "lengths", decay="constant", groups=G), chunk=1, **STATED),
    _case("substeps-reset-lengths", inputs("beta", "reset", "lengths", "initial", groups=G, substeps=3), chunk=4,
          **STATED),
    _case("substeps-general", inputs("a", "b", "write", "reset", decay="channel", substeps=2), chunk=2),
    _case("packed", inputs("beta", "cu_seqlens", decay="channel", batch=1), chunk=4),
    _case("packed-states", inputs("beta", "initial", "cu_seqlens", batch=1, states=3, substeps=2), chunk=2,
          known=("cu_seqlens",), **STATED),
)  # fmt: skip


def _update(name: str, draw: Draws, dtypes: tuple[str, ...] = REALS, **options: Any) -> Case:
    """The first step of a sequence."""

    def without_time(found: dict[str, Any]) -> dict[str, Any]:
        kept = TIMELESS if found["log_decay"].ndim == 1 else TIMELESS[:1]
        return {n: x if n in kept else x[:, 0] for n, x in found.items()}

    def call(v: SimpleNamespace) -> Any:
        given = arguments(v)
        return ssm_core.gated_delta_update(given.pop("initial"), **given, **options)

    def expected(v: SimpleNamespace) -> Any:
        kept = TIMELESS if v.log_decay.ndim == 1 else TIMELESS[:1]
        given = {n: x if n in kept else x[:, None] for n, x in vars(v).items()}
        y, state = gated_delta(SimpleNamespace(**given), **options, **STATED)
        return y[:, 0], state

    def of_step(d: Draw) -> dict[str, Any]:
        return without_time(draw(d))

    return Case("gated_delta_update", name, of_step, call, expected, dtypes, terms=64, half=(True, False))


UPDATE = (
    _update("heads", inputs("beta", "initial", groups=G), SIGNALS),
    _update("erase-write", inputs("erase", "write", "initial", decay="channel", groups=G)),
    _update("other_key", inputs("beta", "a", "initial", decay="constant")),
    _update("general", inputs("a", "b", "initial", decay="channel"), SIGNALS, scale=1.0),
    _update("substeps", inputs("beta", "initial", groups=G, substeps=2)),
)


def _summary(name: str, draw: Draws, **options: Any) -> Case:
    """The state that a summary makes of a state."""

    def of_summary(d: Draw) -> dict[str, Any]:
        return {n: x for n, x in draw(d).items() if n != "q"}

    def call(v: SimpleNamespace) -> Any:
        given = arguments(v)
        state = given.pop("initial")
        return ssm_core.gated_delta_summary(**given, **options).after(state)

    def expected(v: SimpleNamespace) -> Any:
        q = v.k if v.k.ndim == 4 else v.k[:, :, 0]
        return gated_delta(SimpleNamespace(**vars(v), q=q), **options, **STATED)[1]

    return Case("gated_delta_summary", name, of_summary, call, expected, terms=64 * L, half=(False,))


SUMMARY = (
    _summary("channel-lengths", inputs("beta", "lengths", "initial", decay="channel"), chunk=4),
    _summary("one_decay-reset", inputs("beta", "write", "reset", "initial", groups=G)),
    _summary("general", inputs("a", "b", "initial", decay="channel"), chunk=2),
    _summary("substeps", inputs("beta", "initial", substeps=2), chunk=4),
)

ALL = (*RUNS, *UPDATE, *SUMMARY)
