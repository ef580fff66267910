"""HiPPO as a memory: golden numbers, plain loops, quality of the reconstruction, and scales of time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.special

import ssm_core
from ssm_core import hippo_project, hippo_reconstruct
from ssm_core.measures.bases import FOURIER, WINDOWS

METHODS = ("bilinear", "euler", "backward_euler", "zoh")
SLIDING = ("legt", "lmu", "fout", "fourier2")
UNCHANGING = tuple(measure for measure in WINDOWS if measure != "legs")
OPTIONS = {"tlagt": {"beta": 0.3}, "glagt": {"alpha": 0.4, "beta": 0.3}}
GOLDEN = {
    "hippo_legs_timevarying_forward_N4_L64": "euler",
    "hippo_legs_timevarying_backward_N8_L64": "backward_euler",
    "hippo_legs_timevarying_bilinear_N8_L64": "bilinear",
    "hippo_legs_timevarying_bilinear_N16_L100": "bilinear",
    "hippo_legs_timevarying_zoh_N16_L64": "zoh",
    "hippo_legt_lmu_bilinear_N8_L64": "bilinear",
    "hippo_legt_lmu_zoh_N16_L100": "zoh",
}
rng = np.random.default_rng(0)
U = rng.normal(size=(2, 30))
TIMES = np.cumsum(rng.uniform(0.2, 1.0, 30))


def close(actual: Any, expected: Any, tolerance: float = 1e-11) -> None:
    expected = np.asarray(expected)
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max()))


def plain_step(A: np.ndarray, B: np.ndarray, dt: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    N = len(A)
    if method == "zoh":
        E = scipy.linalg.expm(dt * np.block([[A, B[:, None]], [np.zeros((1, N + 1))]]))
        return E[:N, :N], E[:N, N]
    a = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0}[method]
    left = np.linalg.inv(np.eye(N) - a * dt * A)
    return left @ (np.eye(N) + (1 - a) * dt * A), left @ (dt * B)


def plain_legs(u: np.ndarray, N: int, edges: np.ndarray, method: str, c: Any = 0.0) -> np.ndarray:
    """A loop over the steps from edge to edge, with full matrices."""
    A, B = ssm_core.hippo("legs", N)
    c, states = np.zeros((*u.shape[:-1], N)) + c, []
    for k in range(u.shape[-1]):
        step = np.log(edges[k + 1] / edges[k]) if method == "zoh" else (edges[k + 1] - edges[k]) / edges[k + 1]
        Ab, Bb = plain_step(A, B, step, method)
        c = c @ Ab.T + u[..., k, None] * Bb
        states.append(c)
    return np.stack(states, axis=-2)


def plain_unchanging(u: np.ndarray, measure: str, N: int, steps: np.ndarray, method: str) -> np.ndarray:
    A, B = ssm_core.hippo(measure, N, **OPTIONS.get(measure, {}))
    c, states = np.zeros((*u.shape[:-1], N), u.dtype), []
    for k in range(u.shape[-1]):
        Ab, Bb = plain_step(A, B, steps[k], method)
        c = c @ Ab.T + u[..., k, None] * Bb
        states.append(c)
    return np.stack(states, axis=-2)


# Against other numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, golden: Any):
    numbers = golden(name)
    measure, clock = ("legs", {}) if "legs" in name else ("lmu", {"dt": float(numbers["dt"])})
    N, u = numbers["c"].shape[-1], numbers["f"].T
    c = hippo_project(u, measure, N, method=GOLDEN[name], **clock)
    close(np.moveaxis(c, 1, 0), numbers["c"])
    M = len(numbers["eval_matrix"])
    points = np.linspace(1, 0, M) if measure == "legs" else 1 - np.arange(M) * clock["dt"]
    close(hippo_reconstruct(np.eye(N), measure, points).T, numbers["eval_matrix"])
    close(hippo_reconstruct(c[:, -1], measure, points), numbers["reconstruction_final"])


@pytest.mark.parametrize("method", METHODS)
def test_legs_is_the_loop(method: str, xp: Any):
    c = hippo_project(xp.asarray(U), "legs", 7, method=method)
    edges = np.arange(31.0) + (method == "zoh")
    close(c, plain_legs(U, 7, edges, method))


@pytest.mark.parametrize("method", METHODS)
def test_legs_of_irregular_times_is_the_loop(method: str, xp: Any):
    c = hippo_project(xp.asarray(U), "legs", 7, times=xp.asarray(TIMES), method=method)
    last = 2 * TIMES[-1] - TIMES[-2]
    edges = np.asarray([*TIMES, last] if method == "zoh" else [0, *TIMES])
    close(c, plain_legs(U, 7, edges, method))
    several = np.stack([TIMES, TIMES**2])
    c = hippo_project(xp.asarray(U[0]), "legs", 7, times=xp.asarray(several), method=method)
    assert c.shape == (2, 30, 7)
    close(c[0, ...], plain_legs(U[0], 7, edges, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("measure", UNCHANGING)
def test_measures_that_do_not_change_are_the_loop(measure: str, method: str, xp: Any):
    options = OPTIONS.get(measure, {})
    c = hippo_project(xp.asarray(U), measure, 6, dt=0.02, method=method, **options)
    close(c, plain_unchanging(U, measure, 6, np.full(30, 0.02), method))
    times = 100 + TIMES / 20
    c = hippo_project(xp.asarray(U), measure, 6, times=xp.asarray(times), method=method, **options)
    steps = np.diff(times)
    steps = [*steps, steps[-1]] if method == "zoh" else [steps[0], *steps]
    close(c, plain_unchanging(U, measure, 6, np.asarray(steps), method))


def weighing_functions(measure: str, t: np.ndarray, N: int) -> np.ndarray:
    """k_n(t) of the table, (..., N): exp(tA) B, in the limit of many states where there is one."""
    n, t, window = np.arange(N), t[:, None], WINDOWS[measure]
    if measure == "legt":
        return np.sqrt(2 * n + 1) / 2 * scipy.special.eval_legendre(n, 1 - t)
    if measure == "lmu":
        return (2 * n + 1) * scipy.special.eval_legendre(n, 2 * t - 1)
    if measure not in FOURIER:
        A, B = ssm_core.hippo(measure, N, **OPTIONS.get(measure, {}))
        return np.stack([scipy.linalg.expm(s * A) @ B for s in t[:, 0]])
    angle = 2 * np.pi * (n // 2) * t / window
    waves = np.where(n < 2, 1 - n % 2, np.sqrt(2) * np.where(n % 2, np.sin(angle), np.cos(angle)))
    return waves * {"fout": 1 / 2, "fourier2": 1.0, "fourier_decay": 3.0 ** -(1 + t // 2)}[measure]


@pytest.mark.parametrize("measure", WINDOWS)
def test_functions_are_dual(measure: str):
    end = WINDOWS[measure] if measure in SLIDING else 120.0 if measure.endswith("lagt") else 30.0
    x, w = np.polynomial.legendre.leggauss(12)
    pieces = list(pairwise(np.linspace(0, end, 61 if end > 2 else 5)))
    t = np.concatenate([low + (x + 1) / 2 * (high - low) for low, high in pieces])
    weights = np.concatenate([w / 2 * (high - low) for low, high in pieces])
    k = weighing_functions(measure, t, 4)
    ages = 1 - np.exp(-t) if measure == "legs" else t  # a fraction of the past
    g = hippo_reconstruct(np.eye(4), measure, ages, **OPTIONS.get(measure, {}))
    wanted = np.diag([1.0, 0, 1, 1]) if measure in FOURIER else np.eye(4)
    tolerance = 1e-3 if measure == "glagt" else 1e-9  # whose integrand has a branch point at 0
    np.testing.assert_allclose((k.T * weights) @ g.T, wanted, atol=tolerance)


# What a memory is for ------------------------------------------------------------------------------------------------


def signal(t: Any) -> Any:
    return np.sin(3 * t) + 0.5 * np.cos(5 * t + 1)


@pytest.mark.parametrize("method", ["bilinear", "zoh"])
@pytest.mark.parametrize("measure", ["legs", "legt", "lmu"])
def test_more_coefficients_remember_better(measure: str, method: str):
    L, window = 4000, {} if measure == "legs" else {"window": 2.0}
    dt = 4 / L if measure != "legs" else 2 / L
    t = dt * np.arange(1, L + 1)
    ages = np.linspace(0.02, 1.98, 50)
    errors = []
    for N in (2, 4, 8, 16):
        c = hippo_project(signal(t), measure, N, dt=dt, method=method, **window)
        found = hippo_reconstruct(c[-1], measure, ages, window=2.0)
        errors.append(np.sqrt(np.mean((found - signal(t[-1] - ages)) ** 2)))
    assert errors[1] < errors[0]
    assert errors[2] < errors[1] / 2
    assert errors[3] < 0.02


@pytest.mark.parametrize("measure", ["lagt", "tlagt", "glagt", *FOURIER])
def test_near_past_is_remembered(measure: str):
    """A bump some time ago by Laguerre's functions, a wave by Fourier's."""
    dt, period = 1e-3, WINDOWS[measure]
    t = dt * np.arange(1, 12001)

    def past(t: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * t / period) if measure in FOURIER else np.exp(-((t - 10) ** 2))

    c = hippo_project(past(t), measure, 32, dt=dt)
    ages = np.linspace(0.1, 0.9, 17) * (period if measure in FOURIER else 4)
    found = hippo_reconstruct(c[-1], measure, ages)
    np.testing.assert_allclose(found, past(t[-1] - ages), atol=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_legs_does_not_know_the_scale_of_time(method: str):
    wanted = hippo_project(U, "legs", 6, method=method)
    close(hippo_project(U, "legs", 6, dt=0.125, method=method), wanted)
    close(hippo_project(U, "legs", 6, times=1e6 * np.arange(1.0, 31), method=method), wanted)


@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_a_stretched_signal_has_the_same_coefficients(method: str):
    """Sampled 4 times as densely, which only makes the steps more exact."""
    few, many = (signal(3 * np.arange(1, L + 1) / L) for L in (1000, 4000))
    found = [hippo_project(u, "legs", 8, method=method)[-1] for u in (few, many)]
    np.testing.assert_allclose(found[0], found[1], atol=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
def test_equally_spaced_times_are_a_dt(measure: str, method: str, xp: Any):
    u, times = xp.asarray(U), xp.asarray(0.05 * np.arange(1, 31))
    wanted = hippo_project(u, measure, 6, dt=0.05, method=method)
    close(hippo_project(u, measure, 6, times=times, method=method), wanted)


@pytest.mark.parametrize("measure", ["legt", "fout", "lagt"])
def test_window_stretches_time(measure: str):
    wanted = hippo_project(U, measure, 6, dt=0.01)
    close(hippo_project(U, measure, 6, dt=0.1, window=10 * WINDOWS[measure]), wanted)
    times = 0.1 * np.arange(30.0)
    close(hippo_project(U, measure, 6, times=times, window=10 * WINDOWS[measure]), wanted)
    points = np.linspace(0, WINDOWS[measure], 5)
    found = hippo_reconstruct(wanted, measure, 10 * points, window=10 * WINDOWS[measure])
    close(found, hippo_reconstruct(wanted, measure, points))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("measure", ["legs", "lmu"])
def test_goes_on_where_it_stopped(measure: str, method: str, xp: Any):
    u, clock = xp.asarray(U), {} if measure == "legs" else {"dt": 0.01}
    wanted = hippo_project(u, measure, 6, method=method, **clock)
    early = hippo_project(u[:, :11], measure, 6, method=method, **clock)
    late = hippo_project(u[:, 11:], measure, 6, method=method, initial=early[:, -1, :], start=11, **clock)
    close(late, wanted[:, 11:, :])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("measure", ["legs", "lmu"])
def test_goes_on_at_irregular_times(measure: str, method: str):
    times = TIMES / 50
    wanted = hippo_project(U, measure, 6, times=times, method=method)
    until = 12 if method == "zoh" else 11  # with the end of the last step
    early = hippo_project(U[:, :11], measure, 6, times=times[:until], method=method)
    late = hippo_project(U[:, 11:], measure, 6, times=times[11:], method=method, initial=early[:, -1], start=times[10])
    close(late, wanted[:, 11:])


def test_a_held_constant_is_remembered_exactly():
    c = hippo_project(np.full(20, 3.0), "legs", 5, times=np.arange(20.0), method="zoh")
    close(c, np.asarray([3.0, 0, 0, 0, 0]) + np.zeros((20, 5)))


# Arrays of all kinds -------------------------------------------------------------------------------------------------


def test_complex_signals():
    u = U[0] + 1j * U[1]
    for measure, clock in (("legs", {}), ("lmu", {"dt": 0.02}), ("lmu", {"times": TIMES / 50})):
        for method in ("bilinear", "zoh"):
            c = hippo_project(u, measure, 5, method=method, **clock)
            parts = hippo_project(U, measure, 5, method=method, **clock)
            close(c, parts[0] + 1j * parts[1])
            points = np.asarray([0.1, 0.9])
            real, imaginary = hippo_reconstruct(parts, measure, points)
            close(hippo_reconstruct(c, measure, points), real + 1j * imaginary)


@pytest.mark.parametrize("clock", [{}, {"times": TIMES}], ids=["equal", "times"])
@pytest.mark.parametrize("measure", ["legs", "lmu"])
def test_precision_is_that_of_the_signal(measure: str, clock: dict[str, Any]):
    clock = clock or {"dt": 0.02}
    wanted = hippo_project(U, measure, 5, **clock)
    for dtype, tolerance in ((np.float32, 1e-6), (np.float16, 3e-3)):
        c = hippo_project(U.astype(dtype), measure, 5, **clock)
        assert c.dtype == dtype
        close(c, wanted, tolerance)
        points = np.asarray([0.1, 0.5], dtype)
        found = hippo_reconstruct(c, measure, points)
        assert found.dtype == dtype
        close(found, hippo_reconstruct(wanted, measure, points.astype(float)), 10 * tolerance)


@pytest.mark.parametrize("clock", [{}, {"times": TIMES[:0]}], ids=["equal", "times"])
@pytest.mark.parametrize("measure", ["legs", "lmu"])
def test_nothing_gives_nothing(measure: str, clock: dict[str, Any]):
    clock = clock or {"dt": 0.02}
    assert hippo_project(U[:, :0], measure, 4, **clock).shape == (2, 0, 4)
    for method in METHODS:
        few = {name: TIMES[:1] if name == "times" else value for name, value in clock.items()}
        c = hippo_project(U[:0, :1], measure, 4, method=method, start=0.0, **few)
        assert c.shape == (0, 1, 4)
    assert hippo_reconstruct(U[:, :0, None], measure, TIMES[:0]).shape == (2, 0, 0)


def test_points_of_several_sequences(xp: Any):
    c = hippo_project(xp.asarray(U), "legs", 6)
    points = np.asarray([[0.0, 0.5, 1.0], [0.1, 0.2, 0.3]])
    found = hippo_reconstruct(c[:, -1, :], "legs", xp.asarray(points))
    for i in range(2):
        close(found[i, ...], hippo_reconstruct(c[i, -1, :], "legs", xp.asarray(points[i])))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("measure", ["legs", "lmu"])
def test_chunks_and_a_rest(measure: str, method: str, monkeypatch: pytest.MonkeyPatch):
    wanted = hippo_project(U, measure, 4, times=TIMES, method=method)
    monkeypatch.setattr("ssm_core.measures.projection.MATRICES_AT_ONCE", 16 * 7)
    close(hippo_project(U, measure, 4, times=TIMES, method=method), wanted)


CLOCKS = [("legs", {}), ("legs", {"times": TIMES}), ("lmu", {"dt": 0.02}), ("lmu", {"times": TIMES / 50})]


@pytest.mark.parametrize("method", ["bilinear", "zoh"])
@pytest.mark.parametrize(("measure", "clock"), CLOCKS)
def test_gradients_in_torch(measure: str, clock: dict[str, Any], method: str):
    """The derivative of a linear map, of which the loss takes a weighted sum, is the map's transpose."""
    torch = pytest.importorskip("torch")
    u = torch.tensor(U, requires_grad=True)
    given = {name: torch.asarray(x) for name, x in clock.items()} if "times" in clock else clock
    weights = rng.normal(size=(2, 30, 4))
    c = hippo_project(u, measure, 4, method=method, **given)
    close(c.detach(), hippo_project(U, measure, 4, method=method, **clock))
    (c * torch.asarray(weights)).sum().backward()
    close(u.grad, transposed(measure, clock, method, weights))


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("method", ["bilinear", "zoh"])
@pytest.mark.parametrize(("measure", "clock"), CLOCKS)
def test_gradients_in_jax_under_jit(measure: str, clock: dict[str, Any], method: str):
    jax = pytest.importorskip("jax")
    weights = rng.normal(size=(2, 30, 4))

    def loss(u: Any, times: Any) -> Any:
        more = {"times": times} if "times" in clock else clock
        return (hippo_project(u, measure, 4, method=method, **more) * weights).sum()

    gradient = jax.jit(jax.grad(loss))(U.astype(np.float32), np.asarray(clock.get("times", 0.0), np.float32))
    close(gradient, transposed(measure, clock, method, weights), 1e-4)


def transposed(measure: str, clock: dict[str, Any], method: str, weights: np.ndarray) -> np.ndarray:
    impulses = hippo_project(np.eye(30), measure, 4, method=method, **clock)  # (impulse, L, N)
    return np.einsum("bln,iln->bi", weights, impulses)
