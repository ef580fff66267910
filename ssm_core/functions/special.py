"""Functions that the array API standard lacks: phi1, erf and the activations.

They take real floating arrays (phi1 complex ones too) of any library, keep shape and dtype, and compute half
precision in float32. What a `where` discards is evaluated at a harmless argument: if it overflowed there, its
gradient would be 0 * inf = NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from array_api_compat import array_namespace

from .._arrays.dispatch import dispatched
from .._arrays.errors import unknown
from .._arrays.library import Array, computable, dtype_name, floating, is_half, namespace, real_floating


def phi1(z: Array) -> Array:
    """The first exponential-integrator function, to the last digits in value and gradient at and near 0.

    phi1(z) = (e^z - 1) / z = 1/1! + z/2! + z^2/3! + ...,    phi1(0) = 1

    The series serves |z| < 1 and the quotient the rest. A quotient with expm1 would be right in value near 0,
    but not in its derivative, which cancels.

    z        (...)  real or complex floating
    returns  (...)  dtype of z

    Raises DTypeError for integers and for what is no array.
    Source: Hochbruck and Ostermann, Exponential integrators, Acta Numerica 2010.

    >>> import numpy, ssm_core
    >>> ssm_core.special.phi1(numpy.asarray([0.0, 1.0, -1.0])).round(6)
    array([1.      , 1.718282, 0.632121])
    """
    xp = namespace("phi1", z=z)
    floating("phi1", z=z)
    w = computable(z, xp)
    small = xp.abs(w) < 1
    near = _polynomial(xp.where(small, w, 0.0), _phi1_series(w))
    far = xp.where(small, 1.0, w)
    y = xp.where(small, near, xp.exp(far) - 1) / far  # dividing last: XLA would repeat the polynomial for every use
    return xp.astype(y, z.dtype) if is_half(z) else y


def erf(x: Array) -> Array:
    """The error function, to 1e-15 in float64.

    erf(x) = 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x

    x        (...)  real floating
    returns  (...)  dtype of x

    Raises DTypeError for integers, complex numbers and for what is no array.
    Source: Cody, Rational Chebyshev approximations for the error function, Math. Comp. 1969.

    >>> import numpy, ssm_core
    >>> ssm_core.special.erf(numpy.asarray([-1.0, 0.0, 0.5])).round(6)
    array([-0.842701,  0.      ,  0.5205  ])
    """
    return _elementwise("erf", _erf, x)


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow and with relative accuracy in the left tail.

    sigmoid(x) = 1 / (1 + exp(-x))

    x        (...)  real floating
    returns  (...)  dtype of x

    Raises DTypeError for integers, complex numbers and for what is no array.

    >>> import numpy, ssm_core
    >>> ssm_core.special.sigmoid(numpy.asarray([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return _elementwise("sigmoid", _sigmoid, x)


def softplus(x: Array) -> Array:
    """The smooth ramp, without overflow and without a threshold.

    softplus(x) = log(1 + exp(x)),    softplus'(x) = sigmoid(x)

    x        (...)  real floating
    returns  (...)  dtype of x

    Raises DTypeError for integers, complex numbers and for what is no array.

    >>> import numpy, ssm_core
    >>> ssm_core.special.softplus(numpy.asarray([-1000.0, 0.0, 30.0])).round(6)
    array([ 0.      ,  0.693147, 30.      ])
    """
    return _elementwise("softplus", _softplus, x)


def gelu(x: Array, approximate: str = "none") -> Array:
    """The Gaussian error linear unit: x times the normal distribution function.

    "none"  x/2 (1 + erf(x / sqrt(2)))
    "tanh"  x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), within 5e-4 of it

    x            (...)  real floating
    approximate  "none" or "tanh"
    returns      (...)  dtype of x

    Raises DTypeError for integers, complex numbers and for what is no array, OptionError for another form.
    Source: Hendrycks and Gimpel, Gaussian error linear units, 2016.

    >>> import numpy, ssm_core
    >>> ssm_core.special.gelu(numpy.asarray([-1.0, 0.0, 1.0])).round(6)
    array([-0.158655,  0.      ,  0.841345])
    """
    if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
        raise unknown("gelu", "approximate", approximate, ("none", "tanh"))
    return _elementwise("gelu", _gelu, x, approximate=approximate)


def silu(x: Array) -> Array:
    """The sigmoid linear unit, also called swish.

    silu(x) = x sigmoid(x)

    x        (...)  real floating
    returns  (...)  dtype of x

    Raises DTypeError for integers, complex numbers and for what is no array.
    Source: Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, 2017.

    >>> import numpy, ssm_core
    >>> ssm_core.special.silu(numpy.asarray([-1.0, 0.0, 1.0])).round(6)
    array([-0.268941,  0.      ,  0.731059])
    """
    return _elementwise("silu", _silu, x)


def relu(x: Array) -> Array:
    """The ramp max(x, 0), whose derivative at 0 is taken to be 0.

    x        (...)  real floating
    returns  (...)  dtype of x

    Raises DTypeError for integers, complex numbers and for what is no array.

    >>> import numpy, ssm_core
    >>> ssm_core.special.relu(numpy.asarray([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return _elementwise("relu", _relu, x)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent of the array's own library, with the checks of this module.

    x        (...)  real floating
    returns  (...)  dtype of x

    Raises DTypeError for integers, complex numbers and for what is no array.

    >>> import numpy, ssm_core
    >>> ssm_core.special.tanh(numpy.asarray([0.0, 1.0])).round(6)
    array([0.      , 0.761594])
    """
    return _elementwise("tanh", _tanh, x)


def _elementwise(operation: str, body: Callable[..., Array], x: Array, **options: Any) -> Array:
    xp = namespace(operation, x=x)
    real_floating(operation, x=x)
    y = body(computable(x, xp), **options)
    return xp.astype(y, x.dtype) if is_half(x) else y


def _polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """Horner's rule, highest power first."""
    result: Any = coefficients[0]
    for c in coefficients[1:]:
        result = result * x + c
    return result


def _phi1_series(z: Array) -> list[float]:
    """1/n!, ..., 1/2!, 1/1!, so many that at |z| = 1 the remainder, differentiated too, is below rounding."""
    terms = 20 if dtype_name(z) in ("float64", "complex128") else 11
    return [1 / math.factorial(k) for k in range(terms, 0, -1)]


# erf(x) = x N(x^2) / D(x^2) for |x| <= 15/32
_ERF_N = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
          3.20937758913846947e3)  # fmt: skip
_ERF_D = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)

# 1 - erf(x) = exp(-x^2) N(x) / D(x) for x >= 15/32: to rounding up to 4, relatively to 1e-11 up to 7
_ERFC_N = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
           2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
           1.23033935479799725e3)  # fmt: skip
