"""Derivatives: forward and reverse, first and second, against finite differences of the plain truth.

The differences are taken of what the loops of `truth` compute, so that value and derivative are held against the same
independent function.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest

import ssm_core
from ssm_core.functions import special

from . import autodiff, examples
from .backends import Backend
from .cases import duality, functions, layers, models, systems
from .cases.functions import Case
from .cases.systems import run_case
from .examples import DENSE, MIMO, PAIRS, Draw
from .tolerances import assert_close, compare

pytestmark = [
    pytest.mark.backends(*autodiff.FRAMEWORKS),
    pytest.mark.dtypes("float64"),
    # PyTorch's own forward mode uses it.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

FIRST, SECOND = 1e-7, 1e-5  # what the finite differences can tell
MODES = tuple(run_case(example, 12, mode) for example in (PAIRS, MIMO) for mode in ("conv", "chunk", "scan"))
SINGLE = tuple(
    case for case in functions.SPECIAL if case.function in ("special.phi1", "special.gelu", "special.softplus")
)
SMOOTH = (
    *functions.LINEAR_SCAN, *functions.CHUNK_SUMMARY, *functions.CONVOLVE[:3], *functions.EXPM[:1], *SINGLE,
    *(case for case in systems.DISCRETIZE if "tiny" not in case.name),
    *systems.KERNEL, *MODES, run_case(DENSE, 12, "chunk"), *systems.STEP,
    *systems.DIAGONAL_SCAN, *systems.FREQUENCY[:2], *systems.SELECTIVE,
    *systems.DUALITY, *systems.DECAY, *systems.DELTA, *systems.VECTORS, *layers.SMALL, *models.ALL,
)  # fmt: skip
# Compiling takes a second or more for each: one of every kind where the function has several.
COMPILED = (
    *functions.LINEAR_SCAN, functions.CHUNK_SUMMARY[0], functions.CONVOLVE[2], *functions.EXPM[:1], *SINGLE[:1],
    *systems.DISCRETIZE[:2], *systems.KERNEL[:1], *MODES[:3], *systems.DIAGONAL_SCAN[:3],
    *(case for case in (*systems.SELECTIVE, *systems.DUALITY) if "everything" in case.name),
    *duality.MAMBA3[2:3], *duality.CAUSAL_CONV1D[:1], *duality.RMS_NORM[1:2],
    *duality.STATE_UPDATE[:1], layers.LAYERS["S4D"].small_cases[0], *layers.LAYERS["S4"].small_cases,
)  # fmt: skip


def floating(arrays: SimpleNamespace) -> list[str]:
    return [n for n, x in vars(arrays).items() if hasattr(x, "dtype") and str(x.dtype).rpartition(".")[2][0] in "fc"]


def direction(values: SimpleNamespace, names: list[str], d: Draw) -> dict[str, np.ndarray]:
    """A random tangent for every input."""
    inputs = {name: getattr(values, name) for name in names}
    return {name: (d.complex if np.iscomplexobj(x) else d.real)(*x.shape) for name, x in inputs.items()}


@pytest.mark.cases(SMOOTH)
@pytest.mark.backends("torch")
@pytest.mark.dtypes("float64", "complex128")
def test_against_finite_differences(case: Case, backend: Backend, dtype: str):
    check_derivatives(case, backend, dtype)


@pytest.mark.cases(COMPILED)
@pytest.mark.backends("jax")
@pytest.mark.dtypes("float64", "complex128")
def test_against_finite_differences_under_jit(case: Case, backend: Backend, dtype: str):
    check_derivatives(case, backend, dtype)


def check_derivatives(case: Case, backend: Backend, dtype: str) -> None:
    """Along a random direction, which has a part in every entry of every input."""
    d = Draw(9)
    arrays, values = case.inputs(backend, dtype)
    names = floating(arrays)
    t = direction(values, names, d)
    weights = tuple((d.complex if np.iscomplexobj(y) else d.real)(*y.shape) for y in case.expected(values))

    def plain(x: dict[str, Any]) -> tuple[Any, ...]:
        return case.expected(SimpleNamespace(**vars(values) | x))

    def fast(x: dict[str, Any]) -> tuple[Any, ...]:
        found = case.call(SimpleNamespace(**vars(arrays) | x))
        return found if isinstance(found, tuple) else (found,)

    wanted = autodiff.differences(plain, {n: getattr(values, n) for n in names}, t, weights)
    found = autodiff.along(
        backend, fast, {n: getattr(arrays, n) for n in names}, {n: backend.asarray(x) for n, x in t.items()},
        tuple(backend.asarray(c) for c in weights),
    )  # fmt: skip
    function = f"{case.function} (derivatives)"
    for actual, expected in zip(found.forward, wanted.forward, strict=True):
        assert_close(actual, expected, backend, dtype, function=function, allowed=FIRST)
    scale = abs(wanted.reverse) + abs(wanted.second)
    for name, allowed in (("reverse", FIRST), ("second", SECOND)):
        actual, expected = backend.to_numpy(getattr(found, name)), np.asarray(getattr(wanted, name))
        compare(actual, expected, backend, dtype, function=function, allowed=allowed, scale=scale)


# The linear scan, whose derivatives are written by hand --------------------------------------------------------------


def variants(*axes: int) -> Any:
    """time axis x gate constant in time x reverse x initial state."""
    found = list(itertools.product(axes, (False, True), (False, True), (False, True)))
    return pytest.mark.parametrize(("axis", "constant", "reverse", "initial"), found)


def scan_variant(
    axis: int, constant: bool, reverse: bool, initial: bool, backend: Backend, dtype: str
) -> tuple[Any, tuple[Any, ...]]:
    """The scan as a function of gate, input and maybe the first state, and those."""
    d = Draw(2, dtype)
    shape = (2, 5) if axis else (5, 2)
    gate = shape if not constant else (2, 1) if axis else (1, 2)
    inputs = [d.gates(*gate), d.signal(*shape), *([d.signal(2)] if initial else [])]

    def scan(a: Any, b: Any, first: Any = None) -> Any:
        return ssm_core.linear_scan(a, b, axis=axis, initial=first, reverse=reverse)

    return scan, tuple(backend.asarray(x, dtype) for x in inputs)


@variants(0, 1)
@pytest.mark.backends("torch")
@pytest.mark.dtypes("float64", "complex128")
def test_linear_scan_in_torch(
    axis: int, constant: bool, reverse: bool, initial: bool, backend: Backend, dtype: str
):  # fmt: skip
    """Every entry of both Jacobians, of batches of them, and of the second derivatives."""
    scan, inputs = scan_variant(axis, constant, reverse, initial, backend, dtype)
    inputs, check = tuple(x.requires_grad_() for x in inputs), backend.module.autograd
    assert check.gradcheck(scan, inputs, check_forward_ad=True, check_batched_grad=True)
    assert check.gradgradcheck(scan, inputs)


@variants(0)
@pytest.mark.backends("jax")
@pytest.mark.dtypes("complex128")
def test_linear_scan_in_jax(axis: int, constant: bool, reverse: bool, initial: bool, backend: Backend, dtype: str):
    from jax.test_util import check_grads

    scan, inputs = scan_variant(axis, constant, reverse, initial, backend, dtype)
    check_grads(backend.module.jit(scan), inputs, order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)


# Where a naive formula loses its digits ------------------------------------------------------------------------------


@pytest.mark.dtypes("float32", "float64", "complex64", "complex128")
def test_phi1_and_its_derivative_near_zero(backend: Backend, dtype: str):
    """phi1'(z) = (e^z (z - 1) + 1) / z^2, which is 1/2 at 0; relative to each value."""
    z = np.asarray([0.0, 1e-30, 1e-12, -1e-8, 5e-4, -1e-3, 0.1, -0.9, 0.999, 1.001, -2.0])
    z = z * np.exp(0.4j) if dtype.startswith("complex") else z
    v = examples.as_arrays(backend, dtype, {"z": z, "t": np.ones_like(z)})
    values = examples.rounded(backend, v)

    def derivative(x: Any) -> Any:
        with mpmath.workdps(120):
            return mpmath.mpf("0.5") if x == 0 else (mpmath.exp(x) * (x - 1) + 1) / x**2

    with mpmath.workdps(120):
        kind: Any = complex if dtype.startswith("complex") else float
        expected = np.array([kind(derivative(mpmath.mpmathify(kind(x)))) for x in values.z])
    weights = (np.ones_like(z),)
    forward = autodiff.along(
        backend, lambda x: (special.phi1(x["z"]),), {"z": v.z}, {"z": v.t},
        tuple(backend.asarray(c, str(v.z.dtype).rpartition(".")[2]) for c in weights),
    ).forward[0]  # fmt: skip
    compare(backend.to_numpy(forward) / expected, np.ones_like(expected), backend, dtype, function="special.phi1")


