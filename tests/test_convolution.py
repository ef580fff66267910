"""Causal and anti-causal convolution against the sums that define them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssm_core import convolve
from ssm_core._arrays.dispatch import load
from ssm_core.functions import convolution

LENGTHS = (1, 2, 3, 4, 7, 16, 17, 31, 64, 97)


def by_the_sum(u: np.ndarray, k: np.ndarray, reverse: np.ndarray | None = None) -> np.ndarray:
    """y_t = sum_{j<=t} k_{t-j} u_j + sum_{j>t} r_{j-t-1} u_j, with taps of zero beyond those given."""
    L = u.shape[-1]
    t, j = np.arange(L)[:, None], np.arange(L)[None, :]

    def weights(taps: np.ndarray, lag: np.ndarray) -> np.ndarray:
        padded = np.concatenate([taps, np.zeros((*taps.shape[:-1], 1))], axis=-1)
        return padded[..., np.where((lag >= 0) & (lag < taps.shape[-1]), lag, -1)]

    y = (weights(k, t - j) @ u[..., None])[..., 0]
    return y if reverse is None else y + (weights(reverse, j - t - 1) @ u[..., None])[..., 0]


def draw(*shape: int, complex_: bool = False, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if complex_ else x


@pytest.mark.parametrize("taps", [1, 2, 5, 64, 200])
@pytest.mark.parametrize("length", LENGTHS)
def test_numpy_convolve(length: int, taps: int, xp: Any):
    u, k = draw(length), draw(taps, seed=1)
    found = convolve(xp.asarray(u), xp.asarray(k))
    assert found.dtype == xp.float64
    np.testing.assert_allclose(np.asarray(found), np.convolve(u, k)[:length], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse_taps", [1, 4, 17, 40])
@pytest.mark.parametrize("taps", [1, 5, 17, 40])
@pytest.mark.parametrize("length", [1, 2, 16, 17])
def test_both_directions(length: int, taps: int, reverse_taps: int):
    u, k, r = draw(length), draw(taps, seed=1), draw(reverse_taps, seed=2)
    found = convolve(u, k, kernel_reverse=r)
    np.testing.assert_allclose(found, by_the_sum(u, k, r), rtol=1e-12, atol=1e-12)


def test_the_anti_causal_kernel_starts_at_the_next_sample(xp: Any):
    u, zero = xp.asarray([0.0, 0.0, 1.0, 0.0]), xp.zeros(1)
    found = np.asarray(convolve(u, zero, kernel_reverse=xp.asarray([2.0, 3.0])))
    np.testing.assert_allclose(found, [3, 2, 0, 0], atol=1e-15)


def test_an_anti_causal_kernel_is_a_causal_one_on_the_reversed_signal():
    u, r = draw(20), draw(20, seed=1)
    found = convolve(u, np.zeros(1), kernel_reverse=r)
    delayed = np.concatenate([[0.0], r])
    np.testing.assert_allclose(found[::-1], convolve(u[::-1], delayed), atol=1e-12)


@pytest.mark.parametrize(
    ("u", "k", "reverse"),
    [
        ((3, 8), (8,), (8,)),
        ((8,), (3, 8), (8,)),
        ((8,), (8,), (3, 8)),
        ((3, 1, 8), (2, 8), (1, 1, 5)),
        ((1, 8), (4, 9), None),
        ((2, 0, 8), (8,), (8,)),
        ((0, 8), (1, 8), None),
        ((1, 8), (8,), (0, 5)),
        ((3, 0), (3, 4), (3, 4)),
    ],
)
def test_broadcasting(u: tuple[int, ...], k: tuple[int, ...], reverse: tuple[int, ...] | None, xp: Any):
    arrays = [draw(*shape) for shape in (u, k)]
    r = None if reverse is None else draw(*reverse)
    found = convolve(*map(xp.asarray, arrays), kernel_reverse=None if r is None else xp.asarray(r))
    batch = np.broadcast_shapes(u[:-1], k[:-1], () if reverse is None else reverse[:-1])
    assert found.shape == (*batch, u[-1])
    np.testing.assert_allclose(np.asarray(found), by_the_sum(*arrays, r), atol=1e-12)


@pytest.mark.parametrize(
    ("u", "k", "wanted"),
    [
        ("float32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("complex64", "float32", "complex64"),
        ("float32", "complex64", "complex64"),
        ("complex64", "float64", "complex128"),
        ("float16", "float32", "float16"),
        ("float16", "float16", "float16"),
        ("float16", "complex64", "complex64"),
        ("float32", "float16", "float32"),
    ],
)
def test_dtypes(u: str, k: str, wanted: str):
    x, y = draw(9, complex_=u.startswith("c")).astype(u), draw(9, complex_=k.startswith("c"), seed=1).astype(k)
    found = convolve(x, y, kernel_reverse=y)
    assert found.dtype == wanted
    np.testing.assert_allclose(found, by_the_sum(x, y, y), rtol=1e-2 if wanted == "float16" else 1e-5, atol=1e-5)


@pytest.mark.parametrize("complex_", [(True, False), (False, True), (True, True)])
def test_complex(complex_: tuple[bool, bool], xp: Any):
    u, k = (draw(13, complex_=c, seed=i) for i, c in enumerate(complex_))
    found = convolve(xp.asarray(u), xp.asarray(k), kernel_reverse=xp.asarray(k))
    np.testing.assert_allclose(np.asarray(found), by_the_sum(u, k, k), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("empty", ["k", "kernel_reverse"])
def test_a_kernel_without_taps_adds_nothing(empty: str):
    u, taps = draw(6), draw(3)
    k, r = (np.ones(0), taps) if empty == "k" else (taps, np.ones(0))
    np.testing.assert_allclose(convolve(u, k, kernel_reverse=r), by_the_sum(u, k, r), atol=1e-12)


def test_nothing_wraps_around():
    u = np.zeros(100)
    u[-1] = 1e12
    y = convolve(u, np.ones(100))
    np.testing.assert_allclose(y[:-1], 0, atol=1e-3)


def test_matrix_of_kernels(xp: Any):
    u, k = draw(2, 3, 10), draw(4, 3, 10, seed=1)
    found = convolution.convolve_matrix(xp.asarray(u), xp.asarray(k), xp)
    np.testing.assert_allclose(np.asarray(found), by_the_sum(u[:, None], k).sum(-2), atol=1e-12)


# (u, k, kernel_reverse), some broadcast; slabs of a few rows cut them in one axis or in several.
SLABBED = [
    ((5, 3, 8), (3, 8), None),
    ((2, 3, 8), (1, 8), (3, 5)),
    ((1, 3, 8), (4, 1, 8), (8,)),
    ((8,), (7, 8), None),
    ((2, 2, 3, 8), (2, 1, 6), None),
]


def test_slabs_cover_every_row_once():
    for shape in ((), (5,), (2, 3), (4, 1, 7), (2, 2, 3)):
        for rows in (1, 2, 3, 4, 100):
            visits = np.zeros((*shape, 1))
            for slab in convolution.slabs(shape, rows):
                convolution.part(visits, slab, len(shape))[...] += 1
                assert visits[slab].size <= rows
            assert (visits == 1).all()


@pytest.mark.parametrize(("u", "k", "reverse"), SLABBED)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_long_convolutions_in_numpy(u: Any, k: Any, reverse: Any, dtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load("numpy"), "SLAB", 16)
    monkeypatch.setattr(load("numpy"), "ROWS", 2)
    arrays = [None if shape is None else draw(*shape, complex_=dtype == "complex64").astype(dtype)
              for shape in (u, k, reverse)]  # fmt: skip
    found = convolve(arrays[0], arrays[1], kernel_reverse=arrays[2])
    assert found.dtype == dtype
    np.testing.assert_allclose(found, by_the_sum(*arrays), atol=1e-12 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize(("u", "k", "reverse"), SLABBED)
def test_long_convolutions_in_torch(u: Any, k: Any, reverse: Any, monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    from ssm_core.backends.torch import convolution as twin

    arrays = [torch.tensor(draw(*shape)).requires_grad_() for shape in (u, k, reverse) if shape is not None]

    def outputs_and_gradients() -> list[Any]:
        y = convolve(*arrays[:2], kernel_reverse=arrays[2] if reverse else None)
        return [y.detach(), *torch.autograd.grad((y * torch.arange(1.0, 9.0)).sum(), arrays)]

    whole = outputs_and_gradients()
    taken: list[Any] = []
    monkeypatch.setattr(twin, "slabs", lambda shape, rows: taken.append(shape) or convolution.slabs(shape, 2))
    for found, wanted in zip(outputs_and_gradients(), whole, strict=True):
        torch.testing.assert_close(found, wanted)
    assert len(taken) == 2  # forward and backward
    assert torch.autograd.gradcheck(convolve, arrays[:2])
    assert torch.autograd.gradgradcheck(convolve, arrays[:2])


def test_batched_gradients_in_torch():
    torch = pytest.importorskip("torch")
    u, k = (torch.tensor(draw(*shape)).requires_grad_() for shape in ((2, 3, 8), (3, 5)))
    directions = torch.tensor(draw(4, 2, 3, 8, seed=1))
    y = convolve(u, k)
    found = torch.autograd.grad(y, (u, k), directions, is_grads_batched=True, retain_graph=True)
    for i, direction in enumerate(directions):
        for batched, single in zip(found, torch.autograd.grad(y, (u, k), direction, retain_graph=True), strict=True):
            torch.testing.assert_close(batched[i], single)


def test_fast_lengths_are_even_and_have_small_factors_only():
    for n in range(1, 3000):
        m = convolution.fast_length(n)
        assert n <= m <= max(2, 2 * n)
        assert m % 2 == 0
        for factor in (2, 3, 5):
            while m % factor == 0:
                m //= factor
        assert m == 1


def test_fast_lengths_are_the_smallest():
    smooth = sorted(2**a * 3**b * 5**c for a in range(1, 13) for b in range(8) for c in range(6))
    for n in (1, 2, 3, 7, 97, 1000, 1025, 2049, 4001):
        assert convolution.fast_length(n) == next(m for m in smooth if m >= n)
