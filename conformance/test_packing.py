"""Packed sequences: each by itself, with states and without, in values and gradients, for every layer that packs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from . import autodiff
from .backends import Backend, other_device
from .cases import layers
from .cases.instance import H, Instance
from .examples import Draw, as_arrays, rounded
from .tolerances import assert_close, compare

PACKING = tuple(one for cases in layers.STREAMING if (one := cases.one_each[0]).takes("cu_seqlens"))
ENDS = np.asarray([0, 3, 3, 20, 31])  # the second sequence is empty

pytestmark = pytest.mark.cases(PACKING)


def inputs(case: Instance, backend: Backend, dtype: str) -> SimpleNamespace:
    """One signal, a state for every sequence, and steps of their own lengths where the layer takes them."""
    d, n = Draw(5), len(ENDS) - 1
    scale = d.uniform(0.5, 2, 1, ENDS[-1]) if case.cases.with_step_scale else None
    given = {"u": d.real(1, ENDS[-1], H), "scale": scale} | case.states(n, d)
    return as_arrays(backend, dtype, case.parameters() | given | {"ends": ENDS})


@pytest.mark.dtypes("float32")
def test_packed_sequences_are_sequences(case: Instance, backend: Backend, dtype: str):
    """Without states, where the ends may be traced, and with states, where they are known."""
    layer, v = case.layer, inputs(case, backend, dtype)
    ends, values = v.ends, rounded(backend, v)
    rate = 0.5 if case.cases.timed else 1.0

    def run(v: SimpleNamespace) -> Any:
        params, options = case.params_of(v), {"step_scale": v.scale, "rate": rate}
        with_states = {"state": case.state_in(v), "return_state": True, "cu_seqlens": ends}
        plain = layer.apply(params, v.u, cu_seqlens=v.ends, **options)
        return plain, layer.apply(params, v.u, **with_states, **options)

    plain, found = backend.run(run, v)
    options = {"cu_seqlens": ENDS, "rate": rate}
    case.check(found, case.truth(values, **options), int(ENDS[-1]), backend, dtype)
    fresh, _ = case.truth(values, state=None, **options)
    assert_close(plain, fresh, backend, dtype, function=case.function, terms=case.cases.terms * ENDS[-1])


@pytest.mark.backends("torch")
@pytest.mark.dtypes("float64")
def test_gradients_of_packed_sequences(case: Instance, backend: Backend, dtype: str):
    check_gradients(case, backend, dtype)


@pytest.mark.cases(tuple(one for one in PACKING if one.cases.plain.name in ("Mamba", "S4D")))
@pytest.mark.backends("jax")
@pytest.mark.dtypes("float64")
def test_gradients_of_packed_sequences_compiled(case: Instance, backend: Backend, dtype: str):
    check_gradients(case, backend, dtype)


def check_gradients(case: Instance, backend: Backend, dtype: str) -> None:
    """Of outputs and last states, with respect to parameters, inputs and first states, are those of padded sequences,
    whose padding is NaN."""
    layer, xp = case.layer, backend.xp
    v = inputs(case, backend, dtype)
    leaves = {n: x for n, x in vars(v).items() if n not in ("xp", "device", "ends", "scale")}
    ends, n, longest = v.ends, len(ENDS) - 1, max(np.diff(ENDS))
    lengths = backend.asarray(np.diff(ENDS))

    def loss(y: Any, state: Any) -> Any:
        return xp.sum(xp.sin(y)) + sum(xp.sum(xp.abs(xp.sin(s)) ** 2) for s in case.cases.parts(state))

    def of_packed(given: dict[str, Any]) -> Any:
        w = SimpleNamespace(**given)
        options = {"state": case.state_in(w), "return_state": True}
        return loss(*layer.apply(case.params_of(w), w.u, cu_seqlens=ends, **options))

    def of_padded(given: dict[str, Any]) -> Any:
        w = SimpleNamespace(**given)
        rows = [w.u[0, ENDS[i] : ENDS[i + 1], :] for i in range(n)]
        beyond = [xp.zeros((longest - len(row), H), dtype=row.dtype) + float("nan") for row in rows]
        u = xp.stack([xp.concat([row, rest]) for row, rest in zip(rows, beyond, strict=True)])
        options = {"state": case.state_in(w), "return_state": True, "lengths": lengths}
        y, state = layer.apply(case.params_of(w), u, **options)
        y = [y[i, : ENDS[i + 1] - ENDS[i], :] for i in range(n)]
        return loss(xp.concat(y), state)

    found, wanted = (autodiff.gradient(backend, f, leaves) for f in (of_packed, of_padded))
    scale = max(np.abs(backend.to_numpy(g)).max(initial=0) for g in wanted.values())
    for leaf, gradient in found.items():
        actual, expected = backend.to_numpy(gradient), backend.to_numpy(wanted[leaf])
        compare(actual, expected, backend, dtype, function=case.function, terms=64 * 31, scale=scale)


@pytest.mark.backends("strictest")
@pytest.mark.dtypes("float64")
def test_packed_sequences_stay_on_their_device(case: Instance, backend: Backend, dtype: str):
    v = inputs(case, other_device(backend), dtype)
    y, state = case.layer.apply(case.params_of(v), v.u, cu_seqlens=v.ends, return_state=True)
    assert {x.device for x in (y, *case.cases.parts(state))} == {v.device}
