"""Diagonal plus low-rank systems against their full matrices: discretization, kernels, runs, responses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.signal

import reference
from ssm_core import DPLR, Dense, Diagonal, discretize, frequency_response, kernel, nplr, poles, scan, step, to_dense
from ssm_core.time_invariant.steps import system_stepper

ALPHAS = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0, "gbt": 0.3}
PORTS = [(None, None), (2, None), (None, 3), (2, 3)]
MODES = ("conv", "chunk", "scan", "auto")
DT = 0.1


def low_rank(
    N: int = 3, R: int = 2, *, P: int | None = None, M: int | None = None, batch: tuple[int, ...] = (),
    conj_pairs: bool = True, D: bool = True, seed: int = 0,
) -> DPLR:  # fmt: skip
    """A decaying system whose P and Q differ."""
    rng = np.random.default_rng(seed + 1)
    base = reference.diagonal(N, P=P, M=M, batch=batch, D=D, seed=seed)
    p = 0.5 * (rng.normal(size=(*batch, R, N)) + 1j * rng.normal(size=(*batch, R, N)))
    q = p + 0.1 * (rng.normal(size=p.shape) + 1j * rng.normal(size=p.shape))
    return DPLR(base.poles, p, q, base.B, base.C, base.D, conj_pairs=conj_pairs)


def written_out(system: DPLR) -> Dense:
    """All modes, as full complex matrices."""
    rank = system.poles.ndim - 1
    fields = {name: getattr(system, name) for name in ("poles", "P", "Q", "B", "C")}
    if system.conj_pairs:
        axis = {"B": rank}
        fields = {n: np.concatenate([x, x.conj()], axis=axis.get(n, -1)) for n, x in fields.items()}
    lam, P, Q = fields["poles"], fields["P"], fields["Q"]
    A = lam[..., None] * np.eye(lam.shape[-1]) - np.swapaxes(P, -1, -2) @ Q.conj()
    return Dense(A, fields["B"], fields["C"], system.D, discrete=system.discrete)


def options(method: str) -> dict[str, float]:
    return {"alpha": ALPHAS[method]} if method == "gbt" else {}


def close(x: Any, y: Any, tolerance: float = 1e-11) -> None:
    x, y = np.asarray(x), np.asarray(y)
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(y).max(initial=1))


# Discretization ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ALPHAS)
@pytest.mark.parametrize("conj_pairs", [False, True])
@pytest.mark.parametrize(
    ("batch", "dt", "P"),
    [((), DT, None), ((), np.asarray(0.2), 2), ((2,), np.asarray([0.1, 0.3]), None), ((2,), DT, 2)],
)
def test_the_methods_of_gbt_stay_in_the_form(
    batch: tuple[int, ...], dt: Any, P: int | None, conj_pairs: bool, method: str, xp: Any
):
    """Woodbury's identity against an inverse of the full matrix."""
    system = low_rank(P=P, batch=batch, conj_pairs=conj_pairs)
    given = xp.asarray(dt) if isinstance(dt, np.ndarray) else dt
    found = discretize(reference.arrays_of(system, xp), given, method, **options(method))
    assert isinstance(found, DPLR)
    assert found.discrete
    assert found.conj_pairs == conj_pairs
    found = written_out(replace(found, **{n: np.asarray(getattr(found, n)) for n in DPLR.ARRAYS}))
    full, alpha = written_out(system), ALPHAS[method]
    step, one = np.asarray(dt)[..., None, None], np.eye(full.A.shape[-1])
    left = np.linalg.inv(one - alpha * step * full.A)
    B = full.B if P else full.B[..., None]
    close(found.A, left @ (one + (1 - alpha) * step * full.A))
    close(found.B if P else found.B[..., None], left @ (step * B))
    close(found.C, full.C)
    close(found.D, system.D)


@pytest.mark.parametrize("method", ["zoh", "dirac"])
@pytest.mark.parametrize("conj_pairs", [False, True])
@pytest.mark.parametrize(("batch", "dt"), [((), DT), ((2,), np.asarray([0.1, 0.3]))], ids=["one", "batch"])
def test_exponentials_are_dense(batch: tuple[int, ...], dt: Any, conj_pairs: bool, method: str, xp: Any):
    system = low_rank(batch=batch, conj_pairs=conj_pairs)
    given = xp.asarray(dt) if isinstance(dt, np.ndarray) else dt
    found = discretize(reference.arrays_of(system, xp), given, method)
    assert isinstance(found, Dense)
    assert found.discrete
    assert np.isrealobj(np.asarray(found.A)) == conj_pairs
    plain = to_dense(system)
    wanted = discretize(plain, dt, method)
    for name in ("A", "B", "C", "D"):
        close(getattr(found, name), getattr(wanted, name))
    step = np.asarray(dt)[..., None, None]
    close(found.A, scipy.linalg.expm(step * plain.A))


