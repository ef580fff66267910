"""Discretization against the formulas of the table, against SciPy, and at the edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.special

import reference
from ssm_core import Dense, Diagonal, discretize

ALPHAS = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0, "gbt": 0.3}
METHODS = ("zoh", "dirac", *ALPHAS)
CARRYING = ("foh", "tustin")
DT = 0.1


def options(method: str) -> dict[str, float]:
    return {"alpha": ALPHAS[method]} if method == "gbt" else {}


def formulas(method: str, z: np.ndarray, dt: Any) -> tuple[np.ndarray, np.ndarray]:
    """Discrete pole and factor of B for z = dt * pole."""
    if method == "zoh":
        return np.exp(z), dt * np.where(z == 0, 1, np.expm1(z) / np.where(z == 0, 1, z))
    if method == "dirac":
        return np.exp(z), np.ones_like(z)
    alpha = ALPHAS[method]
    return (1 + (1 - alpha) * z) / (1 - alpha * z), dt / (1 - alpha * z)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("shape", "dt"),
    [
        ((), 0.1),
        ((), 2),
        ((), np.asarray(0.1)),
        ((), np.float64(0.1)),
        ((), np.asarray([0.1, 0.2, 0.3])),
        ((2,), np.asarray([0.1, 0.2])),
        ((2,), np.asarray([0.1])),
        ((2,), np.asarray([[0.1], [0.2]])),
        ((2,), np.asarray([[0.1, 0.2, 0.3]])),
        ((2, 4), np.full((2, 4, 3), 0.5)),
        ((1, 4), np.full((2, 1), 0.5)),
    ],
    ids=lambda x: str(np.shape(x)) if isinstance(x, np.ndarray) else str(x),
)
def test_diagonal(shape: tuple[int, ...], dt: Any, method: str, xp: Any):
    system = reference.diagonal(3, batch=shape)
    steps = np.asarray(dt)[..., None] if np.ndim(dt) == len(shape) else np.asarray(dt)
    poles, gain = formulas(method, steps * system.poles, steps)
    given = xp.asarray(dt) if isinstance(dt, np.ndarray) else dt
    found = discretize(reference.arrays_of(system, xp), given, method, **options(method))
    np.testing.assert_allclose(np.asarray(found.poles), poles, rtol=1e-13)
    np.testing.assert_allclose(np.asarray(found.B), gain * system.B, rtol=1e-13)
    np.testing.assert_array_equal(np.asarray(found.C), system.C)
    np.testing.assert_array_equal(np.asarray(found.D), system.D)
    assert found.discrete
    assert found.conj_pairs == system.conj_pairs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("P", [None, 2])
@pytest.mark.parametrize(("shape", "dt"), [((), 0.1), ((), np.asarray(0.2)), ((2,), np.asarray([0.1, 0.2]))], ids=str)
def test_a_dense_system_is_a_diagonal_one_in_other_coordinates(
    shape: tuple[int, ...], dt: Any, P: int | None, method: str, xp: Any
):
    diagonal = reference.diagonal(3, P=P, batch=shape, conj_pairs=False)
    basis = np.random.default_rng(1).normal(size=(3, 3)) + 3 * np.eye(3)

    def turned(system: Diagonal) -> tuple[np.ndarray, np.ndarray]:
        A, B, _ = reference.matrices(system)
        B = basis @ B
        return basis @ A @ np.linalg.inv(basis), B if P else B[..., 0]

    wanted = turned(discretize(diagonal, dt, method, **options(method)))
    dense = reference.arrays_of(Dense(*turned(diagonal)), xp)
    found = discretize(dense, xp.asarray(dt) if isinstance(dt, np.ndarray) else dt, method, **options(method))
    for x, y in zip((found.A, found.B), wanted, strict=True):
        np.testing.assert_allclose(np.asarray(x), y, rtol=1e-11, atol=1e-12)


SCIPY = {"zoh": "zoh", "bilinear": "bilinear", "euler": "euler", "backward_euler": "backward_diff", "gbt": "gbt"}


@pytest.mark.parametrize("method", SCIPY)
def test_scipy(method: str, xp: Any):
    system = reference.dense(4, P=2, M=3)
    A, B, *_ = scipy.signal.cont2discrete(
        (system.A, system.B, system.C, system.D), DT, SCIPY[method], ALPHAS.get(method)
    )
    found = discretize(reference.arrays_of(system, xp), DT, method, **options(method))
    np.testing.assert_allclose(np.asarray(found.A), A, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.asarray(found.B), B, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(np.asarray(found.C), system.C)  # SciPy delays by a step and changes C and D


def test_zoh_of_a_singular_matrix(xp: Any):
    """A double integrator: x'' = u held over dt gives x += dt v + dt^2/2 u, v += dt u."""
    A, B = xp.asarray([[0.0, 1.0], [0.0, 0.0]]), xp.asarray([0.0, 1.0])
    found = discretize((A, B), DT)
    np.testing.assert_allclose(np.asarray(found.A), [[1, DT], [0, 1]], rtol=1e-15)
    np.testing.assert_allclose(np.asarray(found.B), [DT**2 / 2, DT], rtol=1e-14)


def test_zoh_of_poles_at_zero(xp: Any):
    found = discretize(Diagonal(xp.zeros(2), xp.ones(2)), DT)
    np.testing.assert_array_equal(np.asarray(found.poles), [1, 1])
    np.testing.assert_allclose(np.asarray(found.B), [DT, DT], rtol=1e-15)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "dirac"])
@pytest.mark.parametrize("dt", [1e-4, 1e-8, 1e-12])
def test_small_steps_give_the_derivative(dt: float, method: str):
    system = reference.diagonal(3)
    found = discretize(system, dt, method, **options(method))
    np.testing.assert_allclose((found.poles - 1) / dt, system.poles, rtol=10 * dt + 1e-15 / dt)
    np.testing.assert_allclose(found.B / dt, system.B, rtol=10 * dt)
    dense = discretize(reference.dense(3), dt, method, **options(method))
    np.testing.assert_allclose(dense.B / dt, reference.dense(3).B, rtol=100 * dt)


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 0.5, 0.999, 1.001, 30.0])
def test_zoh_keeps_its_digits_in_single_precision(scale: float):
    poles = np.asarray([-scale, scale * (-0.6 + 0.8j), scale * 1j]).astype(np.complex64)
    found = discretize(Diagonal(poles, np.ones(3, np.float32)), 1.0).B
    exact = np.expm1(poles.astype(complex)) / poles
    np.testing.assert_allclose(found, exact, rtol=2e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [reference.diagonal, reference.dense])
def test_every_input_is_discretized_alike(kind: Any, method: str):
    several = kind(3, P=2, batch=(2,))
    found = discretize(several, DT, method, **options(method)).B
    for p in range(2):
        one = discretize(replace(several, B=several.B[..., p], D=None), DT, method, **options(method)).B
        np.testing.assert_allclose(found[..., p], one, rtol=1e-12)


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_a_batch_of_matrices_shares_inputs_and_the_other_way_round(method: str):
    A, B = np.stack([reference.dense(2, seed=i).A for i in range(3)]), np.ones((1, 2))
    found = discretize(Dense(A, B), DT, method)
    for i in range(3):
        alone = discretize((A[i], B[0]), DT, method)
        np.testing.assert_allclose(found.A[i], alone.A)
        np.testing.assert_allclose(found.B[i], alone.B)
    shared = discretize(Dense(A[:1], np.ones((3, 2))), DT, method)
    np.testing.assert_allclose(np.broadcast_to(shared.B, (3, 2))[1], discretize((A[0], B[0]), DT, method).B)


def test_steps_compose():
    """Two steps of dt with held input are one of 2 dt."""
    system = reference.dense(3)
    once, twice = discretize(system, 0.1), discretize(system, 0.2)
    np.testing.assert_allclose(once.A @ once.A, twice.A, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(once.A @ once.B + once.B, twice.B, rtol=1e-12, atol=1e-15)


def test_bilinear_keeps_stability_where_euler_does_not():
    stiff = Diagonal(np.asarray([-100.0 + 50j]), np.ones(1))
    radius = {m: abs(discretize(stiff, DT, m).poles[0]) for m in ("zoh", "bilinear", "backward_euler", "euler")}
    assert max(radius["zoh"], radius["bilinear"], radius["backward_euler"]) < 1 < radius["euler"]


@pytest.mark.parametrize(
    ("dtype", "dt", "wanted"),
    [
        ("float16", 0.1, "float32"),
        ("float32", 0.1, "float32"),
        ("float32", np.asarray(0.1, np.float32), "float32"),
        ("float32", np.asarray(0.1), "float64"),
        ("complex64", np.float16(0.1), "complex64"),
        ("complex128", np.float32(0.1), "complex128"),
    ],
)
def test_dtypes(dtype: str, dt: Any, wanted: str):
    found = discretize(Diagonal(-np.ones(2, dtype), np.ones(2, dtype)), dt)
    assert found.poles.dtype == found.B.dtype == wanted


def test_a_numpy_number_as_the_step_of_a_torch_system():
    torch = pytest.importorskip("torch")
    system = Diagonal(*(torch.full((2,), x, requires_grad=True) for x in (-0.5, 1.0)))
    found, wanted = (discretize(system, dt) for dt in (np.float64(DT), DT))
    torch.testing.assert_close(found.poles, wanted.poles)
    torch.testing.assert_close(found.B, wanted.B)


def test_inputs_are_left_alone():
    for system in (reference.diagonal(), reference.dense()):
        arrays = {name: getattr(system, name) for name in system.ARRAYS}
        copies = {name: x.copy() for name, x in arrays.items()}
        for x in arrays.values():
            x.flags.writeable = False
        for method in METHODS:
            discretize(system, DT, method, **options(method))
        for name, x in arrays.items():
            np.testing.assert_array_equal(x, copies[name])


def test_gradients_at_poles_of_zero():
    torch = pytest.importorskip("torch")
    poles = torch.tensor([0.0, -1e-9, -1.0], dtype=torch.float64, requires_grad=True)
    found = discretize(Diagonal(poles, torch.ones(3, dtype=torch.float64)), DT)
    (slope,) = torch.autograd.grad(found.B.sum(), poles)
    np.testing.assert_allclose(slope.numpy(), [DT**2 / 2, DT**2 / 2, (1 - np.exp(-DT) * (1 + DT))], rtol=1e-9)


def test_batched_exponentials_have_their_own_scaling(xp: Any):
    A = np.asarray([[[-1e-6]], [[-1.0]], [[-1e3]]])
    found = discretize(Dense(xp.asarray(A), xp.ones((3, 1))), 1.0)
    np.testing.assert_allclose(np.asarray(found.A), scipy.linalg.expm(A), rtol=1e-13)


@pytest.mark.parametrize("method", ["zoh", "foh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_unit_of_the_input_does_not_matter(dtype: str, method: str, xp: Any):
    """A power of two in front of B, a column each, stays one to the last bit, however large."""
    A = xp.asarray(reference.dense(4).A.astype(dtype))
    B = reference.dense(4, P=3).B.astype(dtype)
    factors = np.asarray([1, 2.0**60, 2.0**-60]).astype(dtype)
    found, plain = (np.asarray(discretize((A, xp.asarray(b)), DT, method).B) for b in (factors * B, B))
    np.testing.assert_array_equal(found[:4], factors * plain[:4])


def test_large_inputs_under_a_trace():
    jax = pytest.importorskip("jax")
    A, B = reference.dense(3).A, 1e12 * reference.dense(3).B
    found = jax.jit(lambda A, B: discretize((A, B), DT).B)(A, B)
    np.testing.assert_allclose(np.asarray(found), discretize((A, B), DT).B, rtol=1e-5)
