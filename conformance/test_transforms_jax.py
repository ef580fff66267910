"""Functions and layers under the transformations of JAX and of Flax: jit, vmap, grad, hessian, eval_shape."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core

from . import examples, truth
from .backends import Backend
from .cases.functions import Case
from .cases.instance import params_of
from .examples import DENSE, MIMO, PAIRS, Example
from .tolerances import assert_close
from .transformed import LAYER, WITH_STATES, L, agree, layer_inputs, modes_of, scan_inputs, two_samples

pytestmark = [pytest.mark.fast_paths, pytest.mark.backends("jax"), pytest.mark.dtypes("float32")]


@pytest.mark.parametrize("example", [PAIRS, MIMO, DENSE], ids=lambda e: e.label)
def test_jax_jit_of_scans(example: Example, backend: Backend, dtype: str):
    """With the default optimizations, against the eager results."""
    v = scan_inputs(backend, dtype, example)
    arrays = {name: x for name, x in vars(v).items() if backend.owns(x)}
    found = backend.module.jit(lambda given: modes_of(SimpleNamespace(**vars(v) | given), example))(arrays)
    values = examples.rounded(backend, v)
    wanted = truth.recurrence(truth.discrete(example.plain(values), 0.1), values.u, example.full_state(values.state))
    for actual, expected in zip(found, (wanted[0], example.stored_state(wanted[1])) * 3, strict=True):
        assert_close(actual, expected, backend, dtype, function="scan", terms=64 * L)


def test_jax_vmap_of_grad(backend: Backend, dtype: str):
    jax, v = backend.module, layer_inputs(backend, dtype)
    params = params_of(v, LAYER)

    def loss(params: dict[str, Any], u: Any) -> Any:
        return sum((LAYER.apply(params, u[None, ...], mode=mode) ** 2).sum() for mode in ("conv", "chunk", "scan"))

    found = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, v.u)
    single = jax.jit(jax.grad(loss))
    for name, gradient in found.items():
        wanted = backend.xp.stack([single(params, u)[name] for u in v.u])
        agree(gradient, wanted, backend, dtype, "layers.S4D")


def flat(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.cases(WITH_STATES)
def test_jax_vmap_of_functions(case: Case, backend: Backend, dtype: str):
    """Of all inputs, and of each alone."""
    jax, (samples, stacked, call) = backend.module, two_samples(case, backend, dtype)
    single = jax.jit(call)
    for given in (stacked, *({name: x} for name, x in stacked.items())):
        each = [flat(single({name: getattr(v, name) for name in given})) for v in samples]
        for x, *of_each in zip(flat(jax.jit(jax.vmap(call))(given)), *each, strict=True):
            agree(x, backend.xp.stack(of_each), backend, dtype, case.function)


@pytest.mark.cases(WITH_STATES)
def test_jax_derivatives_of_functions(case: Case, backend: Backend, dtype: str):
    """Forward against reverse, mapped: <c, J t> = <J^T c, t> with c = cos(y)."""
    jax, (_, stacked, call) = backend.module, two_samples(case, backend, dtype)
    tangents = {name: backend.xp.cos(3 * x) for name, x in stacked.items()}

    def slopes(given: Any, along: Any) -> Any:
        found, forward = jax.jvp(lambda v: flat(call(v)), (given,), (along,))
        _, back = jax.vjp(lambda v: flat(call(v)), given)
        (reverse,) = back(tuple(jax.numpy.cos(y) for y in found))
        along_outputs = sum((jax.numpy.cos(y) * dy).sum() for y, dy in zip(found, forward, strict=True))
        return along_outputs, sum((g * along[name]).sum() for name, g in reverse.items())

    forward, reverse = jax.jit(jax.vmap(slopes))(stacked, tangents)
    agree(forward, reverse, backend, dtype, case.function)


def test_jax_hessian_and_jacobians(backend: Backend, dtype: str):
    jax, v = backend.module, scan_inputs(backend, dtype, examples.REAL)

    def output(state: Any) -> Any:
        return ssm_core.scan(examples.REAL.system(v), v.u, dt=0.1, initial=state, mode="scan")[0]

    values = examples.rounded(backend, v)
    system = truth.discrete(examples.REAL.plain(values), 0.1)
    rows = np.stack([truth.recurrence(system, np.zeros(L), e)[0] for e in np.eye(4)])
    hessian = jax.jit(jax.hessian(lambda state: (output(state) ** 2).sum()))
    assert_close(hessian(v.state), 2 * rows @ rows.T, backend, dtype, function="scan", terms=64 * L)
    for jacobian in (jax.jacfwd, jax.jacrev):
        assert_close(jax.jit(jacobian(output))(v.state), rows.T, backend, dtype, function="scan", terms=64 * L)


def test_jax_systems_are_pytrees(backend: Backend, dtype: str):
    jax, v = backend.module, scan_inputs(backend, dtype)
    system = ssm_core.Diagonal(v.poles, v.B, v.C, conj_pairs=True)
    assert len(jax.tree.leaves(system)) == 3
    gradient = jax.jit(jax.grad(lambda s: ssm_core.kernel(s, 8, dt=0.1).sum()))(system)
    assert isinstance(gradient, ssm_core.Diagonal)
    assert gradient.conj_pairs
    assert gradient.D is None
    stacked = jax.tree.map(lambda x: backend.xp.stack([x, 2 * x]), system)
    mapped = jax.vmap(lambda s: ssm_core.kernel(s, 8, dt=0.1))(stacked)
    agree(mapped[0], ssm_core.kernel(system, 8, dt=0.1), backend, dtype, "kernel")


def test_nnx_transforms(backend: Backend, dtype: str):
    """nnx.jit, nnx.grad and nnx.eval_shape of the module."""
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
    jax, v = backend.module, layer_inputs(backend, dtype)

    def build() -> Any:
        return ssm_core.adapters.flax.S4D(3, d_state=4, rngs=nnx.Rngs(0))

    module = build()
    wanted = module(v.u)
    agree(nnx.jit(lambda m, u: m(u))(module, v.u), wanted, backend, dtype, "layers.S4D")
    gradient = nnx.jit(nnx.grad(lambda m, u: m(u).sum()))(module, v.u)
    by_dict = jax.jit(jax.grad(lambda p: LAYER.apply(p, v.u).sum()))(module.arrays())
    for name, expected in by_dict.items():
        agree(gradient[name][...], expected, backend, dtype, "layers.S4D")
    shapes = nnx.eval_shape(build)
    assert {p.name: tuple(getattr(shapes, p.name).shape) for p in LAYER.parameters()} == {
        p.name: p.shape for p in LAYER.parameters()
    }
    assert isinstance(shapes.C_re.get_value(), jax.ShapeDtypeStruct)