@pytest.mark.parametrize("step", [1e-12, 1e-7, 1e-4])
def test_zoh_of_tiny_steps(step: float, backend: Backend, dtype: str):
    """d Bb / d dt = exp(dt A) B and d Bb / d A -> dt^2 / 2 B, however small dt A is."""
    poles, dt = np.asarray([-0.5 + 2j, -1e-9 + 0j]), np.asarray(step)

    def held(x: dict[str, Any]) -> tuple[Any]:
        system = ssm_core.Diagonal(x["poles"], x["poles"] * 0 + 1)
        return (ssm_core.discretize(system, x["dt"]).B,)

    at = {"poles": backend.asarray(poles), "dt": backend.asarray(dt)}
    weights = (backend.asarray(np.ones(2, complex)),)
    zero = {"poles": backend.asarray(0 * poles), "dt": backend.asarray(0 * dt)}
    of_dt = autodiff.along(backend, held, at, zero | {"dt": backend.asarray(np.ones(()))}, weights).forward[0]
    assert_close(of_dt, np.exp(dt * poles), backend, dtype, function="discretize")
    of_poles = autodiff.along(backend, held, at, zero | {"poles": backend.asarray(np.ones(2, complex))}, weights)
    z = dt * poles
    wanted = dt**2 * (1 / 2 + z / 3 + z**2 / 8 + z**3 / 30 + z**4 / 144)
    assert_close(of_poles.forward[0], wanted, backend, dtype, function="discretize")


