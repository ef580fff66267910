"""Fused implementations against the generic bodies: every path they choose between, by width, length and layout."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest

import ssm_core
from ssm_core import linear_scan
from ssm_core._arrays.dispatch import is_open, is_traced, load
from ssm_core.functions.matrix_exponential import expm
from ssm_core.recurrences.linear import checked_scan
from ssm_core.time_invariant.steps import diagonal_stepper

pytestmark = pytest.mark.usefixtures("quick_compilation")

FRAMEWORKS = ("numpy", "torch", "jax")


@pytest.fixture(params=FRAMEWORKS)
def xp(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip(request.param)
    return load(request.param).NAMESPACE


def draw(*shape: int, complex_: bool = False, seed: int = 0) -> np.ndarray:
    """In single precision, which every framework has."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, shape)
    return (x + 1j * rng.uniform(-1, 1, shape)).astype(np.complex64) if complex_ else x.astype(np.float32)


def exact(a: Any, b: Any, initial: Any = None, reverse: bool = False) -> np.ndarray:
    """The generic body in double precision, time on axis 0."""
    a, b, initial = (x if x is None else x.astype(np.result_type(x.dtype, np.float64)) for x in (a, b, initial))
    return linear_scan(a, b, axis=0, initial=initial, reverse=reverse, backend="generic")


# NumPy and PyTorch go in blocks from 64 steps on below 2048 numbers a step; blocks may be whole or broken.
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("width", [(), (3, 2), (2047,), (2048,)])
@pytest.mark.parametrize("length", [1, 63, 64, 77])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_scan_around_the_switches(framework: str, length: int, width: tuple[int, ...], reverse: bool):
    pytest.importorskip(framework)
    xp = load(framework).NAMESPACE
    b, x = draw(length, *width), draw(*width, seed=2)
    for gate in (draw(length, *width, seed=1), draw(*(1,) * (1 + len(width)), seed=1)):
        found = linear_scan(xp.asarray(gate), xp.asarray(b), axis=0, initial=xp.asarray(x), reverse=reverse)
        np.testing.assert_allclose(found, exact(gate, b, x, reverse), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("gate", [(70, 3), (1, 1)])
def test_complex_scans_and_broadcast_gates(gate: tuple[int, int], reverse: bool, xp: Any):
    a, b, x = draw(*gate, complex_=True), draw(70, 3, complex_=True, seed=1), draw(3, complex_=True, seed=2)
    found = linear_scan(xp.asarray(a), xp.asarray(b), axis=0, initial=xp.asarray(x), reverse=reverse)
    np.testing.assert_allclose(found, exact(a, b, x, reverse), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [1, 2])
def test_scans_of_every_axis(axis: int, xp: Any):
    a, b = draw(5, 70, 4), draw(5, 70, 4, seed=1)
    found = linear_scan(xp.asarray(a), xp.asarray(b), axis=axis)
    wanted = np.moveaxis(exact(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)), 0, axis)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [10, 100])
