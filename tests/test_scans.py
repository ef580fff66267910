"""Linear scans against the loop that defines them, and summaries of chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssm_core
from conformance.truth import linear_scan as loop
from ssm_core import chunk_summary, linear_scan


def draw(shape: tuple[int, ...], complex_: bool, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.uniform(-1, 1, shape))
    return np.asarray(x + 1j * rng.uniform(-1, 1, shape)) if complex_ else x


def check(xp: Any, a: Any, b: np.ndarray, **options: Any) -> None:
    """Against the loop, by the fused and by the generic body."""
    wanted = loop(a, b, **options)
    given = {k: xp.asarray(x) if isinstance(x, np.ndarray) else x for k, x in options.items()}
    gate = xp.asarray(a) if isinstance(a, np.ndarray) else a
    for backend in (None, "generic"):
        found = linear_scan(gate, xp.asarray(b), **given, backend=backend)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_every_axis(axis: int, complex_: bool, reverse: bool, xp: Any):
    a, b = draw((3, 4, 5), complex_, 0), draw((3, 4, 5), complex_, 1)
    state = draw(np.delete((3, 4, 5), axis), complex_, 2)
    check(xp, a, b, axis=axis, reverse=reverse)
    check(xp, a, b, axis=axis, reverse=reverse, initial=state)


GATES = [(5,), (1,), (), (3, 1), (1, 1), (3, 5), (2, 3, 5), (2, 1, 1), (4, 1, 1, 5), (2, 3, 1)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("gate", GATES, ids=str)
def test_gates_broadcast(gate: tuple[int, ...], reverse: bool, xp: Any):
    check(xp, draw(gate, False, 0), draw((3, 5), False, 1), axis=-1, reverse=reverse)
    check(xp, draw(gate, True, 0), draw((2, 3, 5), False, 1), axis=-1, reverse=reverse)


@pytest.mark.parametrize("gate", [0.5, 1, 0.5j, -0.25 + 0.5j])
def test_gates_that_are_numbers(gate: complex, xp: Any):
    check(xp, gate, draw((6,), False, 0), axis=0)


@pytest.mark.parametrize("initial", [2.0, 1, 1j, np.asarray(3.0), np.ones((1, 4)), np.ones((3, 1)), np.ones(4)])
def test_first_states_broadcast(initial: Any, xp: Any):
    check(xp, draw((3, 5, 4), False, 0), draw((3, 5, 4), False, 1), axis=1, initial=initial)


def test_time_may_be_an_axis_that_only_the_gate_has():
    a, b = draw((5, 3), False, 0), draw((3,), False, 1)
    np.testing.assert_allclose(linear_scan(a, b, axis=0), loop(a, b, axis=0), rtol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 100, 257])
@pytest.mark.parametrize("width", [(), (1,), (7,), (2100,)])
def test_lengths_and_widths(width: tuple[int, ...], length: int):
    for gate in ((length, *width), (1,) * (1 + len(width))):
        a, b = draw(gate, False, 0), draw((length, *width), False, 1)
        for reverse in (False, True):
            found = linear_scan(a, b, axis=0, reverse=reverse, initial=0.5)
            wanted = loop(a, b, axis=0, reverse=reverse, initial=0.5)
            np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (0, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, ...], xp: Any):
    for axis in range(len(shape)):
        for a in (xp.ones(shape), 0.5):
            for reverse in (False, True):
                assert linear_scan(a, xp.ones(shape), axis=axis, reverse=reverse).shape == shape


@pytest.mark.parametrize(
    ("a", "b", "initial", "wanted"),
    [
        ("float32", "float32", None, "float32"),
        ("float64", "float32", None, "float64"),
        ("complex64", "float32", None, "complex64"),
        ("float32", "float32", "complex64", "complex64"),
        ("float32", "float32", "float64", "float64"),
        ("float16", "float16", "float16", "float16"),
        ("float32", "float16", None, "float16"),
        ("float16", "float32", None, "float32"),
        ("complex64", "float16", None, "complex64"),
        ("float64", "float16", None, "float64"),
    ],
)
def test_dtypes(a: str, b: str, initial: str | None, wanted: str):
    state = None if initial is None else np.ones(2, initial)
    for backend in (None, "generic"):
        found = linear_scan(np.ones((4, 2), a), np.ones((4, 2), b), axis=0, initial=state, backend=backend)
        assert found.dtype == wanted


def test_half_precision_is_accumulated_in_single():
    b = np.full(4000, 0.5, np.float16)
    assert linear_scan(1.0, b, axis=0)[-1] == 2000  # in float16 the sum stops growing at 1024


def test_python_numbers_do_not_widen(xp: Any):
    b = xp.ones(3, dtype=xp.float32)
    assert linear_scan(0.5, b, axis=0, initial=1.0).dtype == xp.float32
    assert linear_scan(0.5j, b, axis=0).dtype == xp.complex64


def test_inputs_are_left_alone():
    a, b, x = (draw(shape, False, 0) for shape in ((100, 3), (100, 3), (3,)))
    copies = [y.copy() for y in (a, b, x)]
    for y in (a, b, x):
        y.flags.writeable = False
    for reverse in (False, True):
        y = linear_scan(a, b, axis=0, initial=x, reverse=reverse)
        y[...] = 0  # the result is the caller's own
    for y, copy in zip((a, b, x), copies, strict=True):
        np.testing.assert_array_equal(y, copy)


def test_any_memory_layout():
    full = draw((12, 10, 6), False, 0)
    wanted = loop(full[::2, ::-1, 1::2].copy(), full[1::2, :, ::2].copy(), axis=0)
    found = linear_scan(full[::2, ::-1, 1::2], full[1::2, :, ::2], axis=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    back = linear_scan(full.T, full.T[:, ::-1], axis=-1)
    np.testing.assert_allclose(back, loop(full.T.copy(), full.T[:, ::-1].copy(), axis=-1), rtol=1e-12)


def test_a_gate_of_zero_restarts():
    a, b = np.asarray([1.0, 1.0, 0.0, 1.0]), np.ones(4)
    np.testing.assert_array_equal(linear_scan(a, b, axis=0, initial=10.0), [11, 12, 1, 2])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("gate", [(6, 6), (1, 6), (6, 1), (6,), ()])
def test_summary_of_a_chunk(gate: tuple[int, ...], axis: int, xp: Any):
    a, b = draw(gate, False, 0), draw((6, 6), False, 1)
    P, s = chunk_summary(xp.asarray(a) if gate else 0.5, xp.asarray(b), axis=axis)
    a = a if gate else np.asarray(0.5)
    np.testing.assert_allclose(np.asarray(P), np.broadcast_to(a, b.shape).prod(axis), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(s), np.take(loop(a, b, axis), -1, axis), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("cut", [1, 3, 6])
@pytest.mark.parametrize("complex_", [False, True])
def test_summaries_of_neighbors_compose(complex_: bool, cut: int, xp: Any):
    a, b = (xp.asarray(draw((7, 2), complex_, i)) for i in range(2))
    (P1, s1), (P2, s2) = (chunk_summary(a[part, :], b[part, :], axis=0) for part in (slice(cut), slice(cut, None)))
    P, s = chunk_summary(a, b, axis=0)
    np.testing.assert_allclose(np.asarray(P2 * P1), np.asarray(P), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(P2 * s1 + s2), np.asarray(s), rtol=1e-12)


def test_summaries_split_a_sequence_over_processes(xp: Any):
    """Every part is scanned alone; only (P, s) travels between them."""
    a, b = (xp.asarray(draw((12, 2), True, i)) for i in range(2))
    parts = [slice(0, 5), slice(5, 6), slice(6, 12)]
    state, pieces = xp.zeros(2, dtype=xp.complex128), []
    for part in parts:
        pieces.append(linear_scan(a[part, :], b[part, :], axis=0, initial=state))
        P, s = chunk_summary(a[part, :], b[part, :], axis=0)
        state = P * state + s
    whole = np.asarray(linear_scan(a, b, axis=0))
    np.testing.assert_allclose(np.concatenate([np.asarray(p) for p in pieces]), whole, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(state), whole[-1], rtol=1e-12)


def test_half_precision_summary():
    P, s = chunk_summary(np.full(3, 0.5, np.float16), np.ones(3, np.float16), axis=0)
    np.testing.assert_allclose([P, s], [0.125, 1.75])
    assert P.dtype == s.dtype


@pytest.mark.parametrize("module", ["torch", "jax.numpy"])
def test_frameworks_agree(module: str):
    xp = pytest.importorskip(module)
    a, b, x = (draw(s, True, i).astype(np.complex64) for i, s in enumerate([(70, 3), (70, 3), (3,)]))
    for reverse in (False, True):
        found = linear_scan(*map(xp.asarray, (a, b)), axis=0, initial=xp.asarray(x), reverse=reverse)
        np.testing.assert_allclose(np.asarray(found), loop(a, b, 0, x, reverse), rtol=1e-4, atol=1e-5)
    with ssm_core.use_backend("generic"):
        generic = linear_scan(*map(xp.asarray, (a[:5], b[:5])), axis=0)
    np.testing.assert_allclose(np.asarray(generic), loop(a[:5], b[:5], 0), rtol=1e-4, atol=1e-5)
