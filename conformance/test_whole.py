"""Layers that need their whole input: every option against direct sums, at any lengths, packed, in half precision."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from .backends import HALF, Backend
from .cases import layers
from .cases.instance import BATCH, H, Instance
from .examples import Draw, as_arrays, rounded
from .tolerances import assert_close

INSTANCES = tuple(one for cases in layers.WHOLE for one in cases.all)
ONES = tuple(one for cases in layers.WHOLE for one in cases.one_each)
TIMED = tuple(one for one in ONES if one.cases.timed)
PACKING = tuple(one for one in INSTANCES if one.cases.packed)

pytestmark = pytest.mark.dtypes("float32", "float64")


def check(case: Instance, found: Any, wanted: Any, backend: Backend, dtype: str) -> None:
    terms = case.cases.terms * max(1, np.prod(wanted.shape[1:-1]))
    assert_close(found, wanted, backend, dtype, function=case.function, terms=terms, half=True)


def wanted(case: Instance, backend: Backend, v: SimpleNamespace, **options: Any) -> np.ndarray:
    values = rounded(backend, v)
    return case.cases.expected(case.options_given, case.params_of(values), values.u, **options)


@pytest.mark.cases(INSTANCES)
@pytest.mark.dtypes("float32", "float64", *HALF)
def test_is_a_direct_sum(case: Instance, backend: Backend, dtype: str):
    """In half precision of the input."""
    given = case.inputs(7)
    v = as_arrays(backend, "float32" if dtype in HALF else dtype, given)
    v.u = backend.asarray(given["u"], dtype)
    y = backend.run(lambda v: case.layer.apply(case.params_of(v), v.u), v)
    check(case, y, wanted(case, backend, v), backend, dtype)


@pytest.mark.cases(ONES)
@pytest.mark.dtypes("float32")
def test_what_lies_beyond_lengths_may_be_nan(case: Instance, backend: Backend, dtype: str):
    """Also in the derivative with respect to what lies within."""
    axes = case.cases.axes(case.layer, 7)
    lengths = np.asarray([[n, max(1, n - 3)] for n in axes]).T
    given = case.inputs(7, lengths=lengths if len(axes) > 1 else lengths[:, 0])
    parts = [(i, *(slice(n) for n in row)) for i, row in enumerate(lengths)]
    u = np.full_like(given["u"], np.nan)
    for part in parts:
        u[part] = given["u"][part]
    v = as_arrays(backend, dtype, given | {"u": u})
    y = backend.run(lambda v: case.layer.apply(case.params_of(v), v.u, lengths=v.lengths), v)
    params = case.params_of(rounded(backend, v))
    for part in parts:
        alone = case.cases.expected(case.options_given, params, u[part][None])
        check(case, y[(slice(part[0], part[0] + 1), *part[1:], ...)], alone, backend, dtype)


@pytest.mark.cases(PACKING)
@pytest.mark.dtypes("float32")
def test_packed_sequences_are_sequences(case: Instance, backend: Backend, dtype: str):
    """One that is not finite breaks none of the others."""
    ends = np.asarray([0, 3, 3, 12, 20])
    given = case.inputs(20, batch=1)
    given["u"][0, 4] = np.inf
    v = as_arrays(backend, dtype, given)
    cu_seqlens = backend.asarray(ends)
    y = backend.run(lambda v: case.layer.apply(case.params_of(v), v.u, cu_seqlens=cu_seqlens), v)
    params, u = case.params_of(rounded(backend, v)), given["u"].astype(np.float32)
    for start, stop in pairwise(ends):
        if np.isfinite(u[:, start:stop]).all():
            alone = case.cases.expected(case.options_given, params, u[:, start:stop])
            check(case, y[:, start:stop, :], alone, backend, dtype)
    assert np.isnan(backend.to_numpy(y)[0, 4:12]).all()


@pytest.mark.cases(TIMED)
@pytest.mark.dtypes("float64")
def test_rates(case: Instance, backend: Backend, dtype: str):
    """One, an array, and one for every axis."""
    v = case.arrays(backend, dtype, 7, rate=np.asarray(0.7))
    rates = (0.5, *(2.0 + a for a in range(1, case.layer.dims)))

    def run(v: SimpleNamespace) -> Any:
        return [case.layer.apply(case.params_of(v), v.u, rate=rate) for rate in (2, v.rate, rates)]

    for y, rate in zip(backend.run(run, v), (2.0, 0.7, rates), strict=True):
        check(case, y, wanted(case, backend, v, rate=rate), backend, dtype)


@pytest.mark.cases(ONES)
@pytest.mark.backends("numpy", "strictest", "torch")
@pytest.mark.dtypes("float32")
def test_nothing_at_all(case: Instance, backend: Backend, dtype: str):
    """A batch of none, and inputs of no samples."""
    for batch, length in ((0, 5), (BATCH, 0)):
        shape = (batch, *case.cases.axes(case.layer, length), H)
        v = as_arrays(backend, dtype, case.parameters() | {"u": Draw(0).real(*shape)})
        assert tuple(case.layer.apply(case.params_of(v), v.u).shape) == shape
