"""JAX's products with weights, whose transposes are written by hand, beside the plain products that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

from ssm_core.backends.jax.products import affine  # noqa: E402
from ssm_core.backends.jax.short_convolution import causal_conv1d  # noqa: E402

B, L, H, K = 2, 5, 3, 4


def plain_map(u: Any, weight: Any) -> Any:
    return u @ weight.T


def convolved(u: Any, weight: Any) -> Any:
    return causal_conv1d(u[:, K - 1 :], weight, None, u[:, : K - 1], None)


def plain_convolution(u: Any, weight: Any) -> Any:
    windows = np.arange(L)[:, None] + np.arange(K)
    return jnp.einsum("btkh,hk->bth", u[:, windows], weight)


PRODUCTS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = {
    "map": (lambda u, weight: affine(u, weight, None), plain_map, (B, L, H), (K, H)),
    "convolution": (convolved, plain_convolution, (B, L + K - 1, H), (H, K)),
}


def loss(product: Any) -> Any:
    return lambda *x: jnp.sum(jnp.sin(product(*x)))


def gradients(product: Any) -> Any:
    return jax.grad(loss(product), (0, 1))


def cubes_of_gradients(product: Any) -> Any:
    return lambda *x: sum(jnp.sum(g**3) for g in gradients(product)(*x))


# Of a product, two signals and two weights.
FORMS: dict[str, Callable[..., Any]] = {
    "values": lambda f, u, v, w, z: f(u, w),
    "tangents": lambda f, u, v, w, z: jax.jvp(f, (u, w), (v, z)),
    "gradients": lambda f, u, v, w, z: gradients(f)(u, w),
    "gradients of gradients": lambda f, u, v, w, z: jax.grad(cubes_of_gradients(f), (0, 1))(u, w),
    "of signals": lambda f, u, v, w, z: jax.vmap(f, (1, None))(jnp.stack([u, v], 1), w),
    "of weights": lambda f, u, v, w, z: jax.vmap(f, (None, 0))(u, jnp.stack([w, z])),
    "of both": lambda f, u, v, w, z: jax.vmap(f, (1, 0))(jnp.stack([u, v], 1), jnp.stack([w, z])),
    "gradients of signals": lambda f, u, v, w, z: jax.vmap(gradients(f), (1, None))(jnp.stack([u, v], 1), w),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_their_derivatives(name: str):
    """Values, derivatives in both modes and of each other, and maps over either factor; compiled, values without."""
    fused, plain, *shapes = PRODUCTS[name]
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        given = [jnp.asarray(random.standard_normal(shape)) for shape in shapes for _ in range(2)]
        np.testing.assert_allclose(fused(*given[::2]), plain(*given[::2]), rtol=1e-12, atol=1e-12)
        for form in FORMS.values():
            found, expected = (jax.tree.leaves(jax.jit(partial(form, f))(*given)) for f in (fused, plain))
            for x, y in zip(found, expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PRODUCTS)
def test_they_are_what_a_program_holds(name: str):
    """Else the plain products would have been compared with themselves."""
    fused, _, *shapes = PRODUCTS[name]
    program = jax.make_jaxpr(jax.grad(lambda *x: fused(*x).sum(), 1))(*(jnp.ones(shape) for shape in shapes))
    assert {"weighted", "short_convolution"} & {equation.primitive.name for equation in program.eqns}