# The frameworks against each other -----------------------------------------------------------------------------------


@pytest.mark.backends("jax")
@pytest.mark.cases((*layers.SMALL, *models.ALL))
@pytest.mark.dtypes("float32", "float64")
def test_torch_and_jax_agree_on_real_leaves(case: Case, backend: Backend, torch_too: Backend, dtype: str):
    gradients = []
    for framework in (torch_too, backend):
        arrays, _ = case.inputs(framework, dtype)
        names = [n for n in floating(arrays) if not n.startswith("state_")]

        def loss(x: dict[str, Any], arrays: Any = arrays, xp: Any = framework.xp) -> Any:
            found = case.call(SimpleNamespace(**vars(arrays) | x))
            y = found[0] if isinstance(found, tuple) else found
            return xp.sum(xp.sin(y))

        found = autodiff.gradient(framework, loss, {n: getattr(arrays, n) for n in names})
        gradients.append({n: framework.to_numpy(g) for n, g in found.items()})
    for name, actual in gradients[1].items():
        compare(actual, gradients[0][name], backend, dtype, function=case.function, terms=case.terms**2)


@pytest.mark.backends("jax")
@pytest.mark.dtypes("complex128")
def test_complex_gradients_are_conjugates_of_each_other(backend: Backend, torch_too: Backend, dtype: str):
    """PyTorch returns dL/dRe + i dL/dIm, and JAX its conjugate, for every complex leaf of a scan."""
    d = Draw(3, dtype)
    inputs = {"a": d.gates(6, 2), "b": d.signal(6, 2), "first": d.signal(2)}
    gradients = []
    for framework in (torch_too, backend):
        xp = framework.xp

        def loss(x: dict[str, Any], xp: Any = xp) -> Any:
            states = ssm_core.linear_scan(x["a"], x["b"], axis=0, initial=x["first"])
            return xp.sum(xp.real(states) ** 2 + xp.imag(states) ** 3)

        found = autodiff.gradient(framework, loss, {n: framework.asarray(x) for n, x in inputs.items()})
        gradients.append({n: framework.to_numpy(g) for n, g in found.items()})
    for name in inputs:
        compare(gradients[1][name], gradients[0][name].conj(), backend, dtype, function="linear_scan", terms=6)
