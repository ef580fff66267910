"""phi1, erf and the activations against mpmath, in value and in gradient."""

from __future__ import annotations

import functools
from typing import Any

import mpmath
import numpy as np
import pytest

import ssm_core
from ssm_core.functions import special

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}

TRUTH = {
    "phi1": lambda x: mpmath.expm1(x) / x if x else mpmath.mpf(1),
    "erf": mpmath.erf,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "gelu_tanh": lambda x: x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "relu": lambda x: max(x, 0),
    "tanh": mpmath.tanh,
}
# Derivatives in closed form where mpmath's differences would meet the removable singularity at 0.
SLOPE = {"phi1": lambda x: (mpmath.exp(x) * (x - 1) + 1) / x**2 if x else mpmath.mpf("0.5")}

FUNCTIONS = {name: getattr(special, name) for name in TRUTH if name != "gelu_tanh"}
FUNCTIONS["gelu_tanh"] = functools.partial(special.gelu, approximate="tanh")

# Dense near 0 and near the seams of the branches, and far out on both sides.
SEAMS = np.asarray([1e-9, 1e-3, 0.468, 0.469, 0.999, 1.001, 40.0])
POINTS = np.concatenate([[0.0], np.linspace(-7, 7, 57), SEAMS, -SEAMS])


def truth(function: Any, points: Any, digits: int = 60) -> np.ndarray:
    """The function at every point, exactly as float64 or complex128 can hold it."""
    with mpmath.workdps(digits):
        values = [function(mpmath.mpmathify(x)) for x in np.asarray(points).tolist()]
        return np.asarray([complex(v) if isinstance(v, mpmath.mpc) else float(v) for v in values])


def slope(name: str, points: Any) -> np.ndarray:
    return truth(SLOPE.get(name, lambda x: mpmath.diff(TRUTH[name], x)), points)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TRUTH)
def test_value(name: str, dtype: str, xp: Any):
    x = POINTS.astype(dtype)
    y = FUNCTIONS[name](xp.asarray(x))
    wanted = truth(TRUTH[name], x)
    assert y.dtype == getattr(xp, dtype)
    np.testing.assert_allclose(np.asarray(y), wanted, rtol=4 * EPS[dtype], atol=4 * EPS[dtype])


@pytest.mark.parametrize("name", ["phi1", "sigmoid", "softplus", "silu"])
def test_left_tail_keeps_its_digits(name: str):
    x = np.linspace(-80, -5, 50)
    np.testing.assert_allclose(FUNCTIONS[name](x), truth(TRUTH[name], x), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_phi1_of_complex_numbers(dtype: str, xp: Any):
    radius = np.asarray([1e-12, 1e-6, 1e-3, 0.1, 0.999, 1.001, 5.0])
    z = radius * np.exp(1j * np.linspace(0, 2 * np.pi, 16)[:, None])
    z = np.concatenate([[0], z.ravel()]).astype(dtype)
    y = np.asarray(special.phi1(xp.asarray(z)))
    np.testing.assert_allclose(y, truth(TRUTH["phi1"], z), rtol=4 * EPS[dtype])


def test_far_out(xp: Any):
    x = xp.asarray([-xp.inf, -1e4, 1e4, xp.inf])
    np.testing.assert_array_equal(np.asarray(special.erf(x)), [-1, -1, 1, 1])
    np.testing.assert_array_equal(np.asarray(special.sigmoid(x)), [0, 0, 1, 1])
    np.testing.assert_array_equal(np.asarray(special.softplus(x)), [0, 0, 1e4, np.inf])
    np.testing.assert_array_equal(np.asarray(special.relu(x)), [0, 0, 1e4, np.inf])


@pytest.mark.parametrize("name", TRUTH)
def test_nan_stays_nan(name: str, xp: Any):
    assert np.isnan(np.asarray(FUNCTIONS[name](xp.asarray([xp.nan])))).all()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("name", TRUTH)
def test_any_shape(name: str, shape: tuple[int, ...], xp: Any):
    assert FUNCTIONS[name](xp.zeros(shape)).shape == shape


@pytest.mark.parametrize("name", TRUTH)
def test_half_precision_is_computed_in_single(name: str):
    x = np.linspace(-4, 4, 9, dtype=np.float16)
    y = FUNCTIONS[name](x)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, FUNCTIONS[name](x.astype(np.float32)).astype(np.float16))


