"""What JAX's fast paths run where the device is no CPU: the same numbers, states and slopes as the generic bodies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.functions.affine import affine

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

L, W = 23, 3


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """JAX asked for its device answers that it is a GPU; the CPU computes what is then chosen."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with jax.enable_x64(True):
        yield


def drawn(*shape: int, seed: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def means(masks: dict[str, Any], x: Any) -> Any:
    h = x[:, 0]
    state = (h, 1 + h**2, h - 1)
    return ssm_core.rwkv4(3 * x, x + 1, -jnp.exp(x[0, 0]), x[0, 1], initial=state, return_state=True, chunk=5, **masks)


def selection(masks: dict[str, Any], x: Any) -> Any:
    u = jnp.moveaxis(x, 1, 2)
    rates, rows = -jnp.exp(x[0, :W]), u[:, None]
    return ssm_core.selective_scan(u, jnp.exp(u), rates, rows, rows, return_state=True, chunk=5, **masks)


RESET = {"reset": jnp.asarray(np.random.default_rng(2).random((2, L)) < 0.2)}
LENGTHS = {"lengths": jnp.asarray([0, 17])}
CALLS: dict[str, Any] = {
    "weighted means, resets": lambda x: means(RESET, x),
    "weighted means, resets and lengths": lambda x: means(RESET | LENGTHS, x),
    "selective scan, resets and lengths": lambda x: selection(RESET | LENGTHS, x),
    "taps of a rational system": lambda x: ssm_core.kernel(ssm_core.Rational(x[0, :2], x[1, :2] / 9), L),
    "convolution": lambda x: ssm_core.convolve(jnp.moveaxis(x, 1, 2), x[0].T),
    "product with a weight": lambda x: affine(x, x[0, :4], x[1, :4, 0]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_other_devices_run_is_the_generic_body(call: Any):
    x = drawn(2, L, W, seed=1)
    slopes = jax.tree.map(lambda y: jnp.ones(y.shape, y.dtype), jax.eval_shape(call, x))

    def with_slopes(backend: str) -> Any:
        def values(x: Any) -> Any:
            with ssm_core.use_backend(backend):
                y, back = jax.vjp(call, x)
            return y, back(slopes)

        return jax.tree.leaves(jax.jit(values)(x))

    for found, wanted in zip(with_slopes("auto"), with_slopes("generic"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)
