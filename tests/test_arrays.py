"""Namespaces, devices, dtypes and conversions of arrays."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy
import array_api_strict
import numpy as np
import pytest

import ssm_core
from ssm_core._arrays import idioms
from ssm_core._arrays import library as _arrays

DTYPES = ("float32", "float64", "complex64", "complex128")


def test_arrays_are_told_from_other_things(xp: Any):
    assert _arrays.is_array(xp.asarray([1.0]))
    assert _arrays.is_array(np.float32(1))
    assert not any(map(_arrays.is_array, (1.0, True, None, [1.0], "x", np)))


def test_namespace_of_one_library(xp: Any):
    x = xp.asarray([1.0])
    assert _arrays.namespace("f", x=x, y=None, z=2.0, w=1j) is xp


def test_numpy_and_its_scalars_share_a_namespace():
    assert _arrays.namespace("f", x=np.float32(1), y=np.ones(2)) is array_api_compat.numpy


@pytest.mark.parametrize("value", [[1.0], (1.0,), "x", {}, np, object()], ids=lambda x: type(x).__name__)
def test_what_is_no_array_is_named(value: object):
    with pytest.raises(ssm_core.DTypeError, match=rf"^f: y is a {type(value).__name__}, not an array\..* xp.asarray"):
        _arrays.namespace("f", x=np.ones(1), y=value)


class Shaped:
    """An array of a library that does not follow the standard."""

    shape, dtype = (2,), np.dtype("float32")


def test_arrays_of_libraries_outside_the_standard_are_told_what_they_lack():
    message = rf"^f: y is a {__name__}\.Shaped, which has a shape but no __array_namespace__: .* found by it\.$"
    with pytest.raises(ssm_core.DTypeError, match=message):
        _arrays.namespace("f", x=np.ones(1), y=Shaped())


def test_a_name_that_is_no_namespace_of_the_standard_is_refused():
    with pytest.raises(ssm_core.OptionError, match=r"^f: xp='json' is no array library: it has no __array_namespace_i"):
        _arrays.resolve("json", "f")


def test_no_array_at_all():
    with pytest.raises(ssm_core.DTypeError, match=r"^f: no array given"):
        _arrays.namespace("f", x=None, y=1.0)


def test_several_libraries_are_named():
    with pytest.raises(ssm_core.MixedArraysError, match=r"^f: arrays of several libraries \(x: numpy.*y: array_api_s"):
        _arrays.namespace("f", x=np.ones(1), y=array_api_strict.ones(1))


def test_several_devices_are_named():
    here, there = (array_api_strict.ones(1, device=array_api_strict.Device(d)) for d in ("CPU_DEVICE", "device1"))
    with pytest.raises(ssm_core.MixedArraysError, match=r"^f: arrays of several devices \(x: .*CPU.*y: .*device1"):
        _arrays.namespace("f", x=here, y=there)


@pytest.mark.parametrize("dtype", DTYPES)
def test_floating_dtypes_pass(dtype: str, xp: Any):
    x = xp.asarray([1.0], dtype=getattr(xp, dtype))
    _arrays.floating("f", x=x, y=None, z=1)
    assert _arrays.dtype_name(x) == dtype
    assert _arrays.is_complex(x) == dtype.startswith("complex")
    assert not _arrays.is_half(x)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_other_dtypes_are_refused(dtype: str, xp: Any):
    x = xp.asarray([1], dtype=getattr(xp, dtype))
    with pytest.raises(ssm_core.DTypeError, match=rf"^f: x has dtype {dtype} \(shape \(1,\)\)\..* xp.astype\(x, "):
        _arrays.floating("f", x=x)


def test_complex_is_refused_where_real_is_needed(xp: Any):
    with pytest.raises(ssm_core.DTypeError, match=r"^f: x has dtype complex64, but must be real"):
        _arrays.real_floating("f", x=xp.asarray([1j], dtype=xp.complex64))


def test_half_precision_is_computed_in_float32():
    x = np.ones(2, np.float16)
    assert _arrays.is_half(x)
    assert _arrays.computable(x, array_api_compat.numpy).dtype == np.float32
    assert _arrays.compute_dtype(array_api_compat.numpy, x) == np.float32
    assert _arrays.compute_dtype(array_api_compat.numpy, x, np.ones(2), None, 1j) == np.float64


def test_bfloat16_is_half_precision():
    torch = pytest.importorskip("torch")
    x = torch.ones(2, dtype=torch.bfloat16)
    assert _arrays.is_half(x)
    assert _arrays.computable(x, _arrays.resolve("torch")).dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_computable_stays_the_same_object(dtype: str, xp: Any):
    x = xp.asarray([1.0], dtype=getattr(xp, dtype))
    assert _arrays.computable(x, xp) is x


PRECISIONS = [("float32", "32", "64"), ("float64", "64", "128"), ("complex64", "32", "64"), ("complex128", "64", "128")]


@pytest.mark.parametrize(("dtype", "real", "complex_"), PRECISIONS)
def test_precision_is_kept_between_real_and_complex(dtype: str, real: str, complex_: str, xp: Any):
    given = getattr(xp, dtype)
    assert _arrays.real_dtype(given, xp) == getattr(xp, f"float{real}")
    assert _arrays.complex_dtype(given, xp) == getattr(xp, f"complex{complex_}")
    assert _arrays.to_complex(xp.asarray([1.0], dtype=given), xp).dtype == getattr(xp, f"complex{complex_}")


@pytest.mark.parametrize("given", [None, "numpy", np, array_api_compat.numpy])
def test_numpy_by_any_name(given: Any):
    assert _arrays.resolve(given) is array_api_compat.numpy


def test_other_namespaces_by_module_and_name():
    assert _arrays.resolve(array_api_strict) is _arrays.resolve("array_api_strict") is array_api_strict


@pytest.mark.parametrize("name", ["torch", "jax", "jax.numpy"])
def test_a_namespace_by_name_is_that_of_its_arrays(name: str):
    module = pytest.importorskip(name)
    xp = _arrays.resolve(name)
    assert xp is _arrays.resolve(module) is _arrays.namespace("f", x=xp.ones(1))


def test_an_absent_library():
    with pytest.raises(ssm_core.MissingPackageError, match=r"not installed.* pip install no_such_library"):
        _arrays.resolve("no_such_library")


def test_conversion_keeps_precision(xp: Any):
    for dtype in DTYPES:
        x = _arrays.convert(np.ones(2, dtype), xp)
        assert _arrays.namespace("f", x=x) is xp
        assert x.dtype == getattr(xp, dtype)


@pytest.mark.parametrize("value", [[1, 2], [1.0, 2.0], (True, False)])
def test_lists_and_integers_become_double(value: Any, xp: Any):
    x = _arrays.convert(value, xp)
    assert x.dtype == xp.float64
    np.testing.assert_array_equal(np.asarray(x), np.asarray(value, float))


def test_conversion_to_its_own_namespace_copies_nothing(xp: Any):
    x = xp.asarray([1.0])
    assert _arrays.convert(x, xp) is x


def test_conversion_detaches():
    torch = pytest.importorskip("torch")
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for view in (x, x.to(torch.complex128).conj(), torch.imag(x.to(torch.complex128).conj())):
        y = _arrays.convert(view, array_api_compat.numpy)
        assert isinstance(y, np.ndarray)
        np.testing.assert_array_equal(y, view.detach().resolve_conj().resolve_neg().numpy())


@pytest.mark.parametrize("value", [["a"], [None], [object()]])
def test_what_holds_no_numbers_is_not_converted(value: Any):
    with pytest.raises(ssm_core.DTypeError, match=r"dtype (<U1|object)"):
        _arrays.convert(value, array_api_compat.numpy)


@pytest.mark.parametrize(
    ("left", "right"), [("float32", "complex64"), ("float64", "float32"), ("complex64", "float64")]
)
def test_matmul_promotes(left: str, right: str, xp: Any):
    x, y = xp.ones((2, 3), dtype=getattr(xp, left)), xp.ones((3, 2), dtype=getattr(xp, right))
    product = idioms.matmul(x, y, xp)
    assert product.dtype == xp.result_type(x.dtype, y.dtype)
    np.testing.assert_array_equal(np.asarray(product), np.full((2, 2), 3))


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize("batch", [(), (4,), (1,)])
def test_matmul_with_shared_right_factor(lead: tuple[int, ...], batch: tuple[int, ...], xp: Any):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(*lead, *batch, 2, 3)), rng.normal(size=(*batch, 3, 4))
    product = idioms.matmul_shared(xp.asarray(x), xp.asarray(y), xp)
    np.testing.assert_allclose(np.asarray(product), x @ y)


@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), (5, 2, 0)])
def test_matmul_with_shared_right_factor_of_nothing(shape: tuple[int, ...]):
    x, y = np.ones(shape), np.ones((shape[-1], 4))
    np.testing.assert_array_equal(idioms.matmul_shared(x, y, array_api_compat.numpy), x @ y)


def test_numpy_copy_of_any_array(xp: Any):
    x = _arrays.to_numpy(xp.asarray([1.0, 2.0]))
    assert isinstance(x, np.ndarray)
    np.testing.assert_array_equal(x, [1.0, 2.0])


def test_weights_leave_their_library_whatever_bodies_run():
    torch = pytest.importorskip("torch")
    with ssm_core.use_backend("generic"):
        np.testing.assert_array_equal(_arrays.to_numpy(torch.ones(2, requires_grad=True)), np.ones(2))


def test_generic_exponentials_of_shapes_alone():
    torch = pytest.importorskip("torch")
    with ssm_core.use_backend("generic"):
        assert ssm_core.expm(torch.ones(3, 2, 2, device="meta")).shape == (3, 2, 2)


def test_packed_sequences_of_shapes_alone():
    torch = pytest.importorskip("torch")
    u, B = torch.ones(1, 2, 5, device="meta"), torch.ones(1, 3, 5, device="meta")
    ends = torch.ones(3, dtype=torch.int64, device="meta")
    assert ssm_core.selective_scan(u, u, -torch.ones(2, 3, device="meta"), B, B, cu_seqlens=ends).shape == u.shape
