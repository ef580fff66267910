"""Discretization methods: what carries the input before, what SciPy calls them, and methods of one's own."""

from __future__ import annotations

from dataclasses import replace
from inspect import cleandoc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import scipy.linalg
import scipy.signal
import scipy.special

import ssm_core
from ssm_core import DPLR, Dense, Diagonal, discretize, frequency_response, kernel, scan, to_dense
from ssm_core.systems import methods
from ssm_core.systems.methods import Method

ALPHAS = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0, "gbt": 0.3}
METHODS = ("zoh", "dirac", *ALPHAS)
CARRYING = ("foh", "tustin")
DT = 0.1
KINDS = ("dense", "pairs", "dplr", "inputs")


def of_kind(kind: str, *batch: int) -> Any:
    """A continuous system of 6 real states; inputs: with two of them that share B."""
    r = np.random.default_rng(0)

    def draw() -> np.ndarray:
        return r.normal(size=(*batch, 3)) + 1j * r.normal(size=(*batch, 3))

    poles, B, C = -r.uniform(0.5, 1, (*batch, 3)) + 1j * r.normal(size=(*batch, 3)), draw(), draw()
    return {
        "dense": lambda: to_dense(Diagonal(poles, B, C, conj_pairs=True)),
        "pairs": lambda: Diagonal(poles, B, C, conj_pairs=True),
        "dplr": lambda: DPLR(poles, 0.1 * B[..., None, :], 0.1 * B[..., None, :], B, C, conj_pairs=True),
        "inputs": lambda: Diagonal(poles, np.stack([B, B], -1), C, conj_pairs=True),
    }[kind]()


# The input before ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_foh_is_exact_for_straight_lines(kind: str):
    """Between samples the input is a straight line: against the exact response to a ramp, x' = A x + B t."""
    system = of_kind(kind)
    t = 0.3 * np.arange(20)
    u = np.stack([t / 2, t / 2]) if kind == "inputs" else t
    dense = ssm_core.to_dense(system)
    A, b = dense.A, dense.B if dense.B.ndim == 1 else dense.B.mean(1)
    inverse = np.linalg.inv(A)
    exact = [dense.C @ inverse @ (inverse @ (ssm_core.expm(A * s) @ b - b) - s * b) for s in t]
    for mode in ("conv", "chunk", "scan"):
        y, state = scan(system, u, dt=0.3, method="foh", mode=mode)
        np.testing.assert_allclose(y, exact, atol=1e-12)
        np.testing.assert_allclose(state[-1], u[..., -1] if kind != "inputs" else t[-1] / 2)
    head, state = scan(system, u[..., :7], dt=0.3, method="foh")
    tail, _ = scan(system, u[..., 7:], dt=0.3, method="foh", initial=state)
    np.testing.assert_allclose(np.concatenate([head, tail]), exact, atol=1e-12)


@pytest.mark.parametrize("method", CARRYING)
def test_an_input_before_takes_no_step_scale(method: str):
    system = Diagonal(-np.ones(2), np.ones(2), np.ones(2))
    with pytest.raises(ssm_core.OptionError, match=f"'{method}' takes no step_scale"):
        scan(system, np.ones(4), dt=0.1, method=method, step_scale=np.ones(4))


@pytest.mark.parametrize("kind", KINDS)
def test_tustin_is_the_trapezoid_of_state_and_input(kind: str):
    """(1 - z/2) x_k = (1 + z/2) x_{k-1} + dt/2 B (u_k + u_{k-1}) with the full matrix."""
    system, dt = of_kind(kind), 0.3
    u = np.random.default_rng(1).normal(size=(2, 40) if kind == "inputs" else 40)
    dense = to_dense(system)
    z, B, one = dt * dense.A, dense.B if kind == "inputs" else dense.B[:, None], np.eye(6)
    x, before, wanted = np.zeros(6), np.zeros(B.shape[1]), []
    for now in np.atleast_2d(u).T:
        x = np.linalg.solve(one - z / 2, (one + z / 2) @ x + dt / 2 * B @ (now + before))
        wanted.append(dense.C @ x)
        before = now
    for mode in ("conv", "chunk", "scan"):
        y, state = scan(system, u, dt=dt, method="tustin", mode=mode)
        np.testing.assert_allclose(y, wanted, atol=1e-12)
        np.testing.assert_allclose(state, [*x, *before], atol=1e-12)
    head, state = scan(system, u[..., :7], dt=dt, method="tustin")
    tail, _ = scan(system, u[..., 7:], dt=dt, method="tustin", initial=state)
    np.testing.assert_allclose(np.concatenate([head, tail]), wanted, atol=1e-12)
    y_k, _ = ssm_core.step(system, u[..., 7], state, dt=dt, method="tustin")
    np.testing.assert_allclose(y_k, wanted[7], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_tustin_maps_frequencies(kind: str, xp: Any):
    """Its response is that of the continuous system at s = 2/dt (1 - w)/(1 + w), w = e^(-i omega)."""
    system, dt = of_kind(kind), 0.3
    omega = np.random.default_rng(2).uniform(-3, 3, 9)
    w = np.exp(-1j * omega)
    wanted = frequency_response(system, 2 / dt * ((1 - w) / (1 + w)).imag)
    given = reference.arrays_of(system, xp)
    found = frequency_response(discretize(given, dt, "tustin"), xp.asarray(omega))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-11)
    bilinear = frequency_response(discretize(given, dt, "bilinear"), xp.asarray(omega))
    np.testing.assert_allclose(np.asarray(bilinear) * (1 + w) / 2, wanted, rtol=1e-11)


