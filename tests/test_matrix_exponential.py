"""The matrix exponential against mpmath, scipy and golden numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import array_api_strict
import mpmath
import numpy as np
import pytest
import scipy.linalg

import ssm_core
from ssm_core.functions.matrix_exponential import expm
from ssm_core.measures.matrices import MEASURES, hippo

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}


def error(found: Any, wanted: np.ndarray) -> float:
    """The largest error of each matrix relative to its largest entry, over the whole batch."""
    difference = np.abs(np.asarray(found) - wanted).max(axis=(-2, -1))
    return float(np.max(difference / np.abs(wanted).max(axis=(-2, -1))))


def truth(A: np.ndarray) -> np.ndarray:
    """Taylor series of a matrix scaled to norm 1/16, squared again, in 60 digits and more."""
    s = 4 + max(0, int(np.ceil(np.log2(np.abs(A).sum(axis=0).max()))))
    with mpmath.workdps(60 + s):
        M = mpmath.matrix(A.tolist()) / 2**s
        term = E = mpmath.eye(len(A))
        for k in range(1, 25):
            term = term * M / k
            E = E + term
        for _ in range(s):
            E = E * E
        return np.asarray(E.tolist(), dtype=float).reshape(A.shape)


@pytest.mark.parametrize("step", [0.01, 1.0])
@pytest.mark.parametrize("measure", MEASURES)
def test_hippo_matrices(measure: str, step: float):
    A = step * hippo(measure, 12)[0]
    wanted = truth(A)
    assert error(expm(A), wanted) < 3e-14
    assert error(expm(A.astype(np.float32)), wanted) < 3e-5


@pytest.mark.parametrize("measure", ["legs", "legt", "fout", "lagt"])
def test_large_hippo_matrices_like_scipy(measure: str):
    A = hippo(measure, 64)[0]
    assert error(expm(A), scipy.linalg.expm(A)) < 1e-12


@pytest.mark.parametrize("name", ["legs_N4", "legs_N8", "legt_N6", "random_N6"])
def test_golden(name: str, golden: Any):
    numbers = golden(f"disc_dense_{name}")
    assert error(expm(numbers["dt"][:, None, None] * numbers["A"]), numbers["scipy_zoh_Abar"]) < 1e-13


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_each_matrix_of_a_batch_has_its_own_scaling(dtype: str, xp: Any):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(2, 5, 6, 6)) * np.asarray([0, 1e-8, 0.1, 1, 20])[:, None, None]
    if dtype.startswith("complex"):
        A = A + 1j * rng.normal(size=A.shape) * np.abs(A)
    A = A.astype(dtype)
    E = expm(xp.asarray(A))
    assert E.dtype == getattr(xp, dtype)
    assert E.shape == A.shape
    assert error(E, scipy.linalg.expm(A.astype(np.result_type(dtype, np.float64)))) < 2000 * EPS[dtype]
    np.testing.assert_array_equal(np.asarray(E)[:, 0], np.broadcast_to(np.eye(6), (2, 6, 6)))


def test_diagonal_and_nilpotent_matrices(xp: Any):
    d = np.asarray([-50.0, -1.0, 0.0, 2.0])
    np.testing.assert_allclose(np.asarray(expm(xp.asarray(np.diag(d)))), np.diag(np.exp(d)), rtol=1e-13)
    shift = np.diag(np.ones(3), 1)
    wanted = np.eye(4) + shift + shift @ shift / 2 + shift @ shift @ shift / 6
    np.testing.assert_allclose(np.asarray(expm(xp.asarray(shift))), wanted, atol=1e-15)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (2, 0, 0), (1, 1), (3, 1, 1)])
def test_any_shape(shape: tuple[int, ...], xp: Any):
    assert expm(xp.zeros(shape)).shape == shape


def test_nan_stays_in_its_matrix():
    """On a device; on the host it is refused."""
    A = array_api_strict.asarray(np.stack([np.eye(2), np.full((2, 2), np.nan)]))
    E = np.asarray(expm(A))
    np.testing.assert_allclose(E[0], np.e * np.eye(2))
    assert np.isnan(E[1]).all()


def test_half_precision_is_computed_in_single():
    A = np.asarray([[0.0, 1.0], [-1.0, 0.0]], dtype=np.float16)
    assert expm(A).dtype == np.float16
    np.testing.assert_array_equal(expm(A), expm(A.astype(np.float32)).astype(np.float16))


def test_input_may_be_a_read_only_view():
    A = np.random.default_rng(1).normal(size=(3, 8, 8))
    A.flags.writeable = False
    np.testing.assert_allclose(expm(A[:, ::-2, ::2]), expm(A[:, ::-2, ::2].copy()), rtol=1e-14)


def batch() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(3, 5, 5)) * np.asarray([0, 1, 8])[:, None, None]


@pytest.mark.parametrize("backend", ["generic", "auto"])
def test_torch(backend: str):
    torch = pytest.importorskip("torch")
    A = torch.tensor(batch(), requires_grad=True)
    with ssm_core.use_backend(backend):
        assert error(expm(A).detach(), scipy.linalg.expm(batch())) < 1e-12
        assert torch.autograd.gradcheck(expm, A[:2])
        assert torch.autograd.gradgradcheck(expm, A[:2, :3, :3])
        rows = [torch.autograd.functional.jacobian(expm, A[1], vectorize=v) for v in (False, True)]
        assert torch.allclose(*rows, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("size", [1e-200, 1e-12, 1e12, 1e200])
def test_derivatives_do_not_depend_on_the_unit_of_the_loss(size: float):
    torch = pytest.importorskip("torch")
    W = np.random.default_rng(3).normal(size=(2, 5, 5))
    small, large = batch()[:2] / 3, batch()[1:]
    for A, tolerance in ((small, 1e-14), (large, 1e-12)):
        given = torch.tensor(A, requires_grad=True)
        (gradient,) = torch.autograd.grad((expm(given) * (size * torch.tensor(W))).sum(), given)
        assert error(gradient / size, derivative(A.swapaxes(-1, -2), W)) < tolerance
    for function in (expm, torch.func.vmap(expm)):
        _, tangent = torch.func.jvp(function, (torch.tensor(small),), (size * torch.tensor(W),))
        assert error(tangent / size, derivative(small, W)) < 1e-14


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 3, 3)])
def test_derivatives_of_no_numbers(shape: tuple[int, ...]):
    """As of systems of no states."""
    torch = pytest.importorskip("torch")
    A = torch.zeros(shape, requires_grad=True)
    assert torch.autograd.grad(expm(A).sum(), A)[0].shape == shape
    assert torch.func.jvp(expm, (torch.zeros(shape),), (torch.ones(shape),))[1].shape == shape


def derivative(A: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Of exp(A) in the direction W, by SciPy."""
    return scipy.linalg.expm(np.block([[A, W], [np.zeros_like(A), A]]))[..., : A.shape[-1], A.shape[-1] :]


