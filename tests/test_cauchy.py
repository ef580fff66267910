"""The algorithms of kernels by name; that of a DPLR system by Cauchy sums: the same numbers as by Krylov sequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import reference
import ssm_core
from ssm_core import Diagonal, OptionError, Rational, kernel


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
    found, wanted = (np.asarray(kernel(system, length, algorithm=a)) for a in ("cauchy", "krylov"))
    np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())


def test_several_outputs_and_inputs():
    system = discrete("legs", np, M=3)
    wide = ssm_core.DPLR(system.poles, system.P, system.Q, np.stack([system.B, 2 * system.B], axis=-1), system.C,
                         conj_pairs=True, discrete=True)  # fmt: skip
    for given in (system, wide):
        found, wanted = kernel(given, 50, algorithm="cauchy"), kernel(given, 50)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-12 * np.abs(wanted).max())


def test_without_conjugate_pairs():
    r = np.random.default_rng(1)
    poles = 0.9 * np.exp(2j * np.pi * r.uniform(size=5))
    P, B, C = 0.1 * r.normal(size=(2, 5)) + 0j, r.normal(size=5) + 0j, r.normal(size=5) + 1j
    system = ssm_core.DPLR(poles, P, P, B, C, discrete=True)
    np.testing.assert_allclose(kernel(system, 40, algorithm="cauchy"), kernel(system, 40), atol=1e-12)


def test_float32():
    system = discrete("legs", np, dtype="complex64")
    wanted = kernel(discrete("legs", np), 512)
    found = kernel(system, 512, algorithm="cauchy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def low_rank(*batch: int, real: bool = False, pairs: bool = False, R: int = 2, ports: bool = False) -> ssm_core.DPLR:
    """A continuous system that decays; ports: of 2 inputs and 3 outputs."""
    r = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        x = r.normal(size=(*batch, *shape))
        return x if real else x + 1j * r.normal(size=x.shape)

    poles = -r.uniform(0.2, 1, (*batch, 4)) + (0 if real else 1j * r.uniform(1, 5, (*batch, 4)))
    P = 0.3 * draw(R, 4)
    B, C = (draw(4, 2), draw(3, 4)) if ports else (draw(4), draw(4))
    return ssm_core.DPLR(poles, P, P, B, C, conj_pairs=pairs)


@pytest.mark.parametrize("method", ["bilinear", "euler", "backward_euler"])
@pytest.mark.parametrize("length", [1, 24, 25])
@pytest.mark.parametrize(
    "system",
    [
        low_rank(2, 3, pairs=True),
        low_rank(2, pairs=True, ports=True),
        low_rank(real=True),
        low_rank(2, ports=True),
        low_rank(R=0, pairs=True),
        low_rank(real=True, pairs=True, R=1),
    ],
    ids=["batch", "ports", "real", "complex", "no_rank", "real_pairs"],
)
def test_of_continuous_systems(system: ssm_core.DPLR, length: int, method: str, xp: Any):
    given = reference.arrays_of(system, xp)
    found = kernel(given, length, dt=0.1, method=method, algorithm="cauchy")
    wanted = kernel(given, length, dt=0.1, method=method)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), atol=1e-12 * np.abs(np.asarray(wanted)).max())


@pytest.mark.parametrize("shared", ["poles", "P", "Q", "B", "C"])
def test_fields_of_size_one_serve_a_whole_batch(shared: str):
    full = low_rank(3, pairs=True)
    system = replace(full, **{shared: getattr(full, shared)[:1]})
    found = kernel(system, 20, dt=np.asarray([0.1, 0.2, 0.3]), method="bilinear", algorithm="cauchy")
    wanted = kernel(system, 20, dt=np.asarray([0.1, 0.2, 0.3]), method="bilinear")
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    alone = replace(full, **{n: getattr(full, n)[:1] for n in full.ARRAYS if n not in (shared, "D")})
    one = replace(alone, **{shared: getattr(full, shared)})
    found, wanted = (kernel(one, 20, dt=0.1, method="bilinear", algorithm=a) for a in ("cauchy", "krylov"))
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("pairs", [False, True])
def test_gradients_reach_every_field(pairs: bool):
    torch = pytest.importorskip("torch")
    fields = ("poles", "P", "Q", "B", "C")
    leaves = tuple(torch.tensor(getattr(low_rank(pairs=pairs), n), requires_grad=True) for n in fields)

    def loss(*values: Any) -> Any:
        system = ssm_core.DPLR(*values, conj_pairs=pairs)
        return kernel(system, 7, dt=0.1, method="bilinear", algorithm="cauchy").abs().square().sum()

    assert torch.autograd.gradcheck(loss, leaves)


def test_every_kind_of_system_names_its_algorithm():
    ratio = Rational(np.asarray([1.0, 0.5]), np.asarray([1.0, -0.5]))
    single = np.ones(1)
    kinds = {
        "vandermonde": Diagonal(-single, single, single),
        "krylov": (-np.eye(1), single, single),
        "cauchy": low_rank(),
    }
    for algorithm, system in kinds.items():
        options: Any = {"dt": 0.1, "method": "bilinear"}
        np.testing.assert_allclose(kernel(system, 9, algorithm=algorithm, **options), kernel(system, 9, **options))
    np.testing.assert_array_equal(kernel(ratio, 9, algorithm="division"), kernel(ratio, 9))


one, row = np.ones(1), np.ones((1, 1))
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (low_rank(), {"method": "bilinear", "algorithm": "fft"}, "unknown algorithm 'fft'. Known: 'vandermonde', 'krylov'"),
    (low_rank(), {"algorithm": "cauchy"},
     "'cauchy' does not fit a DPLR system that method 'zoh' makes Dense. Write algorithm='krylov', or method='bil"),
    (low_rank(), {"algorithm": "cauchy", "method": "tustin"}, "that method 'tustin' makes Dense"),
    (low_rank(), {"algorithm": "vandermonde", "method": "bilinear"},
     "does not fit a DPLR system. Write algorithm='krylov' or 'cauchy'"),
    (Diagonal(-one, one, one), {"algorithm": "krylov"}, "a Diagonal system. Write algorithm='vandermonde'"),
    (Diagonal(-one, one, one), {"algorithm": "vandermonde", "method": "foh"}, "method 'foh' makes Dense"),
    ((-row, one, one), {"algorithm": "cauchy"}, "a Dense system. Write algorithm='krylov', or give a DPLR system"),
]  # fmt: skip


@pytest.mark.parametrize(("system", "options", "message"), REFUSED)
def test_refused(system: Any, options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        kernel(system, 5, dt=0.1, **options)


def test_a_rational_system_is_divided():
    with pytest.raises(OptionError, match=r"'krylov' does not fit a Rational system\. Write algorithm='division'"):
        kernel(Rational(one, one), 5, algorithm="krylov")


def test_growth_is_named_whatever_the_algorithm():
    system = replace(low_rank(), poles=2 * np.ones(4) + 0j)
    with pytest.raises(ssm_core.DomainError, match="the system is unstable"):
        kernel(system, 5000, dt=0.5, method="euler", algorithm="cauchy")