@pytest.mark.parametrize("method", CARRYING)
@pytest.mark.parametrize("kind", ["pairs", "dplr", "inputs"])
@pytest.mark.parametrize(("batch", "dt"), [((), DT), ((2,), DT), ((2,), np.asarray([0.1, 0.3]))], ids=str)
def test_the_input_before_whatever_the_kind(batch: tuple[int, ...], dt: Any, kind: str, method: str, xp: Any):
    """Closed forms of poles and of low rank against that of the full matrix."""
    system = of_kind(kind, *batch)
    given = xp.asarray(dt) if isinstance(dt, np.ndarray) else dt
    found = discretize(reference.arrays_of(system, xp), given, method)
    wanted = discretize(to_dense(system), dt, method)
    assert isinstance(found, Dense)
    for name in ("A", "B", "C"):
        np.testing.assert_allclose(np.asarray(getattr(found, name)), getattr(wanted, name), atol=1e-12)


@pytest.mark.parametrize("method", CARRYING)
def test_a_step_for_every_state_with_the_input_before(method: str):
    poles, dt = -np.asarray([0.5, 1.0, 2.0]), np.asarray([0.1, 0.2, 0.4])
    found = discretize(Diagonal(poles, np.ones(3)), dt, method)
    for n in range(3):
        alone = discretize(Diagonal(poles[n : n + 1], np.ones(1)), dt[n], method)
        np.testing.assert_allclose(found.A[n, [n, 3]], alone.A[0], rtol=1e-13)
        np.testing.assert_allclose(found.B[n], alone.B[0], rtol=1e-13)


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 0.5, 0.999, 1.001, 30.0])
def test_foh_keeps_its_digits_in_single_precision(scale: float):
    """phi2(z) = (e^z - 1 - z)/z^2, of which double precision has enough."""
    z = scale * np.asarray([-1, -0.6 + 0.8j, 1j])
    found = discretize(Diagonal(z.astype(np.complex64), np.ones(3, np.float32)), 1.0, "foh")
    terms = [z**k / scipy.special.factorial(k + 2) for k in range(12)]
    exact = np.sum(terms, axis=0) if scale < 0.6 else (np.expm1(z) - z) / z**2
    np.testing.assert_allclose(found.B[:3], exact, rtol=3e-6)
    first = np.expm1(z) / z
    np.testing.assert_allclose(found.A[:3, 3], first - exact, atol=3e-6 * np.abs(first).max())


def test_gradients_of_foh_at_poles_of_zero():
    torch = pytest.importorskip("torch")
    poles = torch.tensor([0.0, -1e-9], dtype=torch.float64, requires_grad=True)
    found = discretize(Diagonal(poles, torch.ones(2, dtype=torch.float64)), DT, "foh")
    (slope,) = torch.autograd.grad(found.B[:2].sum(), poles)
    np.testing.assert_allclose(slope.numpy(), [DT**2 / 6] * 2, rtol=1e-9)


# What scipy.signal calls them, and the documents ---------------------------------------------------------------------