@pytest.mark.parametrize("backend", ["generic", "auto"])
def test_jax(backend: str):
    """Under jit and vmap, where the norms are unknown; exp([[A, dA], [0, A]]) holds the tangent too."""
    jax = pytest.importorskip("jax")
    A, dA = batch(), np.random.default_rng(3).normal(size=(3, 5, 5))
    wanted = scipy.linalg.expm(np.block([[A, dA], [np.zeros_like(A), A]]))
    with jax.enable_x64(True), ssm_core.use_backend(backend):
        for function in (lambda a: expm(a), jax.vmap(expm)):
            value, tangent = jax.jit(partial(jax.jvp, function))((A,), (dA,))
            assert error(value, wanted[:, :5, :5]) < 1e-12
            assert error(tangent, wanted[:, :5, 5:]) < 1e-12


def test_jax_beyond_the_squarings_of_a_trace():
    jax = pytest.importorskip("jax")
    A = np.diag(np.asarray([-1e12, 0.0], dtype=np.float32))
    with ssm_core.use_backend("generic"):
        assert np.isnan(np.asarray(jax.jit(lambda a: expm(a))(A))).all()


STIFF = {"alike": -1e7 * np.eye(2), "apart": np.diag([-1e7, -1.0]), "beyond": np.diag([-1e30, -1.0]),
         "coupled": np.asarray([[-1e7, 1e7], [0, -1.0]])}  # fmt: skip


@pytest.mark.parametrize("name", STIFF)
def test_large_norms_in_single_precision(name: str, xp: Any):
    """Squares of what is near 1 would lose a digit each."""
    found, wanted = expm(xp.asarray(STIFF[name].astype(np.float32))), scipy.linalg.expm(STIFF[name])
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-6 * max(np.max(wanted), 1))


@pytest.mark.parametrize("name", STIFF)
def test_jax_at_large_norms_in_single_precision(name: str):
    jax = pytest.importorskip("jax")
    A, wanted = jax.numpy.asarray(STIFF[name].astype(np.float32)), scipy.linalg.expm(STIFF[name])
    for found in (expm(A), jax.jit(lambda A: expm(A))(A)):
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-6 * max(np.max(wanted), 1))


def test_jax_in_double_precision():
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for size in (0.1, 1, 5, 30):
            A = size * (rng.normal(size=(6, 6)) - 3 * np.eye(6))
            assert error(jax.jit(lambda A: expm(A))(A), truth(A)) < 1e-14


def test_units_do_not_matter(xp: Any):
    """States in other units, by powers of two: the same digits."""
    A = np.random.default_rng(0).normal(size=(4, 4))
    d = 2.0 ** np.asarray([0, 30, -30, 12])
    found = np.asarray(expm(xp.asarray(A * d[:, None] / d)))
    np.testing.assert_allclose(found / d[:, None] * d, scipy.linalg.expm(A), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_slow_states_beside_fast_ones(library: str, dtype: str):
    """28 squarings of what is near 1 would leave half the digits; inputs of any size enter."""
    xp = pytest.importorskip(library)
    A = np.asarray([[-1e9, 3.0, 0.0], [0.0, -1e-9, 0.0], [0.0, 0.0, 5.0]], dtype)
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    found = np.asarray(ssm_core.expm(xp.asarray(A)))
    np.testing.assert_allclose(found, scipy.linalg.expm(A.astype(float)), atol=tolerance * np.exp(5))
    size = 1e25 if dtype == "float32" else 1e200
    A, B = np.asarray([[-1.0, 0.5], [-0.3, -2.0]], dtype), np.asarray([1.0, 2.0], dtype)
    small, large = (ssm_core.discretize((xp.asarray(A), xp.asarray(x)), 0.1) for x in (B, (size * B).astype(dtype)))
    np.testing.assert_allclose(np.asarray(large.A), np.asarray(small.A), rtol=tolerance)
    np.testing.assert_allclose(np.asarray(large.B) / size, np.asarray(small.B), rtol=tolerance)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 3, 1)])
def test_matrices_that_are_not_square_are_refused(shape: tuple[int, ...], xp: Any):
    with pytest.raises(ssm_core.ShapeError, match=r"^expm: A must be square matrices \(\.\.\., N, N\), but"):
        expm(xp.zeros(shape))


@pytest.mark.parametrize("A", [np.eye(2, dtype=int), [[1.0]], 1.0, "A", None, np.asarray([["a"]])])
def test_what_is_no_array_of_numbers_is_refused(A: Any):
    with pytest.raises(ssm_core.DTypeError, match=r"^expm: "):
        expm(A)
