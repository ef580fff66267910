"""Chunk summaries of every recurrence: any split of a sequence, joined in any order, equals the run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import array_api_compat.numpy
import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from ssm_core import DPLR, Dense, Diagonal

L, BATCH = 17, 2
draws = settings(derandomize=True, deadline=None, max_examples=8, database=None)


@dataclass(frozen=True)
class Kind:
    """draw gives signals by name with time on axis 1 and the batch on axis 0, and constants; run and summary take both.

    run(signals, constants, state, masks) gives the last state, summary(signals, constants, masks) the summary.
    """

    name: str
    draw: Callable[[Any], tuple[dict[str, Any], dict[str, Any], Any]]
    run: Callable[..., Any]
    summary: Callable[..., Any]
    lengths: bool = True
    resets: bool = True

    def __repr__(self) -> str:
        return self.name


def normal(r: Any, *shape: int) -> np.ndarray:
    return r.normal(size=shape)


def _complex(r: Any, *shape: int) -> np.ndarray:
    return normal(r, *shape) + 1j * normal(r, *shape)


def _steps(r: Any, *shape: int) -> np.ndarray:
    return r.uniform(0.05, 0.7, size=shape)


def _last(v: Any) -> Any:
    """Time moved from axis 1 to the end."""
    xp = v.__array_namespace__() if hasattr(v, "__array_namespace__") else np
    return xp.moveaxis(v, 1, -1)


LINEAR = Kind(
    "linear_scan",
    lambda r: ({"a": r.uniform(-0.9, 0.9, (BATCH, L, 3)), "b": normal(r, BATCH, L, 3)}, {}, normal(r, BATCH, 3)),
    lambda v, c, state, m: ssm_core.linear_scan(v["a"], v["b"], axis=1, initial=state)[:, -1, :],
    lambda v, c, m: ssm_core.chunk_summary(v["a"], v["b"], axis=1),
    lengths=False,
    resets=False,
)
CONSTANT = Kind(
    "diagonal_scan",
    lambda r: ({"u": normal(r, BATCH, L)}, {"A": 0.5 * _complex(r, 4), "B": _complex(r, 4)}, _complex(r, BATCH, 4)),
    lambda v, c, state, m: ssm_core.diagonal_scan(v["u"], c["A"], c["B"], c["B"], initial=state, **m)[1],
    lambda v, c, m: ssm_core.diagonal_summary(v["u"], c["A"], c["B"], **m),
    lengths=False,
)
PER_STEP = Kind(
    "diagonal_scan per step",
    lambda r: (
        {"u": normal(r, BATCH, L), "A": r.uniform(-0.9, 0.9, (BATCH, L, 4))},
        {"B": normal(r, 1, 1, 4)},
        normal(r, BATCH, 4),
    ),
    lambda v, c, state, m: ssm_core.diagonal_scan(v["u"], v["A"], c["B"], c["B"], initial=state, per_step=True, **m)[1],
    lambda v, c, m: ssm_core.diagonal_summary(v["u"], v["A"], c["B"], per_step=True, **m),
    lengths=False,
)


def _of_system(name: str, fields: Callable[[Any], Any], state: Callable[[Any], Any], **options: Any) -> Kind:
    """A system record from arrays by name."""
    scaled = options.pop("scaled", False)

    def draw(r: Any) -> Any:
        cls, arrays, flags = fields(r)
        signals = {"u": normal(r, BATCH, L)} | ({"s": _steps(r, BATCH, L)} if scaled else {})
        return signals, arrays | {"make": lambda c: cls(**{n: c[n] for n in arrays}, **flags)}, state(r)

    def given(v: Any) -> dict[str, Any]:
        return options | ({"step_scale": v["s"]} if scaled else {})

    return Kind(
        name,
        draw,
        lambda v, c, state, m: ssm_core.scan(c["make"](c), v["u"], initial=state, **given(v), **m)[1],
        lambda v, c, m: ssm_core.scan_summary(c["make"](c), v["u"], **given(v), **m),
    )


def _diagonal(r: Any) -> Any:
    poles = -r.uniform(0.1, 1, 4) + 1j * normal(r, 4)
    return Diagonal, {"poles": poles, "B": _complex(r, 4), "C": _complex(r, 4)}, {"conj_pairs": True}


def _dense(r: Any) -> Any:
    return Dense, {"A": 0.4 * normal(r, 3, 3) - np.eye(3), "B": normal(r, 3), "C": normal(r, 3)}, {}


def _dplr(r: Any) -> Any:
    poles = -r.uniform(0.5, 1, 3) + 1j * normal(r, 3)
    P, Q = 0.3 * _complex(r, 1, 3), 0.3 * _complex(r, 1, 3)
    return DPLR, {"poles": poles, "P": P, "Q": Q, "B": _complex(r, 3), "C": _complex(r, 3)}, {"conj_pairs": True}


SYSTEMS = (
    _of_system("diagonal system", _diagonal, lambda r: _complex(r, BATCH, 4), dt=0.3),
    _of_system("diagonal system bilinear", _diagonal, lambda r: _complex(r, BATCH, 4), dt=0.3, method="bilinear"),
    _of_system("diagonal system with steps", _diagonal, lambda r: _complex(r, BATCH, 4), dt=0.3, scaled=True),
    _of_system("dense system", _dense, lambda r: normal(r, BATCH, 3), dt=0.3),
    _of_system("dense system foh", _dense, lambda r: normal(r, BATCH, 4), dt=0.3, method="foh"),
    _of_system("dplr system", _dplr, lambda r: _complex(r, BATCH, 3), dt=0.3, method="bilinear"),
)


def _selective(name: str, rule: str, complex_A: bool = False) -> Kind:
    def draw(r: Any) -> Any:
        A = -r.uniform(0.2, 2, (4, 3)) + (1j * normal(r, 4, 3) if complex_A else 0)
        signals = {"u": normal(r, BATCH, L, 4), "dt": normal(r, BATCH, L, 4), "B": normal(r, BATCH, L, 3)}
        width = 6 if rule == "trapezoidal" else 3
        state = _complex(r, BATCH, 4, width) if complex_A else normal(r, BATCH, 4, width)
        return signals, {"A": A, "bias": normal(r, 4)}, state

    def arguments(v: Any, c: Any) -> tuple[Any, ...]:
        return _last(v["u"]), _last(v["dt"]), c["A"], _last(v["B"])

    def options(c: Any, m: Any) -> dict[str, Any]:
        return {"dt_bias": c["bias"], "dt_softplus": True, "discretization": rule, **m}

    return Kind(
        name,
        draw,
        lambda v, c, state, m: ssm_core.selective_scan(
            *arguments(v, c), _last(v["B"]), initial=state, return_state=True, **options(c, m)
        )[1],
        lambda v, c, m: ssm_core.selective_summary(*arguments(v, c), **options(c, m)),
    )


def _heads(r: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    signals = {"x": normal(r, BATCH, L, 4, 3), "dt": _steps(r, BATCH, L, 4), "B": normal(r, BATCH, L, 2, 6)}
    return signals, {"A": -r.uniform(0.2, 2, 4)}


SSD = Kind(
    "ssd",
    lambda r: (*_heads(r), normal(r, BATCH, 4, 3, 6)),
    lambda v, c, state, m: ssm_core.ssd(
        v["x"], v["dt"], c["A"], v["B"], v["B"], initial=state, return_state=True, chunk=4, **m
    )[1],
    lambda v, c, m: ssm_core.ssd_summary(v["x"], v["dt"], c["A"], v["B"], chunk=4, **m),
)


def _mamba3(ranked: bool) -> Kind:
    def draw(r: Any) -> Any:
        signals, constants = _heads(r)
        signals |= {"trap": normal(r, BATCH, L, 4), "angles": normal(r, BATCH, L, 1, 2)}
        rank = (3,) if ranked else ()
        if ranked:
            signals["B"] = normal(r, BATCH, L, 3, 2, 6)
            constants["x_map"] = normal(r, 4, 3, 3)
        constants["B_bias"] = normal(r, 4, *rank, 6)
        sizes = ((4, 3, 6), (4, *rank, 6), (4, *rank, 3))
        return signals, constants, (r.uniform(0, 6, (BATCH, 4, 2)), *(normal(r, BATCH, *size) for size in sizes))

    def options(v: Any, c: Any, m: Any) -> dict[str, Any]:
        return {"trap": v["trap"], "angles": v["angles"], "B_bias": c["B_bias"], "chunk": 4, **m}

    def run(v: Any, c: Any, state: Any, m: Any) -> Any:
        maps = (c["x_map"], None, c["x_map"]) if ranked else None
        given = {"initial": state, "rank_maps": maps, "return_state": True, **options(v, c, m)}
        return ssm_core.mamba3_scan(v["x"], v["dt"], c["A"], v["B"], v["B"], **given)[1]

    def summary(v: Any, c: Any, m: Any) -> Any:
        return ssm_core.mamba3_summary(v["x"], v["dt"], c["A"], v["B"], x_map=c.get("x_map"), **options(v, c, m))

    return Kind("mamba3 of ranks" if ranked else "mamba3", draw, run, summary)


def _attention(name: str, channels: bool, normalize: str | None) -> Kind:
    """Gated linear attention, with log inputs where there is a normalizer."""
    given = ("log_decay",) if normalize is None else ("log_decay", "log_input")

    def draw(r: Any) -> Any:
        signals = {n: normal(r, BATCH, L, 2, 3) for n in ("k", "v")} | {"log_input": normal(r, BATCH, L, 2)}
        signals["log_decay"] = -_steps(r, BATCH, L, 2, *((3,) if channels else ()))
        parts = (normal(r, BATCH, 2, 3, 3), _steps(r, BATCH, 2, 3), normal(r, BATCH, 2))
        return signals, {}, {None: parts[0], "sum": parts[:2], "max": parts}[normalize]

    def run(v: Any, c: Any, state: Any, m: Any) -> Any:
        options = {n: v[n] for n in given} | {
            "normalize": normalize,
            "initial": state,
            "return_state": True,
            "chunk": 4,
        }
        return ssm_core.gated_linear_attention(v["k"], v["k"], v["v"], **options, **m)[1]

    def summary(v: Any, c: Any, m: Any) -> Any:
        options = {n: v[n] for n in given} | {"normalize": normalize, "chunk": 4}
        return ssm_core.gated_linear_attention_summary(v["k"], v["v"], **options, **m)

    return Kind(name, draw, run, summary)


ALL = (
    LINEAR,
    CONSTANT,
    PER_STEP,
    *SYSTEMS,
    _selective("selective", "mamba"),
    _selective("selective zoh", "zoh"),
    _selective("selective trapezoidal", "trapezoidal"),
    _selective("selective complex", "mamba", complex_A=True),
    SSD,
    _attention("gated_linear_attention", channels=True, normalize=None),
    _attention("gated_linear_attention sum", channels=True, normalize="sum"),
    _attention("gated_linear_attention max", channels=False, normalize="max"),
    _mamba3(False),
    _mamba3(True),
)
seeds = st.integers(0, 2**16)
libraries = st.sampled_from([array_api_compat.numpy, array_api_strict])
cuts = st.sets(st.integers(1, L - 1), min_size=0, max_size=4)


def in_library(xp: Any, v: Any) -> Any:
    if isinstance(v, dict):
        return {name: in_library(xp, x) for name, x in v.items()}
    if isinstance(v, tuple):
        return tuple(in_library(xp, x) for x in v)
    return xp.asarray(v) if isinstance(v, np.ndarray) else v


def close(found: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        for a, b in zip(found, wanted, strict=True):
            close(a, b)
        return
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-9, atol=1e-9)


def pieces(kind: Kind, drawn: Any, masks: dict[str, Any], ends: list[int], xp: Any) -> list[Any]:
    """The summaries of the pieces between the ends."""
    signals, constants, _ = drawn
    found = []
    for start, stop in pairwise(ends):
        v = {name: x[:, start:stop] for name, x in signals.items()}
        m = {}
        if "reset" in masks:
            m["reset"] = masks["reset"][:, start:stop]
        if "lengths" in masks:
            m["lengths"] = np.clip(masks["lengths"] - start, 0, stop - start)
        found.append(kind.summary(in_library(xp, v), in_library(xp, constants), in_library(xp, m)))
    return found


def joined(summaries: list[Any], r: np.random.Generator) -> Any:
    """All of them as one, neighbor with neighbor in any order."""
    summaries = list(summaries)
    while len(summaries) > 1:
        i = int(r.integers(len(summaries) - 1))
        summaries[i : i + 2] = [summaries[i].then(summaries[i + 1])]
    return summaries[0]


@pytest.mark.parametrize("kind", ALL, ids=repr)
@draws
@given(seed=seeds, inner=cuts, with_resets=st.booleans(), with_lengths=st.booleans(), xp=libraries)
def test_any_split_in_any_order_is_the_run(
    kind: Kind, seed: int, inner: set[int], with_resets: bool, with_lengths: bool, xp: Any
):
    r = np.random.default_rng(seed)
    drawn = kind.draw(r)
    signals, constants, state = drawn
    masks: dict[str, Any] = {}
    if with_resets and kind.resets:
        masks["reset"] = r.uniform(size=(BATCH, L)) < 0.1
    if with_lengths and kind.lengths:
        masks["lengths"] = r.integers(0, L + 1, BATCH)
    given = [in_library(xp, x) for x in (signals, constants, state, masks)]
    wanted = kind.run(*given)
    summaries = pieces(kind, drawn, masks, [0, *sorted(inner), L], xp)
    close(joined(summaries, r).after(given[2]), wanted)
    for summary in summaries:
        given[2] = summary.after(given[2])
    close(given[2], wanted)


@pytest.mark.parametrize("kind", ALL, ids=repr)
def test_composition_is_associative(kind: Kind):
    drawn = kind.draw(np.random.default_rng(1))
    a, b, c = pieces(kind, drawn, {}, [0, 5, 9, L], np)
    for one, other in zip(a.then(b).then(c), a.then(b.then(c)), strict=True):
        close(one, other)


def broken(state: Any) -> Any:
    """NaN everywhere."""
    return tuple(map(broken, state)) if isinstance(state, tuple) else state * np.nan


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind.resets], ids=repr)
def test_nothing_goes_through_a_reset(kind: Kind):
    """Not even NaN, in one piece and in two."""
    drawn = kind.draw(np.random.default_rng(1))
    masks = {"reset": np.arange(L)[None] == np.asarray([[5], [7]])}
    before, both = pieces(kind, drawn, {}, [0, 5, L], np)[0], pieces(kind, drawn, masks, [0, L], np)[0]
    close(both.after(broken(drawn[2])), both.after(drawn[2]))
    close(before.then(both).after(broken(drawn[2])), before.then(both).after(drawn[2]))


def test_a_product_that_overflowed_leaves_zeros():
    chunk = ssm_core.chunk_summary(np.full(400, 10.0), np.zeros(400), axis=0)
    assert np.isinf(chunk.through)
    assert chunk.after(np.zeros(())) == 0


SUMMARIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "chunk_summary": (ssm_core.chunk_summary, {"a": np.ones(3), "b": np.ones(3), "axis": 0}),
    "diagonal_summary": (ssm_core.diagonal_summary, {"u": np.ones(3), "Ab": np.ones(1), "Bb": np.ones(1)}),
    "scan_summary": (ssm_core.scan_summary, {"system": Diagonal(*np.ones((3, 1)), discrete=True), "u": np.ones(3)}),
    "selective_summary": (
        ssm_core.selective_summary,
        {"u": np.ones((1, 1, 3)), "dt": np.ones((1, 1, 3)), "A": -np.ones((1, 1)), "B": np.ones((1, 1, 3))},
    ),
    "ssd_summary": (
        ssm_core.ssd_summary,
        {"x": np.ones((1, 3, 1, 1)), "dt": np.ones((1, 3, 1)), "A": -np.ones(1), "B": np.ones((1, 3, 1, 1))},
    ),
    "mamba3_summary": (
        ssm_core.mamba3_summary,
        {"x": np.ones((1, 3, 1, 1)), "dt": np.ones((1, 3, 1)), "A": -np.ones(1), "B": np.ones((1, 3, 1, 2)),
         "trap": np.ones((1, 3, 1)), "angles": np.ones((1, 3, 1, 1))},
    ),
}  # fmt: skip
WRONG = {
    "no array": 1, "none": None, "list": [1.0], "whole": np.ones(3, int), "text": np.asarray(["a"]),
    "number": np.asarray(1.0), "axes": np.ones((5, 5, 5, 5, 5, 5)), "library": array_api_strict.ones(3),
    "half": np.ones((1, 3, 5, 7), np.float16),
}  # fmt: skip


@pytest.mark.parametrize("name", SUMMARIES)
def test_refusals_name_the_summary_and_what_was_given(name: str):
    """And not the operator that it summarizes, nor the outputs that nobody asked for."""
    function, right = SUMMARIES[name]
    function(**right)
    masked = {} if name == "chunk_summary" else {"reset": np.ones(3)}
    chunked = {"chunk": "all"} if "chunk" in inspect.signature(function).parameters else {}
    tried = [right | {argument: x} for argument in right for x in WRONG.values()]
    found = [_refusal(function, options) for options in (*tried, right | masked, right | chunked)]
    assert len({text for text in found if text}) > 8
    assert [text for text in found if text and not text.startswith(f"{name}: ")] == []
    assert [text for text in found if re.search(r"\bC:|scan:|ssd:", text)] == []


def _refusal(function: Callable[..., Any], options: dict[str, Any]) -> str:
    """The message, or nothing where the function has an answer."""
    try:
        function(**options)
    except ssm_core.SSMError as error:
        return str(error)
    return ""


def test_to_diagonal_speaks_for_itself():
    with pytest.raises(ssm_core.SSMError, match=r"^to_diagonal: a int is no system"):
        ssm_core.to_diagonal(1)


def test_numbers_of_numpy_are_numbers_in_every_library(xp: Any):
    found = ssm_core.chunk_summary(np.float64(0.5), xp.asarray(np.ones((3, 2))), axis=np.int64(-2))
    np.testing.assert_allclose(np.asarray(found.through), np.full(2, 0.125))
    np.testing.assert_allclose(np.asarray(found.state), np.full(2, 1.75))
