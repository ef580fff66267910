"""Fused implementations give what the generic bodies give, the readable reference; and they carry long sequences."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.functions.affine import glu
from ssm_core.recurrences.linear import LONGEST_TRACED_LOOP

from . import examples, truth
from .backends import Backend
from .capabilities import BY_NAME
from .cases import functions, systems
from .cases.functions import Case
from .examples import PAIRS, Draw
from .tolerances import assert_close, phase_budget

pytestmark = pytest.mark.fast_paths

WITH_TWINS = [case for case in (*functions.ALL, *systems.ALL) if BY_NAME[case.function].rests_on]
UNDER_JIT = ("linear_scan", "diagonal_scan", "selective_scan", "selective_summary", "expm", "scan")
LENGTHS = (1, 2, 7, 31, 64, 101, 256, 1000, 1024)  # 1, 2, odd, prime, a power of two, and what is split into blocks
LONGEST_EAGER = {"jax": 64}  # of the generic loop, where it takes seconds to compile the slices of more
LONG = 100_000


@pytest.mark.cases(WITH_TWINS)
@pytest.mark.backends("numpy", "torch", "cupy")
@pytest.mark.dtypes("float32", "float64", "complex128")
def test_twin_is_generic_body(case: Case, backend: Backend, dtype: str):
    check_against_generic(case, backend, dtype)


@pytest.mark.cases([case for case in WITH_TWINS if case.function in UNDER_JIT])
@pytest.mark.backends("jax")
@pytest.mark.dtypes("float64")
def test_twin_is_generic_body_under_jit(case: Case, backend: Backend, dtype: str):
    """Sequences of these cases are short, so that the generic loop may be traced."""
    if "auto-150" in case.name:
        pytest.skip(f"the generic loop is not traced beyond {LONGEST_TRACED_LOOP} steps")
    check_against_generic(case, backend, dtype)


def check_against_generic(case: Case, backend: Backend, dtype: str) -> None:
    arrays, _ = case.inputs(backend, dtype)
    fast = case.results(backend, arrays)
    with ssm_core.use_backend("generic"):
        reference = case.results(backend, arrays)
    for actual, wanted in zip(fast, reference, strict=True):
        assert actual.dtype == wanted.dtype
        expected = backend.to_numpy(wanted)
        assert_close(actual, expected, backend, dtype, function=case.function, terms=case.terms)


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
@pytest.mark.dtypes("float64")
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("constant", [False, True], ids=["per_step", "constant"])
@pytest.mark.parametrize("length", LENGTHS)
def test_linear_scan_of_every_length(length: int, constant: bool, reverse: bool, backend: Backend, dtype: str):
    """Eagerly, the generic loop against the fused one and against the plain loop."""
    d = Draw(length, "complex128")
    inputs = {"a": d.gates(1 if constant else length, 3), "b": d.signal(length, 3), "initial": d.signal(3)}
    v = examples.as_arrays(backend, dtype, inputs)
    options: dict[str, Any] = {"axis": 0, "initial": v.initial, "reverse": reverse}
    expected = truth.linear_scan(inputs["a"], inputs["b"], 0, inputs["initial"], reverse)
    for chosen in ("auto", "generic") if length <= LONGEST_EAGER.get(backend.family, 1024) else ("auto",):
        states = ssm_core.linear_scan(v.a, v.b, backend=chosen, **options)
        assert_close(states, expected, backend, dtype, function="linear_scan", terms=length)


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
@pytest.mark.dtypes("float32")
@pytest.mark.parametrize("width", [(), (1,), (5, 1), (3000,)], ids=str)
def test_linear_scan_of_narrow_and_wide_vectors(width: tuple[int, ...], backend: Backend, dtype: str):
    """They choose their loop by the numbers a step has, and by the order in memory."""
    d = Draw(0)
    for axis, shape in ((0, (200, *width)), (-1, (*width, 200))):
        inputs = {"a": d.gates(*shape), "b": d.real(*shape)}
        v = examples.as_arrays(backend, dtype, inputs)
        states = ssm_core.linear_scan(v.a, v.b, axis=axis)
        rounded = examples.rounded(backend, v)
        expected = truth.linear_scan(rounded.a, rounded.b, axis)
        assert_close(states, expected, backend, dtype, function="linear_scan", terms=200)


@pytest.mark.backends("numpy", "torch", "cupy")
@pytest.mark.dtypes("float32")
def test_gates_that_overflow_their_products(backend: Backend, dtype: str):
    """Growing states from a late start: a product of gates that overflows must not meet the zeros before it."""
    a, b = np.full(400, 1.5), np.zeros(400)
    b[390] = 1.0
    v = examples.as_arrays(backend, dtype, {"a": a, "b": b})
    expected = truth.linear_scan(a, b, 0)
    assert_close(ssm_core.linear_scan(v.a, v.b, axis=0), expected, backend, dtype, function="linear_scan", terms=400)


@pytest.mark.backends("torch", "jax")
@pytest.mark.dtypes("float32")
def test_traced_generic_loop_refuses_long_sequences_and_names_the_twin(backend: Backend, dtype: str):
    def scan(b: Any) -> Any:
        return ssm_core.linear_scan(0.5, b, axis=0, backend="generic")

    short, long = (backend.asarray(np.ones(n), dtype) for n in (LONGEST_TRACED_LOOP, LONGEST_TRACED_LOOP + 1))
    if backend.family == "jax":
        traced = backend.module.jit(scan)
    else:
        traced = backend.module.compile(scan, fullgraph=True, backend="eager")
    expected = truth.linear_scan(np.float64(0.5), np.ones(LONGEST_TRACED_LOOP), 0)
    assert_close(traced(short), expected, backend, dtype, function="linear_scan", terms=LONGEST_TRACED_LOOP)
    with pytest.raises(Exception, match="leave out backend='generic'"):
        traced(long)
    assert ssm_core.linear_scan(0.5, long, axis=0).shape == (LONGEST_TRACED_LOOP + 1,)


# Long sequences ------------------------------------------------------------------------------------------------------


def long_system(backend: Backend, dtype: str) -> tuple[SimpleNamespace, SimpleNamespace]:
    d = Draw(3)
    arrays = examples.as_arrays(backend, dtype, PAIRS.fields(d) | {"u": d.real(LONG), "state": PAIRS.state(d)})
    return arrays, examples.rounded(backend, arrays)


def long_scan(v: SimpleNamespace, mode: str) -> Any:
    return ssm_core.scan(PAIRS.system(v), v.u, dt=0.01, initial=v.state, mode=mode)


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
@pytest.mark.dtypes("float32", "float64")
def test_long_sequence_in_every_mode(backend: Backend, dtype: str):
    v, values = long_system(backend, dtype)
    system = truth.discrete(PAIRS.plain(values), 0.01)
    y, state = long_recurrence(system, values.u, PAIRS.full_state(values.state))
    phase = phase_budget(0.01 * values.poles, LONG)
    for mode in ("conv", "chunk", "scan"):
        found = backend.run(partial(long_scan, mode=mode), v)
        for actual, wanted in zip(found, (y, PAIRS.stored_state(state)), strict=True):
            assert_close(actual, wanted, backend, dtype, function="scan", terms=LONG, phase=phase)


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
@pytest.mark.dtypes("float32", "float64")
def test_long_kernel_and_convolution(backend: Backend, dtype: str):
    """Poles of a LegS length: their phases turn a thousand times, which the budget for phases accounts for."""
    v = examples.as_arrays(
        backend, dtype, {"poles": np.asarray([-0.5 + 3j, -0.5 + 60j]), "B": np.ones(2), "C": np.ones(2), "dt": 0.001}
    )
    values = examples.rounded(backend, v)
    w = values.dt * values.poles
    exponents = w[:, None] * np.arange(LONG)
    expected = 2 * np.sum((np.expm1(w) / values.poles)[:, None] * np.exp(exponents), axis=0).real
    K = ssm_core.kernel(ssm_core.Diagonal(v.poles, v.B, v.C, conj_pairs=True), LONG, dt=v.dt)
    assert_close(K, expected, backend, dtype, function="kernel", terms=64, phase=phase_budget(w, LONG))
    signal = np.zeros(LONG)
    signal[[0, 7, LONG - 1]] = 1.0, -0.5, 2.0
    y = ssm_core.convolve(backend.asarray(signal, dtype), K)
    shifted = np.concatenate([np.zeros(7), expected[:-7]])
    wanted = expected - 0.5 * shifted
    wanted[-1] += 2 * expected[0]
    assert_close(y, wanted, backend, dtype, function="convolve", terms=64, phase=phase_budget(w, LONG))


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
@pytest.mark.dtypes("float32", "complex64")
def test_long_linear_scan(backend: Backend, dtype: str):
    d = Draw(5, dtype)
    v = examples.as_arrays(backend, dtype, {"a": d.gates(LONG, 1), "b": d.signal(LONG, 2)})
    values = examples.rounded(backend, v)
    expected = truth.linear_scan(values.a, values.b, 0)
    assert_close(ssm_core.linear_scan(v.a, v.b, axis=0), expected, backend, dtype, function="linear_scan", terms=LONG)


def long_recurrence(system: truth.Plain, u: np.ndarray, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The recurrence of a diagonal system, without the matrices that make it slow."""
    a, B, C = np.diag(system.A), system.B[:, 0], system.C[0]
    states = truth.linear_scan(a[None, :], B * u[:, None], 0, x)
    return (states @ C).real + system.D * u, states[-1]


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
@pytest.mark.dtypes("float32", "float64")
def test_glu_is_its_formula(backend: Backend, dtype: str):
    """a sigmoid(b), by logaddexp in double precision: also where e^-b overflows."""
    b = np.asarray([-800.0, -100.0, -20.0, -1.0, 0.0, 1.0, 20.0, 100.0, 800.0])
    a = np.linspace(-2.0, 2.0, 9)
    v = examples.as_arrays(backend, dtype, {"x": np.concatenate([a, b])})
    assert_close(glu(v.x), a * np.exp(-np.logaddexp(0, -b)), backend, dtype, function="glu", terms=1)
