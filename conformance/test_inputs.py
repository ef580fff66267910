"""Unusual inputs: read-only and strided memory, empty batches, inputs that must not change, arrays that do not mix."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.functions import special
from ssm_core.recurrences.segments import Segments
from ssm_core.time_invariant.simulation import simulated

from . import backends, examples
from .backends import HALF, Backend
from .cases import duality, functions, layers, models, systems
from .cases.functions import Case
from .examples import MIMO, PAIRS, UNPAIRED, Draw
from .tolerances import assert_close

pytestmark = pytest.mark.dtypes("float64")

ALL = (*functions.ALL, *systems.ALL, *layers.SMALL, *models.ALL)
# Writes must be impossible or be noticed; one case of each function is enough for what depends on memory only.
ONE_EACH = tuple({case.function: case for case in reversed(ALL)}.values())
GATED = (*systems.SELECTIVE, *systems.DUALITY)
WITH_LENGTHS = tuple(case for case in GATED if "lengths" in case.name)
MODES = ("conv", "chunk", "scan")


def relaid(backend: Backend, x: Any, layout: str) -> Any:
    """The same values in another layout of memory."""
    if not backend.owns(x) or x.ndim == 0:
        return x
    xp = backend.module
    if layout == "every_second":
        wide = xp.stack([x, x], axis=-1) if backend.family == "numpy" else xp.stack([x, x], dim=-1)
        return wide[..., 0]
    if layout == "transposed":
        axes = tuple(reversed(range(x.ndim)))
        flipped = np.ascontiguousarray(x.transpose(axes)) if backend.family == "numpy" else x.permute(axes).contiguous()
        return flipped.transpose(axes) if backend.family == "numpy" else flipped.permute(axes)
    reverse = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[reverse])[reverse]


@pytest.mark.cases(ONE_EACH)
@pytest.mark.backends("numpy", "torch")
@pytest.mark.parametrize("layout", ["every_second", "transposed", "backwards"])
def test_any_layout_of_memory(case: Case, layout: str, backend: Backend, dtype: str):
    if layout == "backwards" and backend.family != "numpy":
        pytest.skip("PyTorch has no negative strides")
    arrays, _ = case.inputs(backend, dtype)
    other = SimpleNamespace(**{name: relaid(backend, x, layout) for name, x in vars(arrays).items()})
    found, wanted = case.results(backend, other), case.results(backend, arrays)
    for actual, expected in zip(found, wanted, strict=True):
        assert_close(actual, backend.to_numpy(expected), backend, dtype, function=case.function, terms=case.terms)


@pytest.mark.cases(ALL)
@pytest.mark.backends("numpy")
def test_inputs_may_be_read_only(case: Case, backend: Backend, dtype: str):
    """All arrays of the suite are; this makes sure that they were when the function ran."""
    arrays, _ = case.inputs(backend, dtype)
    given = [x for x in vars(arrays).values() if isinstance(x, np.ndarray)]
    assert given
    assert not any(x.flags.writeable for x in given)
    for result in case.results(backend, arrays):
        assert not any(np.shares_memory(result, x) and result.flags.writeable for x in given)


@pytest.mark.cases(ALL)
@pytest.mark.backends("torch", "cupy")
def test_inputs_are_not_written_to(case: Case, backend: Backend, dtype: str):
    arrays, _ = case.inputs(backend, dtype)
    before = {name: backend.to_numpy(x).copy() for name, x in vars(arrays).items() if backend.owns(x)}
    case.results(backend, arrays)
    for name, x in before.items():
        np.testing.assert_array_equal(backend.to_numpy(getattr(arrays, name)), x)


# Nothing at all ------------------------------------------------------------------------------------------------------


def test_empty_batches(backend: Backend, dtype: str):
    """A batch of none gives results of none, in every mode and of the right shape."""
    d = Draw(0)
    fields = MIMO.fields(d)
    empty = {"u": np.zeros((0, 2, 20)), "state": np.zeros((0, 4), complex)}
    v = examples.as_arrays(backend, dtype, fields | empty | {"e": np.zeros((0, 5)), "k": d.real(5)})
    for mode in MODES:
        y, state = ssm_core.scan(MIMO.system(v), v.u, dt=0.1, initial=v.state, mode=mode)
        assert_close(y, np.zeros((0, 3, 20)), backend, dtype, function="scan")
        assert_close(state, np.zeros((0, 4), complex), backend, dtype, function="scan")
    assert_close(ssm_core.convolve(v.e, v.k), np.zeros((0, 5)), backend, dtype, function="convolve")
    assert_close(ssm_core.linear_scan(0.5, v.e, axis=1), np.zeros((0, 5)), backend, dtype, function="linear_scan")
    assert_close(ssm_core.expm(v.e[..., :0]), np.zeros((0, 0)), backend, dtype, function="expm")
    assert_close(special.gelu(v.e), np.zeros((0, 5)), backend, dtype, function="special.gelu")


def test_sequences_of_no_steps(backend: Backend, dtype: str):
    """No outputs, and the state stays."""
    d = Draw(0)
    v = examples.as_arrays(backend, dtype, PAIRS.fields(d) | {"u": np.zeros((2, 0)), "state": d.complex(2, 4)})
    wanted = backend.to_numpy(v.state)
    for mode in (*MODES, "auto"):
        y, state = ssm_core.scan(PAIRS.system(v), v.u, dt=0.1, initial=v.state, mode=mode)
        assert_close(y, np.zeros((2, 0)), backend, dtype, function="scan")
        assert_close(state, wanted, backend, dtype, function="scan")
    assert_close(ssm_core.linear_scan(0.5, v.u, axis=1), np.zeros((2, 0)), backend, dtype, function="linear_scan")
    assert_close(ssm_core.convolve(v.u, v.u), np.zeros((2, 0)), backend, dtype, function="convolve")
    y, state = ssm_core.diagonal_scan(v.u, v.poles, v.B, v.C, initial=v.state, conj_pairs=True)
    assert_close(y, np.zeros((2, 0)), backend, dtype, function="diagonal_scan")
    assert_close(state, wanted, backend, dtype, function="diagonal_scan")


# What does not belong together ---------------------------------------------------------------------------------------


def other_library(backend: Backend) -> Backend:
    """NumPy, or array_api_strict beside NumPy."""
    return backends.load("array_api_strict" if backend.family == "numpy" else "numpy")


def test_arrays_of_two_libraries_do_not_mix(backend: Backend, dtype: str):
    d, other = Draw(0), other_library(backend)
    own, foreign = (examples.as_arrays(b, dtype, PAIRS.fields(d) | {"u": d.real(6)}) for b in (backend, other))
    calls: list[Any] = [
        lambda: ssm_core.convolve(own.u, foreign.u),
        lambda: ssm_core.linear_scan(own.u, foreign.u, axis=0),
        lambda: ssm_core.scan(PAIRS.system(own), foreign.u, dt=0.1),
        lambda: ssm_core.kernel(ssm_core.Diagonal(own.poles, foreign.B, own.C), 4, dt=0.1),
        lambda: ssm_core.diagonal_scan(own.u, own.poles, own.B, foreign.C),
        lambda: ssm_core.discretize(PAIRS.system(own), abs(foreign.u[:1])),
        lambda: ssm_core.frequency_response(PAIRS.system(own), foreign.u),
    ]
    for call in calls:
        with pytest.raises(ssm_core.MixedArraysError, match="several libraries"):
            call()


@pytest.mark.backends("strictest", "torch")
def test_arrays_of_two_devices_do_not_mix(backend: Backend, dtype: str):
    d = Draw(0)
    v = examples.as_arrays(backend, dtype, PAIRS.fields(d) | {"u": d.real(6)})
    elsewhere = (
        v.u.to("meta") if backend.family == "torch" else backends.other_device(backend).asarray(d.real(6), dtype)
    )
    calls: list[Any] = [
        lambda: ssm_core.convolve(v.u, elsewhere),
        lambda: ssm_core.linear_scan(v.u, elsewhere, axis=0),
        lambda: ssm_core.scan(PAIRS.system(v), elsewhere, dt=0.1),
        lambda: ssm_core.diagonal_scan(elsewhere, v.poles, v.B, v.C),
    ]
    for call in calls:
        with pytest.raises(ssm_core.MixedArraysError, match="several devices"):
            call()


@pytest.mark.parametrize("dtype_name", ["int64", "bool"])
def test_integers_are_refused(dtype_name: str, backend: Backend, dtype: str):
    d = Draw(0)
    v = examples.as_arrays(backend, dtype, PAIRS.fields(d) | {"u": d.real(6)})
    whole = backend.asarray(np.ones(6).astype(dtype_name))
    calls: list[Any] = [
        lambda: ssm_core.convolve(whole, v.u),
        lambda: ssm_core.linear_scan(v.u, whole, axis=0),
        lambda: ssm_core.scan(PAIRS.system(v), whole, dt=0.1),
        lambda: ssm_core.expm(whole),
        lambda: special.erf(whole),
    ]
    for call in calls:
        with pytest.raises(ssm_core.DTypeError):
            call()


# Dtypes that meet ----------------------------------------------------------------------------------------------------


def test_complex_signal_of_paired_poles_is_one_function_or_refused(backend: Backend, dtype: str):
    """2 Re(C x) of a complex x is not the kernel's convolution: either all modes agree, or none takes it."""
    d = Draw(0, "complex128")
    v = examples.as_arrays(backend, dtype, PAIRS.fields(d) | {"u": d.signal(12)})
    results = []
    for mode in MODES:
        try:
            results.append(backend.to_numpy(ssm_core.scan(PAIRS.system(v), v.u, dt=0.1, mode=mode)[0]))
        except ssm_core.SSMError:
            results.append(None)
    for found in results[1:]:
        assert (found is None) == (results[0] is None)
        assert found is None or np.allclose(found, results[0])