@pytest.mark.parametrize("gate", ["constant", "per step"])
def test_products_that_overflow_meet_a_state_of_zero(gate: str, length: int, reverse: bool, xp: Any):
    """Nothing is carried until the last steps, so no product of gates may show: that of 8 steps is not finite."""
    b = np.zeros((length, 2), np.float32)
    start = 2 if reverse else length - 3
    b[start] = 1.0
    a = np.full((1 if gate == "constant" else length, 1), 1e6, np.float32)
    wanted = np.zeros_like(b)
    last = slice(start, None, -1) if reverse else slice(start, None)
    wanted[last] = 1e6 ** np.arange(3)[:, None]
    found = linear_scan(xp.asarray(a), xp.asarray(b), axis=0, reverse=reverse)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_overflow_in_one_column_does_not_touch_another(xp: Any):
    a = np.asarray([[1e6, 0.5]], np.float32)
    b = np.zeros((400, 2), np.float32)
    b[0, 1] = b[-1, 0] = 1.0
    found = np.asarray(linear_scan(xp.asarray(a), xp.asarray(b), axis=0))
    np.testing.assert_array_equal(found[:, 0], b[:, 0])
    np.testing.assert_allclose(found[:, 1], 0.5 ** np.arange(400), rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_spreads_forward_only(bad: float, xp: Any):
    a, b = np.full((100, 2), 0.5, np.float32), np.ones((100, 2), np.float32)
    b[50, 0] = bad
    found = np.asarray(checked_scan("linear_scan", xp.asarray(a), xp.asarray(b), axis=0))
    assert np.isfinite(found[:50]).all()
    assert np.isfinite(found[:, 1]).all()
    assert not np.isfinite(found[50:, 0]).any()


def test_gates_of_zero(xp: Any):
    a, b = draw(100, 3), np.ones((100, 3), np.float32)
    a[::7] = 0
    found = linear_scan(xp.asarray(a), xp.asarray(b), axis=0)
    np.testing.assert_allclose(found, exact(a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [3, 2100])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_memory_layouts_of_numpy(order: tuple[int, int], width: int):
    a, b = draw(100, width), draw(100, width, seed=1)
    wanted = exact(a, b)
    for layout in (np.ascontiguousarray, np.asfortranarray, lambda x: np.repeat(x, 2, 1)[:, ::2], lambda x: x[::-1]):
        x, y = layout(a), layout(b)
        np.testing.assert_allclose(
            linear_scan(x.transpose(order), y.transpose(order), axis=order.index(0)).transpose(order),
            exact(x, y) if x[0, 0] != a[0, 0] else wanted,
            rtol=1e-3,
            atol=1e-5,
        )


def test_memory_layouts_of_torch():
    torch = pytest.importorskip("torch")
    a, b = torch.from_numpy(draw(100, 6)), torch.from_numpy(draw(100, 6, complex_=True, seed=1))
    for x, y in (
        (a.T.contiguous().T, b.T.contiguous().T),
        (a[::2, ::2], b[::2, ::2]),
        (a.expand(2, 100, 6)[1], b.conj()),
        (a[:, :1].expand(100, 6), b.imag),
    ):
        found = linear_scan(x, y, axis=0)
        np.testing.assert_allclose(found, exact(x.numpy(), y.resolve_conj().numpy()), rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_torch(reverse: bool, complex_: bool):
    torch = pytest.importorskip("torch")
    arrays = [draw(*s, complex_=complex_, seed=i) for i, s in enumerate([(20, 2), (20, 2), (2,)])]
    leaves = [torch.tensor(x, requires_grad=True) for x in arrays]
    weights = torch.tensor(draw(20, 2, seed=3))

    def slopes(backend: str) -> Any:
        y = linear_scan(*leaves[:2], axis=0, initial=leaves[2], reverse=reverse, backend=backend)
        return torch.autograd.grad((weights * y.abs() ** 2).sum(), leaves)

    for fast, generic in zip(slopes("auto"), slopes("generic"), strict=True):
        torch.testing.assert_close(fast, generic, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_jax(reverse: bool):
    jax = pytest.importorskip("jax")
    arrays = [jax.numpy.asarray(draw(*s, complex_=True, seed=i)) for i, s in enumerate([(4, 2), (4, 2), (2,)])]

    def cost(backend: str) -> Callable[..., Any]:
        def f(a: Any, b: Any, x: Any) -> Any:
            y = linear_scan(a, b, axis=0, initial=x, reverse=reverse, backend=backend)
            return (abs(y) ** 2).sum()

        return jax.grad(f, (0, 1, 2))

    both = jax.jit(lambda *arrays: [cost(backend)(*arrays) for backend in ("auto", "generic")])
    for fast, generic in zip(*both(*arrays), strict=True):
        np.testing.assert_allclose(fast, generic, rtol=1e-3, atol=1e-4)


# PyTorch compiles the formulas of forward mode by means that it deprecates.
deprecated_by_torch = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@deprecated_by_torch
def test_torch_scan_passes_gradcheck_in_both_modes():
    torch = pytest.importorskip("torch")
    for gate in ((4, 1), (1, 2)):
        arrays = [
            torch.tensor(draw(*s, complex_=True, seed=i), dtype=torch.complex128, requires_grad=True)
            for i, s in enumerate([gate, (4, 2), (2,)])
        ]
        for reverse in (False, True):

            def f(a: Any, b: Any, x: Any, reverse: bool = reverse) -> Any:
                return linear_scan(a, b, axis=0, initial=x, reverse=reverse)

            assert torch.autograd.gradcheck(f, arrays, check_forward_ad=True)


def test_torch_gradients_in_blocks():
    torch = pytest.importorskip("torch")
    a, b = (torch.tensor(draw(100, 3, seed=i), dtype=torch.float64, requires_grad=True) for i in range(2))
    for reverse in (False, True):
        found, wanted = (
            torch.autograd.grad((linear_scan(a, b, axis=0, reverse=reverse, backend=k) ** 2).sum(), (a, b))
            for k in ("auto", "generic")
        )
        for x, y in zip(found, wanted, strict=True):
            torch.testing.assert_close(x, y)


@deprecated_by_torch
def test_torch_scan_under_vmap_and_jvp():
    torch = pytest.importorskip("torch")
    a, b = (torch.tensor(draw(4, 6, seed=i), dtype=torch.float64) for i in range(2))

    def f(a: Any, b: Any) -> Any:
        return linear_scan(a, b, axis=0)

    torch.testing.assert_close(torch.func.vmap(f)(a, b), linear_scan(a, b, axis=1))
    torch.testing.assert_close(torch.func.vmap(f, (None, 0))(a[0], b), linear_scan(a[:1], b, axis=1))
    torch.testing.assert_close(torch.func.vmap(f, (0, None), 1)(a, b[0]), linear_scan(a, b[:1], axis=1).T)
    ones, step = torch.ones_like(a[0]), 1e-6
    _, slope = torch.func.jvp(f, (a[0], b[0]), (ones, 0 * ones))
    wanted = (f(a[0] + step, b[0]) - f(a[0] - step, b[0])) / (2 * step)
    torch.testing.assert_close(slope, wanted, atol=1e-8, rtol=1e-6)


def test_torch_scan_step_by_step(monkeypatch: pytest.MonkeyPatch):
    """Where PyTorch would not run through its lists in order, the steps are launched one by one."""
    torch = pytest.importorskip("torch")
    from ssm_core.backends.torch.scans import body as scans

    for constant in (False, True):
        a = torch.as_tensor(draw(1 if constant else 9, 2), dtype=torch.complex128).requires_grad_()
        b = torch.as_tensor(draw(9, 2, seed=1), dtype=torch.complex128).requires_grad_()

        def run() -> Any:
            x = linear_scan(a, b, axis=0, reverse=True)  # noqa: B023
            return x, *torch.autograd.grad(x.abs().sum(), (a, b))  # noqa: B023

        assert scans._lists_run_in_order()
        wanted = run()
        with monkeypatch.context() as patch:
            patch.setattr(scans, "_lists_run_in_order", lambda: False)
            found = run()
        torch.testing.assert_close(found, wanted)


# ------------------------------------------------------------------------------------------------- the other functions


@pytest.mark.parametrize("name", ["erf", "sigmoid", "softplus", "gelu", "silu"])
@pytest.mark.parametrize("size", [7, 5000])
def test_functions(name: str, size: int, xp: Any):
    x = np.linspace(-30, 30, size).astype(np.float32)
    function = getattr(ssm_core.special, name)
    found = np.asarray(function(xp.asarray(x)))
    with ssm_core.use_backend("generic"):
        wanted = function(x.astype(np.float64))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_functions_of_scalars_and_nothing(xp: Any):
    for shape in ((), (2, 0)):
        for name in ("erf", "sigmoid", "softplus", "gelu"):
            assert getattr(ssm_core.special, name)(xp.ones(shape, dtype=xp.float32)).shape == shape


def test_exponentials(xp: Any):
    A = draw(3, 4, 4) * np.asarray([0.1, 1.0, 20.0], np.float32)[:, None, None]
    with ssm_core.use_backend("generic"):
        wanted = expm(A.astype(np.float64))
    scale = np.abs(wanted).max(axis=(-1, -2), keepdims=True)
    np.testing.assert_allclose(np.asarray(expm(xp.asarray(A))) / scale, wanted / scale, atol=2e-5)


@pytest.mark.parametrize(
    ("complex_", "conj_pairs", "several_outputs"),
    [(True, True, False), (True, True, True), (True, False, False), (False, False, False), (False, True, True)],
)
def test_steppers(complex_: bool, conj_pairs: bool, several_outputs: bool, xp: Any):
    H, N = 3, 4
    poles, B = draw(H, N, complex_=complex_), draw(H, N, complex_=complex_, seed=1)
    C = draw(H, *((2,) if several_outputs else ()), N, complex_=complex_, seed=2)
    state, u = draw(5, H, N, complex_=complex_, seed=3), draw(5, H, seed=4)
    options = {"conj_pairs": conj_pairs, "several_outputs": several_outputs}
    step = diagonal_stepper(*map(xp.asarray, (poles, B, C)), **options)
    found = step(xp.asarray(state), xp.asarray(u))
    after = poles * state + B * u[..., None]
    y = np.sum(C * (after[..., None, :] if several_outputs else after), axis=-1)
    wanted = after, 2 * y.real if conj_pairs else y
    for x, z in zip(found, wanted, strict=True):
        assert x.shape == z.shape
        np.testing.assert_allclose(np.asarray(x), z, rtol=1e-4, atol=1e-5)


def test_steppers_share_a_real_input_map(xp: Any):
    """B may be real beside complex poles, and broadcast."""
    poles, C, state = (draw(3, 4, complex_=True, seed=i) for i in range(3))
    for B in (np.ones((3, 4), np.float32), np.ones((1, 1), np.float32)):
        step = diagonal_stepper(xp.asarray(poles), xp.asarray(B), xp.asarray(C), conj_pairs=True, several_outputs=False)
        after, y = step(xp.asarray(state), xp.asarray(np.ones(3, np.float32)))
        np.testing.assert_allclose(np.asarray(after), poles * state + 1, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.asarray(y), 2 * np.sum(C * (poles * state + 1), -1).real, rtol=1e-4, atol=1e-5)


def test_devices_and_traces_are_reported(xp: Any):
    here = (load(name) for name in FRAMEWORKS if find_spec(name) is not None)
    module = next(module for module in here if module.NAMESPACE is xp)
    assert "cpu" in module.devices() or "cuda" in module.devices()
    assert not is_traced(xp.ones(1))
    assert not is_open(xp.ones(1), 1)


def test_the_numpy_namespace_is_that_of_array_api_compat():
    assert load("numpy").NAMESPACE is array_api_compat.numpy


def test_unknown_attributes():
    with pytest.raises(AttributeError, match=r"module 'ssm_core\.backends' has no attribute 'tensorflow'"):
        getattr(ssm_core.backends, "tensorflow")  # noqa: B009
    assert {"numpy", "torch", "jax", "cupy"} <= set(dir(ssm_core.backends))
