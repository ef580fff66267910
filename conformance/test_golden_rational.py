"""Kernels of rational transfer functions against numbers of the original implementation, and their gradients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssm_core.time_invariant import rational

from . import autodiff
from .backends import Backend
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import GOLDEN, assert_close

pytestmark = pytest.mark.dtypes("float32", "float64")

RTF, RTF2 = "rtf_*", "rtf2_*"


def length_of(numbers: Numbers) -> int:
    """trunc_len: two kernels stand one after the other where there are two directions."""
    return numbers["k_full"].shape[-1] // (2 if both_ways(numbers) else 1)


def both_ways(numbers: Numbers) -> bool:
    return len(numbers["h0"]) == 2 * len(numbers["k_full"])


def constrained(v: SimpleNamespace) -> Any:
    """The tails of the denominators as the original trains them: the first rows of ab, maybe scaled."""
    raw = v.ab[: v.count, :]
    return raw if v.scalar is None else rational.montel(raw, v.scalar, v.xp)


def coefficients(v: SimpleNamespace, numerator: Any) -> tuple[Any, Any]:
    """0, b_1, ... and 1, a_1, ...: every denominator serves consecutive channels."""
    xp, tail = v.xp, constrained(v)
    tail = xp.repeat(tail, numerator.shape[0] // tail.shape[0], axis=0)
    return xp.concat([0 * numerator[:, :1], numerator], axis=-1), xp.concat([0 * tail[:, :1] + 1, tail], axis=-1)


def aliased_kernel(v: SimpleNamespace, length: int) -> Any:
    """The first taps of a period that is length made even, and the direct term at lag 0."""
    b, a = coefficients(v, v.ab[v.count :, :])
    k = rational.aliased_response(b, a, length + length % 2, v.xp)[:, :length]
    return v.xp.concat([k[:, :1] + v.h0[:, None], k[:, 1:]], axis=-1)


def inputs(numbers: Numbers, backend: Backend, dtype: str) -> SimpleNamespace:
    given = {
        "ab": numbers["sd.ab"],
        "h0": numbers["h0"],
        "scalar": numbers.get("sd.scalar"),
        "count": len(numbers["a"]),
    }
    return as_arrays(backend, dtype, given)


@files(RTF)
def test_time_aliased_kernel(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    length = length_of(numbers)
    k = backend.run(lambda v: aliased_kernel(v, length), inputs(numbers, backend, dtype))
    if both_ways(numbers):
        D, xp = k.shape[0] // 2, backend.xp
        k = xp.concat([k[:D, :], xp.flip(k[D:, :], axis=-1)], axis=-1)
    check(k, numbers["k_full"], backend, dtype)
    if numbers["k_l"].shape == numbers["k_full"].shape:
        check(k, numbers["k_l"], backend, dtype)


@files(RTF, where=lambda numbers: numbers["k_l"].shape[-1] < numbers["k_full"].shape[-1])
def test_kernel_for_a_shorter_sequence(path: Path, backend: Backend, dtype: str):
    """The first taps of the same period."""
    numbers = read(path)
    length, shorter = numbers["k_full"].shape[-1], numbers["k_l"].shape[-1]
    k = backend.run(lambda v: aliased_kernel(v, length)[:, :shorter], inputs(numbers, backend, dtype))
    check(k, numbers["k_l"], backend, dtype)


@files(RTF)
def test_constraint_of_the_denominators(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    check(backend.run(constrained, inputs(numbers, backend, dtype)), numbers["a"], backend, dtype)


@files(RTF)
def test_the_sum_of_the_impulse_response_over_periods(path: Path, backend: Backend, dtype: str):
    """k_l = b A^(l-1) (I - A^P)^-1 e_1, and at lag 0 h0 + b A^(P-1) (I - A^P)^-1 e_1."""
    numbers = read(path)
    length = length_of(numbers)
    period = length + length % 2

    def kernel(v: SimpleNamespace) -> Any:
        b, a = coefficients(v, v.ab[v.count :, :])
        return rational.impulse_response(b, a, 200 * period, v.xp)

    h = backend.to_numpy(backend.run(kernel, inputs(numbers, backend, dtype)))
    k = np.sum(h.reshape(len(h), 200, period), axis=1)[:, :length]
    k[:, 0] += numbers["h0"]
    k = k if not both_ways(numbers) else np.concatenate([k[: len(k) // 2], k[len(k) // 2 :, ::-1]], axis=-1)
    check(backend.asarray(k, dtype), numbers["k_full"], backend, dtype)


@files(RTF2)
def test_impulse_response(path: Path, backend: Backend, dtype: str):
    """The numerator is corrected for the aliasing there, so that k_l = b A^l e_1 and at lag 0 h0 more."""
    numbers = read(path)
    length = length_of(numbers)

    def kernel(v: SimpleNamespace) -> Any:
        b, a = coefficients(v, v.ab[v.count :, :])
        k = rational.impulse_response(b[:, 1:], a, length, v.xp)
        return v.xp.concat([k[:, :1] + v.h0[:, None], k[:, 1:]], axis=-1)

    k = backend.run(kernel, inputs(numbers, backend, dtype))
    check(k, numbers["k_full"], backend, dtype)
    check(k, numbers["k_step"], backend, dtype)


@pytest.mark.backends(*autodiff.FRAMEWORKS)
@files(RTF, where=lambda numbers: not both_ways(numbers))
def test_gradients(path: Path, backend: Backend, dtype: str):
    """Of sum(y * cotangent), y the causal convolution of the input with the kernel."""
    numbers = read(path)
    xp, fixed = backend.xp, inputs(numbers, backend, dtype)
    length, shorter = numbers["k_full"].shape[-1], numbers["u"].shape[1]
    # The kernel's part in the loss is linear: tap l meets sum_t cotangent_t u_(t-l).
    met = [np.sum(numbers["cotangent"][:, i:] * numbers["u"][:, : shorter - i], axis=(0, 1)) for i in range(shorter)]
    weights = backend.asarray(np.stack(met, axis=-1), dtype)
    leaves = {"ab": fixed.ab, "h0": fixed.h0} | ({} if fixed.scalar is None else {"scalar": fixed.scalar})

    def loss(leaves: dict[str, Any]) -> Any:
        return xp.sum(aliased_kernel(SimpleNamespace(**vars(fixed) | leaves), length)[:, :shorter] * weights)

    found = autodiff.gradient(backend, loss, leaves)
    for name, stored in (("ab", "grad.ab"), ("h0", "grad.h_0"), ("scalar", "grad.scalar")):
        if name in leaves:
            check(found[name], numbers[stored], backend, dtype)


def check(actual: Any, expected: np.ndarray, backend: Backend, dtype: str) -> None:
    assert_close(actual, expected, backend, dtype, function="kernel", allowed=GOLDEN[dtype])
