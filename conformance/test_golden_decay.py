"""Gated linear attention against numbers of the original implementations: outputs, last states and gradients.

A kind of files says how its arrays become arguments; gradients are with respect to what the files differentiate.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.functions.special import sigmoid, softplus

from . import autodiff
from .backends import Backend
from .cases.decay import flat
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .test_golden_duality import budget, check_gradients
from .tolerances import assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

Arguments = Callable[[SimpleNamespace], dict[str, Any]]


def heads_last(x: Any, v: SimpleNamespace) -> Any:
    """(batch, heads, T, ...) to (batch, T, heads, ...)."""
    return v.xp.permute_dims(x, (0, 2, 1, *range(3, x.ndim)))


def linear(v: SimpleNamespace) -> dict[str, Any]:
    return {
        "q": v.q,
        "k": v.k,
        "v": v.v,
        "initial": v.initial_state,
        "log_decay": getattr(v, "g", getattr(v, "gk", None)),
    }


def retention(v: SimpleNamespace) -> dict[str, Any]:
    q, k, values = (heads_last(x, v) for x in (v.q, v.k, v.v))
    gamma = 1 - 2.0 ** (-5 - np.arange(q.shape[2]))
    return {"q": q, "k": k, "v": values, "log_decay": v.xp.asarray(np.log(gamma), dtype=q.dtype, device=v.device)}


def lightning(v: SimpleNamespace) -> dict[str, Any]:
    return {"q": v.q, "k": v.k, "v": v.v, "initial": v.initial_state, "log_decay": -v.slope}


def hgrn2(v: SimpleNamespace) -> dict[str, Any]:
    a = v.lower_bound + (1 - v.lower_bound) * sigmoid(v.f)
    return {"q": v.q, "k": 1 - a, "v": v.v, "initial": v.initial_state, "log_decay": v.xp.log(a)}


def rwkv(v: SimpleNamespace) -> dict[str, Any]:
    r, k, values, w = (heads_last(x, v) for x in (v.r, v.k, v.v, v.w))
    options = {"bonus": v.u, "exclusive": True, "scale": 1.0, "initial": v.initial_state}
    return {"q": r, "k": k, "v": values, "log_decay": w} | options


def mlstm(v: SimpleNamespace) -> dict[str, Any]:
    q, k, values, f, i = (heads_last(x, v) for x in (v.q, v.k, v.v, v.fgate, v.igate))
    state = {"initial": (v.initial_c, v.initial_n, v.initial_m[..., 0])} if hasattr(v, "initial_c") else {}
    return {"q": q, "k": k, "v": values, "log_decay": -softplus(-f), "log_input": i, "normalize": "max"} | state


KINDS: dict[str, Arguments] = {
    "linear_attention": linear, "simple_gla": linear, "gla": linear, "retention": retention,
    "lightning_attn": lightning, "hgrn2": hgrn2, "rwkv5_wkv": rwkv, "rwkv6_wkv": rwkv, "mlstm": mlstm,
}  # fmt: skip
ALL = tuple(f"{kind}_*_B?_*" if kind in ("gla", "simple_gla") else f"{kind}_*B?_*" for kind in KINDS)
LATE = (retention, rwkv, mlstm)  # their files have the heads before time


def kind_of(path: Path) -> Arguments:
    return next(KINDS[kind] for kind in sorted(KINDS, key=len, reverse=True) if path.stem.startswith(kind))


def wanted(numbers: Numbers, kind: Arguments) -> list[np.ndarray | None]:
    """y and the parts of the last state; None for what a file does not have."""
    y = numbers["h" if kind is mlstm else "o"]
    y = np.swapaxes(y, 1, 2) if kind in LATE else y
    if kind is mlstm:
        return [y, numbers["final_c"], numbers["final_n"], numbers["final_m"][..., 0]]
    return [y, numbers.get("final_state")]


def inputs(numbers: Numbers) -> dict[str, np.ndarray]:
    outputs = ("o", "h", "h_chunkwise", "layer_idx", "num_layers")
    return {n: x for n, x in numbers.items() if n not in outputs and not n.startswith(("final", "grad", "cotangent"))}


@files(*ALL)
def test_outputs_and_states(path: Path, backend: Backend, dtype: str):
    numbers, kind = read(path), kind_of(path)

    def run(v: SimpleNamespace) -> Any:
        return flat(ssm_core.gated_linear_attention(**kind(v), return_state=True, **options(path), chunk=5))

    given = inputs(numbers)
    found = backend.run(run, as_arrays(backend, dtype, given))
    allowed = budget(numbers["v"].shape[2 if kind in LATE else 1], dtype)
    for actual, expected in zip(found, wanted(numbers, kind), strict=True):
        if expected is not None:
            assert_close(actual, expected, backend, dtype, function="gated_linear_attention", allowed=allowed)


def options(path: Path) -> dict[str, Any]:
    """MiniMax has no scale."""
    return {"scale": 1.0} if "minimax" in path.stem else {}


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(*ALL, where=lambda numbers: "cotangent" in numbers)
def test_gradients(path: Path, backend: Backend, dtype: str):
    numbers, kind = read(path), kind_of(path)
    slopes = {n.removeprefix("grad."): x for n, x in numbers.items() if n.startswith("grad.")}
    v = as_arrays(backend, dtype, inputs(numbers))
    cotangents = [backend.asarray(numbers["cotangent"], dtype)]
    if kind in LATE:
        cotangents = [heads_last(cotangents[0], v)]
    names = ("cotangent_c", "cotangent_n") if kind is mlstm else ("cotangent_state",)
    cotangents += [backend.asarray(numbers[n], dtype) for n in names if n in numbers]

    def loss(t: dict[str, Any]) -> Any:
        given = kind(SimpleNamespace(**vars(v) | t))
        found = flat(ssm_core.gated_linear_attention(**given, return_state=True, **options(path), chunk=5))
        return sum(backend.xp.sum(y * c) for y, c in zip(found, cotangents, strict=False))

    found = autodiff.gradient(backend, loss, {n: getattr(v, n) for n in slopes})
    check_gradients(found, slopes, backend, dtype, "gated_linear_attention", 16)