@pytest.mark.parametrize("name", TRUTH)
def test_input_may_be_a_read_only_view(name: str):
    x = np.linspace(-2, 2, 12)
    x.flags.writeable = False
    np.testing.assert_array_equal(FUNCTIONS[name](x[::-3]), FUNCTIONS[name](x[::-3].copy()))


def torch_slope(function: Any, x: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(function(leaf).sum(), leaf)[0].numpy()


def jax_slope(function: Any, x: np.ndarray) -> np.ndarray:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.grad(lambda v: function(v).sum()))(x))


@pytest.mark.parametrize("backend", ["generic", "auto"])
@pytest.mark.parametrize("derivative", [torch_slope, jax_slope])
@pytest.mark.parametrize("name", TRUTH)
def test_gradient(name: str, derivative: Any, backend: str):
    x = POINTS[POINTS != 0] if name == "relu" else POINTS
    with ssm_core.use_backend(backend):
        found = derivative(FUNCTIONS[name], x)
    np.testing.assert_allclose(found, slope(name, x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("derivative", [torch_slope, jax_slope])
@pytest.mark.parametrize("name", ["erf", "sigmoid", "softplus", "gelu", "silu", "relu", "tanh"])
def test_gradient_far_out_is_finite(name: str, derivative: Any):
    with ssm_core.use_backend("generic"):
        found = derivative(FUNCTIONS[name], np.asarray([-1e4, 1e4], dtype=np.float32))
    np.testing.assert_array_equal(found, [0, 0] if name in ("erf", "sigmoid", "tanh") else [0, 1])


def test_gradient_of_phi1_near_zero_in_single():
    """A quotient with expm1 is wrong by 1e-3 here."""
    x = np.asarray([0, 1e-6, 5e-4, -5e-4, 0.1], dtype=np.float32)
    np.testing.assert_allclose(torch_slope(special.phi1, x), slope("phi1", x), rtol=5e-7)


def test_activation():
    x = np.linspace(-2, 2, 5)
    assert special.activation(None)(x) is x
    np.testing.assert_array_equal(special.activation("silu")(x), special.silu(x))
    np.testing.assert_array_equal(special.activation("gelu")(x), special.gelu(x))
    np.testing.assert_array_equal(special.activation("gelu_tanh")(x), special.gelu(x, approximate="tanh"))


@pytest.mark.parametrize("name", TRUTH)
def test_integers_are_refused(name: str, xp: Any):
    with pytest.raises(ssm_core.DTypeError, match=r"has dtype int\d+ \(shape \(3,\)\)"):
        FUNCTIONS[name](xp.arange(3))


@pytest.mark.parametrize("x", [[0.5], "0.5", 0.5, None, np.asarray(["a"]), np.asarray([None])])
@pytest.mark.parametrize("name", TRUTH)
def test_what_is_no_array_of_numbers_is_refused(name: str, x: Any):
    with pytest.raises(ssm_core.DTypeError, match=rf"^{name.partition('_')[0]}: "):
        FUNCTIONS[name](x)


@pytest.mark.parametrize("name", [name for name in TRUTH if name != "phi1"])
def test_complex_numbers_are_refused(name: str):
    with pytest.raises(ssm_core.DTypeError, match="must be real"):
        FUNCTIONS[name](np.ones(2, dtype=complex))


def test_unknown_names_are_refused():
    with pytest.raises(ssm_core.OptionError, match=r"unknown name 'swish'\. Known: 'gelu'"):
        special.activation("swish")
    with pytest.raises(ssm_core.OptionError, match=r"unknown approximate 'erf'\. Known: 'none', 'tanh'"):
        special.gelu(np.ones(2), approximate="erf")
    with pytest.raises(ssm_core.OptionError, match="unknown approximate"):
        special.gelu(np.ones(2), approximate=np.zeros(2))
