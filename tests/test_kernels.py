"""Convolution kernels: against powers of the full matrix, and conversion on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
import ssm_core
from ssm_core import Diagonal, discretize, kernel

METHODS = ("zoh", "dirac", "bilinear", "euler", "backward_euler")
PORTS = [(None, None), (2, None), (None, 3), (2, 3)]


@pytest.mark.parametrize("kind", [reference.diagonal, reference.dense])
@pytest.mark.parametrize(("P", "M"), PORTS)
@pytest.mark.parametrize("batch", [(), (2,), (2, 1, 2)])
def test_definition(batch: tuple[int, ...], P: int | None, M: int | None, kind: Any, xp: Any):
    system = kind(3, P=P, M=M, batch=batch)
    wanted = reference.Propagator(discretize(system, 0.1)).kernel(11)
    found = kernel(reference.arrays_of(system, xp), 11, dt=0.1)
    assert found.shape == (*batch, *(() if M is None else (M,)), *(() if P is None else (P,)), 11)
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [reference.diagonal, reference.dense])
def test_discretizing_first_changes_nothing(kind: Any, method: str, xp: Any):
    system = reference.arrays_of(kind(), xp)
    found = kernel(system, 20, dt=0.1, method=method)
    wanted = kernel(discretize(system, 0.1, method), 20)
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-11, atol=1e-13)


def test_gbt_takes_alpha():
    system = reference.diagonal()
    found = kernel(system, 9, dt=0.1, method="gbt", alpha=0.5)
    np.testing.assert_allclose(found, kernel(system, 9, dt=0.1, method="bilinear"), rtol=1e-13)


def test_step_per_channel_and_state():
    system = reference.diagonal(3, batch=(2,))
    for dt in (np.asarray([0.1, 0.3]), np.linspace(0.1, 0.6, 6).reshape(2, 3)):
        alone = [
            kernel(Diagonal(*(getattr(system, n)[i] for n in ("poles", "B", "C")), conj_pairs=True), 7, dt=dt[i])
            for i in range(2)
        ]
        np.testing.assert_allclose(kernel(system, 7, dt=dt), alone, rtol=1e-12)


@pytest.mark.parametrize("kind", [reference.diagonal, reference.dense])
def test_a_prefix_does_not_depend_on_the_length(kind: Any, xp: Any):
    system = reference.arrays_of(discretize(kind(), 0.1), xp)
    longest = np.asarray(kernel(system, 100))
    for length in (1, 2, 3, 64, 65, 97):
        found = np.asarray(kernel(system, length))
        assert found.shape == (length,)
        np.testing.assert_allclose(found, longest[:length], rtol=1e-11, atol=1e-13)


def test_the_direct_term_is_not_in_the_kernel():
    system = reference.diagonal()
    np.testing.assert_array_equal(kernel(system, 5, dt=0.1), kernel(reference.diagonal(D=False), 5, dt=0.1))


def test_conjugate_pairs_are_the_full_system():
    half = reference.diagonal(3)
    full = Diagonal(*(np.concatenate([x, x.conj()]) for x in (half.poles, half.B, half.C)))
    np.testing.assert_allclose(kernel(half, 9, dt=0.1), kernel(full, 9, dt=0.1), rtol=1e-12, atol=1e-14)


def test_no_conjugate_is_taken_of_the_output_vector():
    system = Diagonal(np.asarray([0.5 + 0j]), np.asarray([1.0]), np.asarray([1j]), discrete=True)
    np.testing.assert_allclose(kernel(system, 3), [1j, 0.5j, 0.25j])


def test_channels_share_poles():
    shared = Diagonal(-np.ones((1, 2, 3)), np.ones((1, 2, 3)), np.random.default_rng(0).normal(size=(4, 2, 3)))
    found = kernel(shared, 6, dt=0.1)
    assert found.shape == (4, 2, 6)
    alone = kernel(Diagonal(-np.ones(3), np.ones(3), shared.C[3, 1]), 6, dt=0.1)
    np.testing.assert_allclose(found[3, 1], alone, rtol=1e-13)


def test_poles_at_zero():
    system = Diagonal(np.zeros(2), np.ones(2), np.ones(2), discrete=True)
    np.testing.assert_array_equal(kernel(system, 5), [2, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (("float32", "float32", "float32"), "float32"),
        (("complex64", "float32", "complex64"), "complex64"),
        (("complex64", "float64", "complex64"), "complex128"),
        (("float16", "float16", "float16"), "float32"),
    ],
)
def test_dtypes(fields: tuple[str, ...], wanted: str):
    arrays = [np.full(2, 0.5, dtype) for dtype in fields]
    assert kernel(Diagonal(*arrays, discrete=True), 4).dtype == wanted
    paired = kernel(Diagonal(*arrays, conj_pairs=True, discrete=True), 4)
    assert paired.dtype == {"complex64": "float32", "complex128": "float64"}.get(wanted, wanted)


@pytest.mark.parametrize("length", [5, np.int64(5)])
def test_lengths_are_whole_numbers_of_any_kind(length: Any):
    assert kernel(discretize(reference.diagonal(), 0.1), length).shape == (5,)


LISTS = ([[0.5, 0.0], [1.0, 0.25]], [1.0, 0.0], [0.0, 1.0])
WANTED = [0.0, 1.0, 0.75, 0.4375]


@pytest.mark.parametrize("namespace", ["numpy", np, "array_api_strict", "torch"])
def test_conversion_of_lists_to_any_namespace(namespace: Any):
    if isinstance(namespace, str):
        pytest.importorskip(namespace)
    K = kernel(LISTS, 4, xp=namespace)
    wanted = namespace if isinstance(namespace, str) else "numpy"
    assert type(K).__module__.startswith(wanted)
    assert str(K.dtype).endswith("float64")
    np.testing.assert_allclose(np.asarray(K), WANTED)


def test_conversion_of_lists_to_jax():
    jax = pytest.importorskip("jax")
    for namespace in ("jax", "jax.numpy", jax.numpy):
        K = kernel(LISTS, 4, xp=namespace)
        assert isinstance(K, jax.Array)
        np.testing.assert_allclose(np.asarray(K), WANTED)


def test_conversion_of_systems_of_lists():
    system = Diagonal([-1.0, -2.0], [1.0, 1.0], [1, 1], 0.5)
    wanted = kernel(Diagonal(-np.asarray([1.0, 2.0]), np.ones(2), np.ones(2)), 4, dt=0.1)
    np.testing.assert_allclose(kernel(system, 4, dt=0.1, xp="numpy"), wanted)


def test_conversion_between_libraries_detaches():
    torch = pytest.importorskip("torch")
    poles = torch.full((2,), -1.0, dtype=torch.float64, requires_grad=True)
    system = Diagonal(poles, torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    inside, outside = kernel(system, 4, dt=0.1), kernel(system, 4, dt=0.1, xp="numpy")
    assert inside.requires_grad
    assert isinstance(outside, np.ndarray)
    np.testing.assert_allclose(outside, inside.detach().numpy())


def test_conversion_takes_dt_along():
    system = Diagonal([-1.0, -2.0], [1.0, 1.0], [1.0, 1.0])
    wanted = kernel(system, 4, dt=0.1, xp="numpy")
    for dt in (np.asarray(0.1), np.asarray([0.1, 0.1]), [0.1, 0.1]):
        found = kernel(system, 4, dt=dt, xp="array_api_strict")
        np.testing.assert_allclose(np.asarray(found), wanted)


def test_real_systems_have_real_kernels():
    assert kernel((*ssm_core.hippo("legs", 4), np.ones(4)), 5, dt=0.1).dtype == np.float64
    assert kernel(reference.diagonal(), 5, dt=0.1).dtype == np.float64


def test_memory_is_that_of_the_result():
    import tracemalloc

    system = discretize(reference.diagonal(32, batch=(8,)), 1e-3)
    kernel(system, 8)
    tracemalloc.start()
    K = kernel(system, 8192)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * K.nbytes  # the tensor of all powers has 64 times as many bytes
