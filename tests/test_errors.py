"""One family of errors, which are also the built-in ones that a caller may already catch."""

from __future__ import annotations

import numpy as np
import pytest

import ssm_core
from ssm_core._arrays import errors as _errors
from ssm_core._arrays import shapes
from ssm_core._arrays import values as _values

FAMILY = {
    "ShapeError": ValueError,
    "DTypeError": TypeError,
    "OptionError": ValueError,
    "DomainError": ValueError,
    "MixedArraysError": TypeError,
    "MissingPackageError": ImportError,
}


@pytest.mark.parametrize(("name", "builtin"), FAMILY.items())
def test_family(name: str, builtin: type):
    error = getattr(ssm_core, name)
    assert issubclass(error, ssm_core.SSMError)
    assert issubclass(error, builtin)
    assert name in ssm_core.__all__
    assert error.__doc__


def test_shapes_and_values_are_described():
    described = _errors.describe(A=np.ones((8, 64)), dt=0.1, C=None, name="x")
    assert str(described) == "A: (8, 64), dt: 0.1, name: 'x'"


def test_unknown_names_list_the_known_ones():
    error = _errors.unknown("f", "mode", "fft", ("auto", None))
    assert isinstance(error, ssm_core.OptionError)
    assert str(error) == "f: unknown mode 'fft'. Known: 'auto', None."


@pytest.mark.parametrize(
    ("given", "common"),
    [
        ([], ()),
        ([(2, 3), (3,), ()], (2, 3)),
        ([(2, 1), (1, 3)], (2, 3)),
        ([(0, 1), (1, 3)], (0, 3)),
        ([(1,), (0,)], (0,)),
    ],
)
def test_common_shape(given: list[tuple[int, ...]], common: tuple[int, ...]):
    assert shapes.broadcast("f", **{f"x{i}": s for i, s in enumerate(given)}) == common == np.broadcast_shapes(*given)


@pytest.mark.parametrize("given", [[(2,), (3,)], [(2, 3), (2,)], [(0,), (2,)]])
def test_shapes_without_a_common_one_are_listed(given: list[tuple[int, ...]]):
    with pytest.raises(ssm_core.ShapeError, match=r"^f: .*broadcast \(x: \(.*y: \("):
        shapes.broadcast("f", x=given[0], y=given[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.asarray([1.0, np.nan]), np.asarray(complex(1, np.inf))])
def test_host_values_must_be_finite(bad: object):
    with pytest.raises(ssm_core.DomainError, match=r"^f: x holds NaN or inf"):
        _values.check_finite("f", np, x=bad)


@pytest.mark.parametrize("bad", [0, -1, 0.0, np.nan, np.inf, np.asarray([1.0, 0.0]), np.float32(-1)])
def test_host_values_must_be_positive(bad: object):
    with pytest.raises(ssm_core.DomainError, match=r"^f: x.* must be positive and finite"):
        _values.check_positive("f", np, x=bad)


def test_good_values_pass():
    _values.check_finite("f", np, x=1.0, y=np.ones(2), z=np.ones(0), w=None)
    _values.check_positive("f", np, x=1, y=np.ones(2), z=np.ones(0))


def test_device_values_are_read_only_where_asked_for():
    torch = pytest.importorskip("torch")
    x = torch.tensor([1.0, float("nan")])
    _values.check_finite("f", torch, x=x)
    with pytest.raises(ssm_core.DomainError, match=r"^f: x holds NaN or inf \(shape \(2,\)\)"):
        _values.check_finite("f", torch, True, x=x)
    with pytest.raises(ssm_core.DomainError, match=r"^f: x \(shape \(2,\)\) must be positive"):
        _values.check_positive("f", torch, True, x=x)


def test_errors_of_a_value_check_show_the_number():
    with pytest.raises(ssm_core.DomainError, match=r"dt = -0\.5 must be positive"):
        _values.check_positive("f", np, dt=-0.5)
