"""Products of matrices in JAX: those of powers and states at full precision, whatever a device does by default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import ssm_core

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")


def products_of(jaxpr: Any) -> Iterator[Any]:
    """The precision of every product of matrices in a program, in its loops and branches too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from products_of(inner)


def _dense(x: Any) -> Any:
    return ssm_core.Dense(x, x[:, :1], x[:1])


FULL = {
    "expm": ssm_core.expm,
    "kernel of Dense": lambda x: ssm_core.kernel(_dense(x), 70, dt=0.1),
    "chunks": lambda x: ssm_core.scan(ssm_core.Diagonal(-x[0], x[0], x[1]), x, dt=0.1, mode="chunk")[0],
    "kernel of DPLR": lambda x: ssm_core.kernel(
        ssm_core.DPLR(-x[0], x[:1], x[1:2], x[2], x[3]), 16, dt=0.1, method="bilinear", algorithm="cauchy"
    ),
    "ssd": lambda x: ssm_core.ssd(x[None, :, None], x[None, :, :1], -x[0, :1], x[None, :, None], x[None, :, None]),
    "gated_delta": lambda x: ssm_core.gated_delta(*(x[None, :, None] for _ in range(3)), beta=x[None, :, :1]),
    "gated_linear_attention": lambda x: ssm_core.gated_linear_attention(
        *(x[None, :, None] for _ in range(3)), -x[None, :, None]
    ),
}


@pytest.mark.parametrize("call", FULL.values(), ids=FULL)
def test_products_keep_all_digits_on_gpus(call: Any, monkeypatch: pytest.MonkeyPatch):
    """Whose products of float32 have ten bits by default, in values and gradients."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x = jnp.linspace(0.1, 0.9, 16).reshape(4, 4)
    for function in (call, jax.grad(lambda x: jnp.real(call(x)).sum())):
        found = set(products_of(jax.make_jaxpr(function)(x).jaxpr))
        assert found == {(jax.lax.Precision.HIGHEST,) * 2}, found
