"""Krylov sequences by doubling, and propagation by a dense system."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from ssm_core import discretize
from ssm_core.time_invariant import krylov
from ssm_core.time_invariant.krylov import DensePropagator


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_sequence(count: int, batch: tuple[int, ...], xp: Any):
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(*batch, 4, 4)) / 2, rng.normal(size=(*batch, 4, 3))
    wanted = np.stack([np.linalg.matrix_power(A, j) @ B for j in range(count)], axis=-2)
    found = krylov.krylov(xp.asarray(A), xp.asarray(B), count, xp)
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-10, atol=1e-12)


def test_sequence_of_few_vectors_under_many_matrices(xp: Any):
    A, B = np.random.default_rng(0).normal(size=(5, 2, 2)), np.ones((1, 2, 1))
    wanted = np.stack([np.linalg.matrix_power(A, j) @ B for j in range(6)], axis=-2)
    np.testing.assert_allclose(np.asarray(krylov.krylov(xp.asarray(A), xp.asarray(B), 6, xp)), wanted, rtol=1e-10)


@pytest.mark.parametrize("k", [0, 1, 2, 5, 8, 31])
def test_matrix_power(k: int, xp: Any):
    A = np.random.default_rng(0).normal(size=(2, 3, 3)) / 3
    found = np.broadcast_to(np.asarray(krylov.matrix_power(xp.asarray(A), k, xp)), A.shape)
    np.testing.assert_allclose(found, np.linalg.matrix_power(A, k), rtol=1e-10, atol=1e-15)


def test_nilpotent_and_singular_matrices(xp: Any):
    shift = xp.asarray(np.eye(4, k=-1))
    found = krylov.krylov(shift, xp.asarray(np.eye(4)[:, :1]), 6, xp)[..., 0]
    np.testing.assert_array_equal(np.asarray(found), np.eye(4, 6))


def test_real_matrices_need_no_complex_arithmetic(xp: Any):
    A, B = xp.ones((2, 2), dtype=xp.float32), xp.ones((2, 1), dtype=xp.float32)
    assert krylov.krylov(A, B, 5, xp).dtype == xp.float32


@pytest.mark.parametrize(("P", "M"), [(None, None), (2, None), (None, 3), (2, 3)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_propagation(batch: tuple[int, ...], P: int | None, M: int | None, xp: Any):
    system = discretize(reference.dense(3, P=P, M=M, batch=batch), 0.1)
    reference.check_propagator(DensePropagator(reference.arrays_of(system, xp), None, xp), system, batch, xp)


def test_complex_matrices(xp: Any):
    turn = np.asarray([[1j, 0.5], [0.0, -0.5j]])
    system = reference.arrays_of(reference.Dense(turn, np.ones(2), np.ones(2), discrete=True), xp)
    found = DensePropagator(system, None, xp).kernel(5)
    wanted = [np.ones(2) @ np.linalg.matrix_power(turn, k) @ np.ones(2) for k in range(5)]
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-12)