@pytest.mark.dtypes(*HALF)
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_signal_of_a_complex_system_keeps_its_imaginary_part(mode: str, backend: Backend, dtype: str):
    d = Draw(0)
    v = examples.as_arrays(backend, dtype, UNPAIRED.fields(d) | {"u": d.real(12)})
    values = examples.rounded(backend, v)
    y, _ = ssm_core.scan(UNPAIRED.system(v), v.u, dt=0.1, mode=mode)
    wanted, _ = ssm_core.scan(UNPAIRED.system(values), values.u, dt=0.1)
    assert_close(y, wanted, backend, dtype, function="scan", terms=64)


@pytest.mark.parametrize("mode", MODES)
def test_padding_may_hold_anything(mode: str, backend: Backend, dtype: str):
    """Beyond its length a sequence counts as zero, whatever stands there: no NaN comes through an FFT."""
    d, lengths = Draw(3), np.asarray([40, 13])
    u = d.real(2, 40)
    beyond = np.arange(40) >= lengths[:, None]
    fields = PAIRS.fields(d) | {"state": d.complex(2, 4), "lengths": lengths}
    v = examples.as_arrays(backend, dtype, fields | {"u": np.where(beyond, 0, u), "dirty": np.where(beyond, np.nan, u)})

    def run(u: Any) -> Any:
        # Array by array: values of host arrays are checked, and NaN refused, before anything runs.
        system = PAIRS.system(v)
        xp = backend.xp
        segments = Segments(40, lengths=v.lengths)
        return simulated("scan", system, u, xp, segments=segments, dt=0.1, initial=v.state, mode=mode)

    wanted, last = run(v.u)
    y, state = run(v.dirty)
    assert_close(y[1, :13], backend.to_numpy(wanted[1, :13]), backend, dtype, function="scan")
    assert_close(y[0, :], backend.to_numpy(wanted[0, :]), backend, dtype, function="scan")
    assert_close(state, backend.to_numpy(last), backend, dtype, function="scan")


@pytest.mark.cases(WITH_LENGTHS)
@pytest.mark.backends("array_api_strict", "strictest", "torch", "jax", "cupy")
def test_padding_of_inputs_that_set_the_gates_may_hold_anything(case: Case, backend: Backend, dtype: str):
    """Where values are not checked, NaN beyond a length comes through no product of matrices."""
    arrays, values = case.inputs(backend, dtype)
    dirty = {}
    for name, x in vars(values).items():
        if name != "reset" and hasattr(x, "shape") and duality.L in x.shape:
            axis = x.shape.index(duality.L)
            beyond = np.arange(duality.L) >= values.lengths[:, None]
            beyond = beyond.reshape(len(beyond), *(1,) * (axis - 1), -1, *(1,) * (x.ndim - axis - 1))
            dirty[name] = np.where(beyond, np.nan, x)
    assert dirty
    given = SimpleNamespace(**vars(arrays) | vars(examples.as_arrays(backend, dtype, dirty)))
    for actual, expected in zip(case.results(backend, given), case.expected(values), strict=True):
        assert_close(actual, expected, backend, dtype, function=case.function, terms=case.terms)