@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_a_step_for_every_state_scales_its_row(method: str):
    """dt_n multiplies the whole rate of state n, as for a diagonal system."""
    system, dt = low_rank(conj_pairs=False), np.asarray([0.05, 0.1, 0.3])
    full = written_out(system)
    scaled = Dense(dt[:, None] * full.A, dt * full.B, full.C, full.D)
    wanted, found = discretize(scaled, 1.0, method), to_dense(discretize(system, dt, method))
    for name in ("A", "B", "C"):
        close(getattr(found, name), getattr(wanted, name))


@pytest.mark.parametrize("method", ALPHAS)
def test_no_low_rank_part_is_a_diagonal_system(method: str):
    base = reference.diagonal(3)
    wanted = discretize(base, DT, method, **options(method))
    for R in (0, 2):
        zero = np.zeros((R, 3), complex)
        found = discretize(DPLR(base.poles, zero, zero, base.B, base.C, base.D, conj_pairs=True), DT, method,
                           **options(method))  # fmt: skip
        close(found.poles, wanted.poles, 1e-14)
        close(found.B, wanted.B, 1e-14)
        close(found.P, zero)


def test_real_systems_stay_real(xp: Any):
    system = DPLR(-np.asarray([1.0, 2.0]), np.ones((1, 2)), np.full((1, 2), 0.5), np.ones(2), np.ones(2))
    found = discretize(reference.arrays_of(system, xp), DT, "bilinear")
    assert found.poles.dtype == found.P.dtype == found.Q.dtype == found.B.dtype == xp.float64
    wanted = discretize(to_dense(system), DT, "bilinear")
    close(to_dense(found).A, wanted.A)


@pytest.mark.parametrize(
    ("dtype", "dt", "wanted"),
    [("complex64", 0.1, "complex64"), ("complex64", np.asarray(0.1), "complex128"), ("float16", 0.1, "float32")],
)
def test_dtypes(dtype: str, dt: Any, wanted: str):
    one = np.ones(2, dtype)
    found = discretize(DPLR(-one, one[None] / 2, one[None] / 2, one, one), dt, "bilinear")
    assert found.poles.dtype == found.P.dtype == found.Q.dtype == found.B.dtype == wanted


def test_fields_broadcast_over_a_batch():
    """A batch of poles shares P, B and C; a batch of steps shares everything."""
    system = low_rank(batch=(1,), D=False)
    poles = np.concatenate([system.poles, 2 * system.poles])
    K = kernel(replace(system, poles=poles), 9, dt=DT, method="bilinear")
    steps = kernel(system, 9, dt=np.asarray([0.1, 0.2]), method="bilinear")
    for i in range(2):
        alone = replace(system, poles=poles[i : i + 1])
        close(K[i], kernel(alone, 9, dt=DT, method="bilinear")[0])
        close(steps[i], kernel(system, 9, dt=(0.1, 0.2)[i], method="bilinear")[0])


# Over time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("conj_pairs", [False, True])
def test_kernel(conj_pairs: bool, batch: tuple[int, ...], P: int | None, M: int | None, xp: Any):
    system = discretize(low_rank(P=P, M=M, batch=batch, conj_pairs=conj_pairs), DT, "bilinear")
    K = reference.impulse_response(written_out(system), 21)
    K = K.real if conj_pairs else K
    K = K if P else K[..., 0, :]
    K = K if M else K[..., 0, :, :] if P else K[..., 0, :]
    found = kernel(reference.arrays_of(system, xp), 21)
    assert np.isrealobj(np.asarray(found)) == conj_pairs
    close(found, K)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("conj_pairs", [False, True])
def test_every_mode_is_the_recurrence(conj_pairs: bool, P: int | None, M: int | None, mode: str, xp: Any):
    """The state of pairs is that of the stored half."""
    rng = np.random.default_rng(3)
    system = discretize(low_rank(P=P, M=M, batch=(2,), conj_pairs=conj_pairs), DT, "bilinear")
    u, x = rng.normal(size=(2, *((P,) if P else ()), 70)), rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3))
    first = np.concatenate([x, x.conj()], axis=-1) if conj_pairs else x
    y, state = reference.run(written_out(system), u, first)
    given = reference.arrays_of(system, xp)
    found, last = scan(given, xp.asarray(u), initial=xp.asarray(x), mode=mode)
    assert last.shape == (2, 3)
    close(found, y.real if conj_pairs else y)
    close(last, state[..., :3])


@pytest.mark.parametrize("mode", ["chunk", "scan"])
def test_resets_and_lengths(mode: str, xp: Any):
    rng = np.random.default_rng(4)
    system = discretize(low_rank(), DT, "bilinear")
    u, reset = rng.normal(size=(2, 50)), rng.uniform(size=(2, 50)) < 0.1
    y, _ = reference.run(written_out(system), u, reset=reset)
    given = reference.arrays_of(system, xp)
    close(scan(given, xp.asarray(u), reset=xp.asarray(reset), mode=mode)[0], y.real)
    _, last = scan(given, xp.asarray(u), lengths=xp.asarray([50, 17]), mode=mode)
    for b, length in enumerate((50, 17)):
        close(np.asarray(last)[b], reference.run(written_out(system), u[b, :length])[1][..., :3])