@pytest.mark.parametrize("method", methods.METHODS)
def test_relation_to_scipy(method: str):
    """The transfer function of SciPy's system, without its direct term, is ours times the relation of the record."""
    record, alpha = methods.METHODS[method], 0.3 if method == "gbt" else None
    system = reference.dense(4, P=2, M=3)
    D = np.zeros((3, 2)) if method == "dirac" else system.D  # SciPy's impulses take no direct term
    omega = np.random.default_rng(0).uniform(-3, 3, 7)
    w = np.exp(-1j * omega)
    A, B, C, direct, _ = scipy.signal.cont2discrete((system.A, system.B, system.C, D), DT, record.scipy, alpha)
    theirs = np.stack([C @ np.linalg.solve(np.eye(len(A)) / x - A, B) + direct - D for x in w], axis=-1)
    ours = frequency_response(replace(discretize(system, DT, method, alpha=alpha), D=None), omega)
    factor = eval(record.relation, {"w": w, "dt": DT, "a": alpha})
    np.testing.assert_allclose(theirs, factor * ours, rtol=1e-10, atol=1e-12)


def test_the_documents_have_the_table():
    text = (Path(__file__).parents[1] / "docs" / "conventions.md").read_text()
    rows = {tuple(cell.strip() for cell in line.strip("| ").split("|")) for line in text.splitlines() if "|" in line}
    for name, record in methods.METHODS.items():
        assert (f"`{name}`", *record.formulas) in rows
        assert (f"`{name}`", record.between, f"`{record.scipy}`", record.relation) in rows
        assert f"\n{name} " in cleandoc(discretize.__doc__ or "")


# A method of one's own -----------------------------------------------------------------------------------------------


HEUN = Method(
    formulas=("1 + z + z^2/2", "dt (1 + z/2) B"),
    between="held, by Heun's rule",
    scipy=None,
    relation="",
    diagonal=lambda z, xp: (1 + z + z * z / 2, 1 + z / 2),
    dense=lambda z, b, xp: (xp.eye(z.shape[-1]) + z + z @ z / 2, b + z @ b / 2),
)
ADAMS = replace(
    HEUN,
    between="by the two-step rule of Adams and Bashforth, Euler's in the state",
    diagonal=lambda z, xp: (1 + z, 1.5 * xp.ones_like(z), -0.5 * xp.ones_like(z)),
    dense=lambda z, b, xp: (xp.eye(z.shape[-1]) + z, 1.5 * b, -0.5 * b),
    carries_input=True,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("record", [HEUN, ADAMS], ids=["heun", "adams"])
def test_a_method_is_one_record(record: Method, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(methods.METHODS, "own", record)
    system, dense = of_kind(kind), to_dense(of_kind(kind))
    u = np.random.default_rng(1).normal(size=(2, 30) if kind == "inputs" else 30)
    z, B = DT * dense.A, DT * (dense.B if kind == "inputs" else dense.B[:, None])
    A, *drives = record.dense(z, B, np)
    x, before, wanted = np.zeros(6), np.zeros(B.shape[1]), []
    for now in np.atleast_2d(u).T:
        x = A @ x + sum(drive @ v for drive, v in zip(drives, (now, before), strict=False))
        wanted.append(dense.C @ x)
        before = now
    for mode in ("conv", "chunk", "scan"):
        np.testing.assert_allclose(scan(system, u, dt=DT, method="own", mode=mode)[0], wanted, atol=1e-12)
    taps = kernel(system, 30, dt=DT, method="own")
    np.testing.assert_allclose(taps, kernel(discretize(system, DT, "own"), 30), atol=1e-12)
    with pytest.raises(ssm_core.OptionError, match="takes no alpha; only 'gbt' does"):
        discretize(system, DT, "own", alpha=0.5)


def test_layers_take_a_method_of_ones_own(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ssm_core.OptionError, match=r"unknown discretization 'own'\. Known: 'zoh', 'bilinear'"):
        ssm_core.layers.S4D(d_model=2, d_state=4, discretization="own")
    monkeypatch.setitem(methods.METHODS, "own", HEUN)
    layer = ssm_core.layers.S4D(d_model=2, d_state=4, discretization="own", activation=None, output=None, skip=False)
    params = layer.initial_parameters(seed=0)
    u = np.random.default_rng(0).normal(size=(1, 20, 2)).astype(np.float32)
    y = [layer.apply(params, u, mode=mode) for mode in ("conv", "scan")]
    np.testing.assert_allclose(y[0], y[1], atol=1e-5)
    monkeypatch.setitem(methods.METHODS, "own", ADAMS)
    with pytest.raises(ssm_core.OptionError, match="unknown discretization 'own'"):
        ssm_core.layers.S4D(d_model=2, d_state=4, discretization="own")
