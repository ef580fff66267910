"""The kernel of a DPLR system by Cauchy sums: the same numbers as by Krylov sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.time_invariant.cauchy import cauchy_kernel


def discrete(measure: str, xp: Any, *, rank: int | None = None, dtype: str = "complex128", M: int | None = None) -> Any:
    system, _ = ssm_core.nplr(measure, 16, rank=rank)
    r = np.random.default_rng(0)
    C = r.normal(size=(8,) if M is None else (M, 8)) + 1j * r.normal(size=(8,) if M is None else (M, 8))
    fields = (system.poles, system.P, system.Q, system.B, C)
    arrays = (xp.asarray(x, dtype=getattr(xp, dtype)) for x in fields)
    return ssm_core.discretize(ssm_core.DPLR(*arrays, conj_pairs=True), 0.02, "bilinear")


@pytest.mark.parametrize("length", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize(("measure", "rank"), [("legs", None), ("legs", 3), ("legt", None), ("fout", None)])
def test_same_as_krylov(measure: str, rank: int | None, length: int, xp: Any):
    """Poles on the unit circle (fout, legt) included."""
    system = discrete(measure, xp, rank=rank)
    found, wanted = (np.asarray(k) for k in (cauchy_kernel(system, length, xp), ssm_core.kernel(system, length)))
    np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())


def test_several_outputs_and_inputs():
    system = discrete("legs", np, M=3)
    wide = ssm_core.DPLR(system.poles, system.P, system.Q, np.stack([system.B, 2 * system.B], axis=-1), system.C,
                         conj_pairs=True, discrete=True)  # fmt: skip
    for given in (system, wide):
        found, wanted = cauchy_kernel(given, 50, np), ssm_core.kernel(given, 50)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-12 * np.abs(wanted).max())


def test_without_conjugate_pairs():
    r = np.random.default_rng(1)
    poles = 0.9 * np.exp(2j * np.pi * r.uniform(size=5))
    P, B, C = 0.1 * r.normal(size=(2, 5)) + 0j, r.normal(size=5) + 0j, r.normal(size=5) + 1j
    system = ssm_core.DPLR(poles, P, P, B, C, discrete=True)
    np.testing.assert_allclose(cauchy_kernel(system, 40, np), ssm_core.kernel(system, 40), atol=1e-12)


def test_float32():
    system = discrete("legs", np, dtype="complex64")
    wanted = ssm_core.kernel(discrete("legs", np), 512)
    found = cauchy_kernel(system, 512, np)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
