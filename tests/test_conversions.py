"""To full matrices and to diagonal ones: the same outputs, digit for digit where nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_strict
import numpy as np
import pytest
import reference

from ssm_core import (
    DPLR,
    Dense,
    Diagonal,
    DomainError,
    DTypeError,
    MixedArraysError,
    Rational,
    ShapeError,
    SSMError,
    discretize,
    eigenvector_condition,
    frequency_response,
    hippo,
    kernel,
    poles,
    to_dense,
    to_diagonal,
)
from ssm_core.recurrences import pairs

PORTS = [(None, None), (2, None), (None, 3), (2, 3)]


def low_rank(
    N: int = 3, R: int = 2, *, P: int | None = None, M: int | None = None, batch: tuple[int, ...] = (),
    conj_pairs: bool = True, seed: int = 0,
) -> DPLR:  # fmt: skip
    rng = np.random.default_rng(seed + 1)
    base = reference.diagonal(N, P=P, M=M, batch=batch, seed=seed)
    low = [0.5 * (rng.normal(size=(*batch, R, N)) + 1j * rng.normal(size=(*batch, R, N))) for _ in range(2)]
    return DPLR(base.poles, *low, base.B, base.C, base.D, conj_pairs=conj_pairs)


def in_library(system: Any, xp: Any) -> Any:
    return reference.arrays_of(system, xp)


# to_dense ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("conj_pairs", [False, True])
def test_dense_form_of_a_diagonal_system(
    conj_pairs: bool, batch: tuple[int, ...], P: int | None, M: int | None, xp: Any
):
    system = discretize(reference.diagonal(3, P=P, M=M, batch=batch, conj_pairs=conj_pairs), 0.1)
    found = to_dense(in_library(system, xp))
    assert isinstance(found, Dense)
    assert found.discrete
    A = np.asarray(found.A)
    assert A.shape == (*batch, 6, 6) if conj_pairs else (*batch, 3, 3)
    assert np.isrealobj(A) == conj_pairs
    K = np.asarray(kernel(found, 12))
    np.testing.assert_allclose(K, kernel(system, 12), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_dense_form_of_pairs_with_a_low_rank_part(batch: tuple[int, ...], P: int | None, M: int | None, xp: Any):
    """Against the full complex matrix of poles and conjugates: the same spectrum and the same response."""
    system = low_rank(P=P, M=M, batch=batch)
    pairs = [np.concatenate([x, x.conj()], axis=-1) for x in (system.poles, system.P, system.Q)]
    full = pairs[0][..., None] * np.eye(6) - np.swapaxes(pairs[1], -1, -2) @ pairs[2].conj()
    B = np.concatenate([system.B, system.B.conj()], axis=len(batch))
    wanted = Dense(full, B, np.concatenate([system.C, system.C.conj()], axis=-1), system.D)
    found = to_dense(in_library(system, xp))
    A = np.asarray(found.A)
    assert np.isrealobj(A)
    assert not found.discrete
    np.testing.assert_allclose(np.poly(A.reshape(-1, 6, 6)[0]), np.poly(full.reshape(-1, 6, 6)[0]), rtol=1e-10)
    omega = np.linspace(-2, 2, 5)
    response = frequency_response(found, xp.asarray(omega))
    np.testing.assert_allclose(np.asarray(response), frequency_response(wanted, omega), rtol=1e-10, atol=1e-12)


def test_dense_form_without_pairs_keeps_all_fields(xp: Any):
    system = low_rank(conj_pairs=False)
    found = to_dense(in_library(system, xp))
    full = np.diag(system.poles) - system.P.T @ system.Q.conj()
    np.testing.assert_allclose(np.asarray(found.A), full, rtol=1e-14)
    for name in ("B", "C", "D"):
        np.testing.assert_array_equal(np.asarray(getattr(found, name)), getattr(system, name))


def test_dense_form_of_real_poles_in_pairs():
    """A real pole of a pair counts twice, and its imaginary part rests at zero."""
    found = to_dense(Diagonal(-np.ones(1), np.ones(1), np.ones(1), conj_pairs=True))
    np.testing.assert_array_equal(found.A, -np.eye(2))
    np.testing.assert_array_equal(found.B, [1, 0])
    np.testing.assert_array_equal(np.abs(found.C), [2, 0])


def test_dense_systems_stay():
    system = reference.dense(3)
    assert to_dense(system) is system
    assert to_dense((system.A, system.B, system.C)).discrete


def test_halves_are_joined_and_parted_again(xp: Any):
    z = np.asarray([1 + 2j, 3 - 1j])
    joined = pairs.joined(xp.asarray(z), xp)
    np.testing.assert_array_equal(np.asarray(joined), [1, 3, 2, -1])
    np.testing.assert_array_equal(np.asarray(pairs.halved(joined, xp)), z)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_precision_is_kept(dtype: str, xp: Any):
    system = low_rank()
    cast = replace(system, **{n: getattr(system, n).astype(dtype) for n in ("poles", "P", "Q", "B", "C")}, D=None)
    found = to_dense(in_library(cast, xp))
    real = {"complex64": xp.float32, "complex128": xp.float64}[dtype]
    assert found.A.dtype == found.B.dtype == found.C.dtype == real


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: to_dense(None), DTypeError, "a NoneType is no system"),
        (lambda: to_dense(Dense(np.full((1, 1), np.nan), np.ones(1), np.ones(1))), DomainError, "A holds NaN"),
        (lambda: to_dense((np.eye(2),)), ShapeError, "2 to 4 members"),
        (lambda: to_dense(Diagonal(-np.ones(2), np.ones(3))), ShapeError, "B has 3 states but poles has 2"),
        (lambda: to_dense(Diagonal(np.ones(2, int), np.ones(2))), DTypeError, "poles has dtype int64"),
        (lambda: to_dense(replace(low_rank(), Q=np.ones((1, 3)))), ShapeError, "P has rank 2 but Q has 1"),
        (lambda: to_dense(Diagonal(-np.ones(2), array_api_strict.ones(2))), MixedArraysError, "B: array_api_strict"),
    ],
)
def test_dense_form_refused(call: Any, error: type, message: str):
    with pytest.raises(error, match=message) as caught:
        call()
    assert str(caught.value).startswith("to_dense")


def test_dense_form_of_a_transfer_function(xp: Any):
    """The companion form: the same response."""
    system = Rational(np.asarray([1.0, 0.5]), np.asarray([1.0, -0.3, 0.1]), 0.25)
    found = to_dense(in_library(system, xp))
    assert found.discrete
    np.testing.assert_allclose(np.asarray(kernel(found, 9)), kernel(system, 9), rtol=1e-12, atol=1e-14)
    assert found.D == 0.25


# to_diagonal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("kind", [reference.dense, low_rank])
def test_diagonal_form(kind: Any, batch: tuple[int, ...], P: int | None, M: int | None, xp: Any):
    system = kind(3, P=P, M=M, batch=batch)
    found, V = to_diagonal(in_library(system, xp))
    assert isinstance(found, Diagonal)
    assert not found.conj_pairs
    N = 6 if kind is low_rank else 3
    assert (found.poles.shape, V.shape) == ((*batch, N), (*batch, N, N))
    A, V, modes = np.asarray(to_dense(system).A), np.asarray(V), np.asarray(found.poles)
    np.testing.assert_allclose(A @ V, V * modes[..., None, :], rtol=1e-11, atol=1e-11)
    omega = xp.asarray(np.linspace(-2, 2, 5))
    wanted = frequency_response(system, np.linspace(-2, 2, 5))
    np.testing.assert_allclose(np.asarray(frequency_response(found, omega)), wanted, rtol=1e-9, atol=1e-11)


def test_diagonal_form_of_a_discrete_system():
    system = discretize(reference.dense(4), 0.1)
    found, _ = to_diagonal(system)
    assert found.discrete
    np.testing.assert_allclose(kernel(found, 20), kernel(system, 20), rtol=1e-10, atol=1e-12)


def test_diagonal_form_without_an_output():
    found, _ = to_diagonal(Dense(-np.diag([1.0, 2.0]), np.ones(2)))
    assert found.C is None


@pytest.mark.parametrize("max_condition", [1e8, 1e3])
def test_diagonal_form_of_hippo_is_refused(max_condition: float):
    """Its eigenvectors lose all digits; what may be lost is a choice."""
    A, b = hippo("legs", 32)
    with pytest.raises(DomainError, match=r"condition number .* > max_condition = .*nplr for a HiPPO measure"):
        to_diagonal((A, b), max_condition=max_condition)
    found, _ = to_diagonal((A, b), max_condition=np.inf)
    np.testing.assert_allclose(np.sort(found.poles.real)[-1], -1, rtol=1e-3)


def test_a_matrix_that_has_no_basis_of_eigenvectors_is_refused():
    with pytest.raises(DomainError, match="condition number"):
        to_diagonal((np.asarray([[1.0, 1.0], [0.0, 1.0]]), np.ones(2)))


@pytest.mark.parametrize(
    ("call", "error"),
    [(lambda: to_diagonal(None), DTypeError), (lambda: to_diagonal((np.eye(2),)), ShapeError)],
)
def test_diagonal_form_refused(call: Any, error: type):
    with pytest.raises(error):
        call()


# eigenvector_condition -----------------------------------------------------------------------------------------------


def test_condition_of_normal_matrices_is_one(xp: Any):
    rng = np.random.default_rng(0)
    S = rng.normal(size=(5, 5))
    for A in (S + S.T, S - S.T - 2 * np.eye(5), np.linalg.qr(S)[0]):
        found = eigenvector_condition(xp.asarray(A))
        assert isinstance(found, float)
        np.testing.assert_allclose(found, 1, rtol=1e-10)


def test_condition_of_hippo_grows_exponentially():
    found = [eigenvector_condition(hippo("legs", N)[0]) for N in (4, 8, 16)]
    assert found[1] > 10 * found[0]
    assert found[2] > 1000 * found[1]


def test_condition_is_that_of_the_eigenvectors():
    A = np.asarray([[-1.0, 5.0], [0.0, -2.0]])
    _, V = np.linalg.eig(A)
    np.testing.assert_allclose(eigenvector_condition(A), np.linalg.cond(V), rtol=1e-12)
    np.testing.assert_allclose(eigenvector_condition(A.astype(np.float32)), np.linalg.cond(V), rtol=1e-6)
    assert eigenvector_condition(np.asarray([[1.0, 1.0], [0.0, 1.0]])) > 1e14


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_the_host_computes_is_checked_in_every_library(bad: float, xp: Any):
    A = xp.asarray([[-1.0, bad], [0.0, -2.0]])
    for name, call in (
        ("to_diagonal", lambda: to_diagonal((A, xp.ones(2, dtype=A.dtype)))),
        ("eigenvector_condition", lambda: eigenvector_condition(A)),
    ):
        with pytest.raises(DomainError, match=f"^{name}: A holds NaN or inf"):
            call()


@pytest.mark.parametrize("A", [np.ones(3), np.ones((2, 3)), np.ones((2, 2, 2))], ids=lambda A: str(A.shape))
def test_condition_of_no_matrix_is_refused(A: Any):
    with pytest.raises(SSMError, match=r"^eigenvector_condition: A must be one square matrix \(A: "):
        eigenvector_condition(A)


@pytest.mark.parametrize("A", [None, 1.0, [[1.0]]])
def test_condition_of_no_array_is_refused(A: Any):
    with pytest.raises(SSMError, match=r"^eigenvector_condition"):
        eigenvector_condition(A)


def test_poles_of_a_low_rank_system_are_eigenvalues():
    system = low_rank(conj_pairs=False)
    wanted = np.linalg.eigvals(np.diag(system.poles) - system.P.T @ system.Q.conj())
    np.testing.assert_allclose(np.sort_complex(poles(system)), np.sort_complex(wanted), rtol=1e-10)