@pytest.mark.parametrize("conj_pairs", [False, True])
def test_steps_are_the_scan(conj_pairs: bool, xp: Any):
    """`step`, and the stepper that keeps the product with the low-rank part apart."""
    system = reference.arrays_of(low_rank(conj_pairs=conj_pairs), xp)
    u = xp.asarray(np.random.default_rng(5).normal(size=6))
    y, _ = scan(system, u, dt=DT, method="bilinear")
    discrete = discretize(system, DT, "bilinear")
    advance = system_stepper(discrete, xp)
    x = z = xp.zeros(3, dtype=xp.complex128)
    for k in range(6):
        y_k, x = step(system, u[k, ...], x, dt=DT, method="bilinear")
        z, v = advance(z, u[k, ...])
        close(y_k, y[k, ...])
        close(v + discrete.D * u[k, ...], y[k, ...])
    close(x, z)


def test_zoh_and_bilinear_of_hippo_agree_for_short_steps():
    system, V = nplr("legs", 16)
    system = replace(system, C=np.ones(16) @ V)
    K = [kernel(system, 50, dt=1e-4, method=method) for method in ("zoh", "bilinear")]
    close(K[0], K[1], 1e-3)


# Frequencies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("conj_pairs", [False, True])
@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_response(batch: tuple[int, ...], P: int | None, M: int | None, conj_pairs: bool, discrete: bool, xp: Any):
    """Woodbury's identity on sums over the poles against a solution with the full matrix."""
    system = low_rank(P=P, M=M, batch=batch, conj_pairs=conj_pairs)
    system = discretize(system, DT, "bilinear") if discrete else system
    omega = np.linspace(-3.0, 3.0, 7)
    wanted = frequency_response(written_out(system), omega)
    found = frequency_response(reference.arrays_of(system, xp), xp.asarray(omega))
    assert found.shape == wanted.shape
    close(found, wanted, 1e-10)


def test_the_discrete_response_is_the_transform_of_the_kernel():
    system = discretize(low_rank(D=False), 0.5, "bilinear")
    found = frequency_response(system, 2 * np.pi * np.fft.fftfreq(256))
    close(found, np.fft.fft(kernel(system, 256)), 1e-6)


def test_response_without_a_low_rank_part():
    base = reference.diagonal(3)
    zero = np.zeros((0, 3), complex)
    system = DPLR(base.poles, zero, zero, base.B, base.C, base.D, conj_pairs=True)
    omega = np.linspace(-1, 1, 5)
    close(frequency_response(system, omega), frequency_response(base, omega))


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("conj_pairs", [False, True])
def test_poles(conj_pairs: bool, batch: tuple[int, ...], xp: Any):
    system = low_rank(batch=batch, conj_pairs=conj_pairs)
    found = np.asarray(poles(reference.arrays_of(system, xp)))
    wanted = np.linalg.eigvals(written_out(system).A)
    assert found.shape == wanted.shape
    for point in (1.0 + 2j, -3.0 + 0.5j):
        close(np.prod(point - found, axis=-1), np.prod(point - wanted, axis=-1), 1e-10)


def test_systems_of_no_states_or_no_frequencies():
    none = np.zeros(0, complex)
    empty = DPLR(none, np.zeros((1, 0), complex), np.zeros((1, 0), complex), none, none, 0.5, conj_pairs=True)
    omega = np.linspace(-1, 1, 3)
    close(frequency_response(empty, omega), np.full(3, 0.5 + 0j))
    assert frequency_response(low_rank(P=2), np.zeros(0)).shape == (2, 0)


def test_a_diagonal_system_and_one_of_rank_zero_run_alike():
    base = discretize(reference.diagonal(3), DT, "bilinear")
    zero = np.zeros((0, 3), complex)
    system = DPLR(base.poles, zero, zero, base.B, base.C, base.D, conj_pairs=True, discrete=True)
    u = np.random.default_rng(6).normal(size=40)
    for mode in MODES:
        (y, x), (z, w) = scan(system, u, mode=mode), scan(base, u, mode=mode)
        close(y, z)
        close(x, w)
    assert isinstance(base, Diagonal)


@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_gradients_reach_every_field(method: str):
    torch = pytest.importorskip("torch")
    base = low_rank()
    fields = {n: torch.tensor(getattr(base, n), requires_grad=True) for n in ("poles", "P", "Q", "B", "C")}

    def loss(*values: Any) -> Any:
        return kernel(DPLR(*values, conj_pairs=True), 7, dt=DT, method=method).square().sum()

    assert torch.autograd.gradcheck(loss, tuple(fields.values()))