_ERFC_D = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
           3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
           1.23033935480374942e3)  # fmt: skip

_ERF_SPLIT = 0.46875
_ERF_END = 30.0  # exp(-900) = 0 in float64


@dispatched
def _erf(x: Array) -> Array:
    xp = array_namespace(x)
    small = xp.abs(x) <= _ERF_SPLIT
    near = xp.where(small, x, 0.0)
    far = xp.where(small, 1.0, xp.clip(xp.abs(x), 0.0, _ERF_END))
    square = near * near
    erf_near = near * _polynomial(square, _ERF_N) / _polynomial(square, _ERF_D)
    erfc_far = xp.exp(-far * far) * (_polynomial(far, _ERFC_N) / _polynomial(far, _ERFC_D))
    return xp.where(small, erf_near, xp.sign(x) * (1 - erfc_far))


@dispatched
def _sigmoid(x: Array) -> Array:
    xp = array_namespace(x)
    right = x >= 0
    decay = xp.exp(xp.where(right, -x, x))
    return xp.where(right, 1.0, decay) / (1 + decay)


@dispatched
def _softplus(x: Array) -> Array:
    xp = array_namespace(x)
    right = x >= 0
    return xp.where(right, x, 0.0) + xp.log1p(xp.exp(xp.where(right, -x, x)))


@dispatched
def _gelu(x: Array, *, approximate: str) -> Array:
    if approximate == "none":
        return 0.5 * x * (1 + _erf(x * math.sqrt(0.5)))
    # (1 + tanh z) / 2 = sigmoid(2 z), whose small values are not differences.
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


@dispatched
def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _tanh(x: Array) -> Array:
    return array_namespace(x).tanh(x)


@dispatched
def _relu(x: Array) -> Array:
    return array_namespace(x).where(x <= 0, 0.0, x)


def activation(name: str | None) -> Callable[[Array], Array]:
    """The activation function of a name; None is the identity.

    name     "gelu", "gelu_tanh", "silu", "relu", "sigmoid", "softplus", "tanh" or None
    returns  a function of one real array of at least float32, which it does not check

    Raises OptionError for another name.

    >>> import numpy, ssm_core
    >>> ssm_core.special.activation("relu")(numpy.asarray([-1.0, 2.0]))
    array([0., 2.])
    """
    if not isinstance(name, str | None) or name not in _ACTIVATIONS:
        raise unknown("activation", "name", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]


def _identity(x: Array) -> Array:
    return x


_ACTIVATIONS: dict[str | None, Callable[[Array], Array]] = {
    "gelu": partial(_gelu, approximate="none"),
    "gelu_tanh": partial(_gelu, approximate="tanh"),
    "silu": _silu,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "tanh": _tanh,
    None: _identity,
}
ACTIVATIONS = tuple(_ACTIVATIONS)
