"""Systems to and from SciPy and python-control: the outputs that those compute are ours."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import array_api_strict
import control
import numpy as np
import pytest
import reference
import scipy.signal

import ssm_core
from ssm_core import Dense, Diagonal, Rational, discretize, from_control, from_scipy, scan, to_control, to_scipy

PORTS = [(None, None), (2, None), (None, 3), (2, 3)]
KINDS = [reference.diagonal, reference.dense]


def outputs(statespace: Any, u: np.ndarray) -> np.ndarray:
    """What SciPy computes of inputs (P, L) or (L,), as (M, L)."""
    return scipy.signal.dlsim(statespace, np.atleast_2d(u).T)[1].T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("P", "M"), PORTS)
def test_outputs_are_those_of_scipy(P: int | None, M: int | None, kind: Any, xp: Any):
    system = discretize(kind(3, P=P, M=M), 0.3)
    u = np.random.default_rng(0).normal(size=(30,) if P is None else (P, 30))
    found = to_scipy(reference.arrays_of(system, xp))
    y, _ = scan(system, u)
    np.testing.assert_allclose(outputs(found, u), np.atleast_2d(y), atol=1e-12)
    again, _ = scan(from_scipy(found), u)
    np.testing.assert_allclose(again, y, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_impulse_responses(kind: Any):
    system = discretize(kind(4), 0.3)
    _, (theirs,) = scipy.signal.dimpulse(to_scipy(system), n=20)
    K = ssm_core.kernel(system, 20)
    K[0] += system.D
    np.testing.assert_allclose(theirs[:, 0], K, atol=1e-13)


def test_transfer_functions():
    b, a = np.asarray([1.0, 0.5, 0.25]), np.asarray([1.0, -0.9, 0.3])
    found = to_scipy(Rational(b, a, 0.5))
    u = np.random.default_rng(0).normal(size=25)
    np.testing.assert_allclose(outputs(found, u)[0], scipy.signal.lfilter(b, a, u) + 0.5 * u, atol=1e-12)
    same, _ = scan(from_scipy(scipy.signal.TransferFunction(b, a, dt=1)), u)
    np.testing.assert_allclose(same, scipy.signal.lfilter(b, a, u), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("P", "M"), PORTS)
def test_continuous_systems_pass(P: int | None, M: int | None, kind: Any):
    system = kind(3, P=P, M=M)
    found = to_scipy(system)
    assert found.dt is None
    again = from_scipy(found)
    assert not again.discrete
    omega = np.linspace(-2, 2, 5)
    wanted = ssm_core.frequency_response(system, omega)
    np.testing.assert_allclose(ssm_core.frequency_response(again, omega), wanted, atol=1e-12)
    np.testing.assert_array_equal(np.squeeze(again.D), np.squeeze(system.D))
    if isinstance(system, Dense):
        np.testing.assert_array_equal(again.A, system.A)


def test_conjugate_pairs_become_a_real_system():
    found = to_scipy(reference.diagonal(3))
    assert found.A.shape == (6, 6)
    assert not any(np.iscomplexobj(x) for x in (found.A, found.B, found.C, found.D))
    unpaired = to_scipy(reference.diagonal(3, conj_pairs=False))
    assert np.iscomplexobj(unpaired.A)
    assert np.iscomplexobj(from_scipy(unpaired).A)


@pytest.mark.parametrize(("P", "M"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("rank", [0, 2])
def test_singular_matrices_on_the_way_back(rank: int, P: int, M: int):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(4, rank)) @ rng.normal(size=(rank, 4)) / 4
    given = scipy.signal.StateSpace(A, rng.normal(size=(4, P)), rng.normal(size=(M, 4)), np.ones((M, P)), dt=1)
    found = from_scipy(given)
    assert found.A.shape == (4 + M, 4 + M)
    u = rng.normal(size=(P, 20))
    y, _ = scan(found, u if P > 1 else u[0])
    np.testing.assert_allclose(np.atleast_2d(y), outputs(given, u), atol=1e-12)


def test_singular_matrices_that_came_from_here_keep_their_states():
    """C A is in the row space of A."""
    system = Dense(np.asarray([[0.5, 0.5], [0.0, 0.0]]), np.ones(2), np.asarray([1.0, 2.0]), 0.25, discrete=True)
    found = from_scipy(to_scipy(system))
    assert found.A.shape == (2, 2)
    u = np.random.default_rng(0).normal(size=20)
    np.testing.assert_allclose(scan(found, u)[0], scan(system, u)[0], atol=1e-12)


def test_a_delay_has_no_inverse():
    u = np.random.default_rng(0).normal(size=9)
    delay = scipy.signal.StateSpace([[0.0]], [[1.0]], [[1.0]], [[0.0]], dt=0.1)
    np.testing.assert_allclose(scan(from_scipy(delay), u)[0], [0, *u[:-1]], atol=1e-15)


def test_no_states():
    found = from_scipy(scipy.signal.StateSpace(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), [[2.0]], dt=1))
    assert found.A.shape == (0, 0)
    assert found.D == 2


def test_axes_of_ports():
    """One input or one output loses its axis; a number D is a multiple of the identity."""
    for P, M in PORTS:
        found = from_scipy(to_scipy(reference.dense(3, P=P, M=M)))
        ports = (() if M is None else (M,)), (() if P is None else (P,))
        assert (found.B.shape, found.C.shape) == ((3, *ports[1]), (*ports[0], 3))
        assert found.D.shape == ports[0] + ports[1]
    square = to_scipy(Dense(-np.eye(2), np.eye(2), np.eye(2), 0.5))
    np.testing.assert_array_equal(square.D, 0.5 * np.eye(2))
    np.testing.assert_array_equal(to_scipy(Dense(-np.eye(2), np.eye(2), np.eye(2))).D, np.zeros((2, 2)))


def test_the_result_is_of_the_library_and_dtype_asked_for():
    given = to_scipy(reference.dense(3))
    found = from_scipy(given, xp="array_api_strict", dtype=array_api_strict.float32)
    assert {x.dtype for x in (found.A, found.B, found.C, found.D)} == {array_api_strict.float32}
    unpaired = to_scipy(reference.diagonal(3, conj_pairs=False))
    assert from_scipy(unpaired, dtype=np.float32).A.dtype == np.complex64
    torch = pytest.importorskip("torch")
    assert from_scipy(given, xp="torch").A.dtype == torch.float64


# python-control ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_control(kind: Any):
    system = discretize(kind(3, P=2, M=3), 0.3)
    found = to_control(system)
    assert found.dt is True
    same = to_scipy(system)
    for name in "ABCD":
        np.testing.assert_array_equal(getattr(found, name), getattr(same, name))
    u = np.random.default_rng(0).normal(size=(2, 20))
    np.testing.assert_allclose(scan(from_control(found), u)[0], scan(system, u)[0], atol=1e-11)
    continuous = from_control(to_control(kind(3)))
    assert not continuous.discrete


def test_responses_of_control():
    system = discretize(reference.diagonal(3), 0.3)
    u = np.random.default_rng(0).normal(size=20)
    found = control.forced_response(to_control(system), inputs=u, timepts=np.arange(20))
    np.testing.assert_allclose(found.outputs, scan(system, u)[0], atol=1e-12)


def test_transfer_functions_of_control():
    assert from_control(control.TransferFunction([1.0, 0.5, 0.25], [1.0, -0.9, 0.3], 1)).discrete


def test_control_holds_real_systems():
    with pytest.raises(ssm_core.DTypeError, match=r"^to_control: the system is complex.*conj_pairs=True"):
        to_control(reference.diagonal(3, conj_pairs=False))


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["scipy", "control"])
def test_missing_packages(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "scipy.signal", raising=False)
    to = to_scipy if package == "scipy" else to_control
    with pytest.raises(ssm_core.MissingPackageError, match=f"{package} is not installed. .*pip install {package}"):
        to(reference.dense(3))


one = np.ones(2)


@pytest.mark.parametrize(
    ("system", "error", "message"),
    [
        (reference.dense(3, batch=(2,)), ssm_core.ShapeError, r"without batch axes \(A: \(2, 3, 3\), B"),
        (Rational(np.ones((2, 1)), one), ssm_core.ShapeError, r"without batch axes \(numerator: \(2, 1\), "),
        (Rational(np.ones(1), np.ones((3, 2))), ssm_core.ShapeError, r"without batch axes \(.*\(3, 2\)"),
        (Rational(np.ones(1), one, np.ones(2)), ssm_core.ShapeError, r"without batch axes \(.*D: \(2,\)\)"),
        (Diagonal(-one, one), ssm_core.OptionError, "no output vector C"),
        (Diagonal(-one, np.ones((2, 3)), one, 0.5), ssm_core.ShapeError, "D = 0.5 is one number, .* 3 inputs"),
        (Diagonal(np.full(2, np.inf), one, one), ssm_core.DomainError, "poles holds NaN or inf"),
        (3.0, ssm_core.DTypeError, "a float is no system"),
    ],
)
def test_refused(system: Any, error: type, message: str):
    with pytest.raises(error, match=f"^to_scipy: .*{message}"):
        to_scipy(system)


def test_refused_on_the_way_back():
    with pytest.raises(ssm_core.DTypeError, match=r"^from_scipy: a tuple is no system of scipy\.signal"):
        from_scipy((1, 2, 3))
    with pytest.raises(ssm_core.DTypeError, match=r"^from_control: a tuple is no system of python-control"):
        from_control((1, 2, 3))
    with pytest.raises(ssm_core.DomainError, match=r"^from_scipy: A holds NaN"):
        from_scipy(scipy.signal.StateSpace([[np.nan]], [[1.0]], [[1.0]], [[0.0]]))
    with pytest.raises(ssm_core.DomainError, match=r"^from_scipy: .*no state space.*Improper.*pole far beyond"):
        from_scipy(scipy.signal.TransferFunction([1.0, 2.0, 3.0], [1.0, 2.0]))
    with pytest.raises(ssm_core.DomainError, match=r"^from_control: .*no state space.*pole far beyond"):
        from_control(control.TransferFunction([1.0, 2.0, 3.0], [1.0, 2.0]))
    if importlib.util.find_spec("slycot") is None:
        with pytest.raises(ssm_core.MissingPackageError, match=r"^from_control: .*pip install slycot"):
            from_control(control.TransferFunction([[[1.0], [2.0]]], [[[1.0, 0.5], [1.0, 0.2]]]))
    with pytest.raises(ssm_core.MissingPackageError, match=r"^from_scipy: .*no_such"):
        from_scipy(to_scipy(reference.dense(2)), xp="no_such")
