"""HiPPO matrices as normal plus low rank: put together again, and free of what an eigenvector leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import (
    DomainError,
    DTypeError,
    OptionError,
    ShapeError,
    SSMError,
    eigenvector_condition,
    hippo,
    nplr,
    to_dense,
)
from ssm_core.measures.nplr import FORMS

RANKS = {
    "legs": 1, "legsd": 0, "legt": 2, "lagt": 1, "tlagt": 1, "glagt": 1, "fout": 1, "fourier_decay": 1, "fourier2": 1,
    "foud": 0,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {"tlagt": {"beta": 0.5}, "glagt": {"alpha": 0.0, "beta": 0.5}}


def close(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance * np.abs(y).max(initial=1))


def test_every_measure_of_the_table_has_its_rank():
    assert RANKS == FORMS


@pytest.mark.parametrize("N", [2, 6, 64])
@pytest.mark.parametrize("measure", RANKS)
def test_the_matrix_is_what_it_was(measure: str, N: int):
    A, b = hippo(measure, N, **OPTIONS.get(measure, {}))
    system, V = nplr(measure, N, **OPTIONS.get(measure, {}))
    assert (system.poles.shape, system.P.shape, system.B.shape) == ((N // 2,), (RANKS[measure], N // 2), (N // 2,))
    assert V.shape == (N, N // 2)
    assert system.conj_pairs
    assert not system.discrete
    assert system.C is None
    np.testing.assert_array_equal(system.P, system.Q)
    p = 2 * (V @ system.P.T).real  # (N, R)
    close(2 * ((V * system.poles) @ V.conj().T).real - p @ p.T, A)
    close(2 * (V @ system.B).real, b)
    close(V.conj().T @ V, np.eye(N // 2))
    close(V.T @ V, np.zeros((N // 2, N // 2)))  # orthogonal to the conjugates too


@pytest.mark.parametrize("measure", RANKS)
def test_poles_lie_below_the_real_axis_in_ascending_order(measure: str):
    poles = nplr(measure, 16)[0].poles
    assert (poles.imag <= 0).all()
    assert (np.diff(poles.imag) >= 0).all()
    assert (poles.real <= 1e-12).all()
    close(poles.real, np.full(8, poles.real.mean()))


@pytest.mark.parametrize("measure", RANKS)
def test_the_phase_of_eigenvectors_is_fixed(measure: str):
    """The first entry that is not zero is positive, so that signs do not hang on a library."""
    _, V = nplr(measure, 16)
    first = V[np.argmax(np.abs(V) > 1e-9, axis=0), np.arange(8)]
    close(first, np.abs(first))


@pytest.mark.parametrize("measure", ["fout", "fourier_decay", "fourier2", "foud"])
def test_frequencies_of_zero_are_one_pair(measure: str):
    """They come twice, with two real vectors: e + i f."""
    system, V = nplr(measure, 8)
    silent = np.abs(system.poles.imag) < 1e-12
    assert silent.sum() == 1
    close(V[:2, silent][:, 0], np.asarray([1, 1j]) / np.sqrt(2))


def test_an_output_vector_is_carried_over():
    """C = c V: the same impulse response by both matrices."""
    A, b = hippo("legs", 8)
    c = np.random.default_rng(0).normal(size=8)
    system, V = nplr("legs", 8)
    poles, P, B = (np.concatenate([x, x.conj()], axis=-1) for x in (system.poles, system.P, system.B))
    C = np.concatenate([c @ V, (c @ V).conj()])
    full = np.diag(poles) - P.T @ P.conj()
    x, z = b, B
    for _ in range(6):
        close(C @ z, c @ x, 1e-10)
        x, z = A @ x / 10, full @ z / 10


@pytest.mark.parametrize("measure", ["legs", "legsd", "legt"])
def test_surplus_rank_is_rows_of_zeros(measure: str):
    system, wanted = nplr(measure, 6, rank=3)[0], nplr(measure, 6)[0]
    least = RANKS[measure]
    assert system.P.shape == (3, 3)
    close(system.P[:least], wanted.P)
    np.testing.assert_array_equal(system.P[least:], np.zeros((3 - least, 3)))


def test_the_normal_part_is_well_conditioned_and_the_whole_is_not():
    A, _ = hippo("legs", 24)
    p = np.sqrt(np.arange(24) + 0.5)
    assert eigenvector_condition(A + np.outer(p, p)) < 1 + 1e-6 < 1e6 < eigenvector_condition(A)


def test_arrays_of_a_library(xp: Any):
    system, V = nplr("legt", 6, xp=xp)
    wanted, eigenvectors = nplr("legt", 6)
    for name in ("poles", "P", "Q", "B"):
        found = getattr(system, name)
        assert type(found) is type(xp.ones(1))
        assert found.dtype == xp.complex128
        np.testing.assert_array_equal(np.asarray(found), getattr(wanted, name))
    np.testing.assert_array_equal(np.asarray(V), eigenvectors)
    single, V = nplr("legt", 6, xp=xp, dtype=xp.complex64)
    assert single.poles.dtype == single.B.dtype == V.dtype == xp.complex64
    assert to_dense(single).A.dtype == xp.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nplr("lagrange", 4), OptionError, "unknown measure 'lagrange'. Known: 'legs'"),
        (lambda: nplr(["legs"], 4), OptionError, r"unknown measure \['legs'\]"),
        (lambda: nplr("lmu", 4), OptionError, "'lmu' is not normal plus low rank.*Measures that are: legs, "),
        (lambda: nplr("glagt", 4, alpha=0.5), OptionError, r"'glagt' with alpha = 0\.5 is not normal plus low rank"),
        (lambda: nplr("legs", 5), ShapeError, "N = 5 is odd"),
        (lambda: nplr("legs", 0), ShapeError, "N = 0"),
        (lambda: nplr("legs", 4.0), DTypeError, r"N = 4\.0"),
        (lambda: nplr("legs", 4, rank=0), ShapeError, "rank = 0, but measure 'legs' needs rank 1. Use rank=1"),
        (lambda: nplr("legt", 4, rank=1), ShapeError, "rank = 1, but measure 'legt' needs rank 2"),
        (lambda: nplr("legs", 4, rank=1.0), ShapeError, r"rank = 1\.0"),
        (lambda: nplr("legs", 4, rank=True), ShapeError, "rank = True"),
        (lambda: nplr("legs", 4, beta=0.5), SSMError, "beta"),
        (lambda: nplr("tlagt", 4, beta=-1.0), DomainError, "beta"),
        (lambda: nplr("legs", 4, dtype=np.float32), OptionError, "is not complex. Use its complex64 or complex128"),
        (lambda: nplr("legs", 4, xp="math"), SSMError, "xp.*math"),
    ],
)
def test_refused(call: Any, error: type, message: str):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "nplr" in str(caught.value) or "hippo" in str(caught.value)


def test_a_bound_on_B():
    """Of its imaginary part, as the code of S4 has it."""
    exact, bounded = (nplr("legs", 64, B_clip=bound)[0] for bound in (None, 2.0))
    assert np.abs(exact.B.imag).max() > 2
    np.testing.assert_array_equal(bounded.B, exact.B.real + 1j * np.clip(exact.B.imag, -2, 2))
    np.testing.assert_array_equal(bounded.B, ssm_core.diagonal_init("legs", 64, B_clip=2.0).B)
    for bound in (0, -1.0, float("nan"), "2", True):
        with pytest.raises(ssm_core.DomainError, match="nplr: B_clip"):
            nplr("legs", 4, B_clip=bound)
