"""The modules of Mamba's family under the transformations of PyTorch and JAX, and their gradients in both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssm_core import adapters

from .backends import HALF, Backend
from .capabilities import function_of
from .cases import layers
from .examples import Draw
from .test_adapters import BUILDS, LANGUAGE, flax_module, inputs, placed, torch_module
from .tolerances import assert_close, compare

pytestmark = pytest.mark.dtypes("float32")

GATED = tuple(name for cases in layers.GATED for name in cases.modules)


# Gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", [name for name in LANGUAGE if name != "Mamba3LM"])
def test_gradients_of_language_models_agree(name: str, backend: Backend, torch_too: Backend, dtype: str):
    """By the names and in the layouts of weight files, whatever the frameworks' own parts are.

    Of tokens for which the gradient is well conditioned: weights that are rounded move it by 3e-6 of its largest entry
    or less in each model. Those of Draw(1) bring an output of HGRN2 near zero before its norm, and move it by 1e-4.
    """
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
    torch, flax = torch_module(name, torch_too), flax_module(name)
    torch.load_state_dict({n: torch_too.asarray(np.asarray(x)) for n, x in flax.arrays().items()})
    ids = inputs(name, Draw(12), 9)
    torch_too.module.sin(10 * torch(torch_too.asarray(ids))).sum().backward()
    definition, state, rest = nnx.split(flax, nnx.Param, ...)  # the rest: the keys of dropout

    def loss(state: Any, ids: Any) -> Any:
        return backend.xp.sin(10 * nnx.merge(definition, state, rest)(ids)).sum()

    gradients = backend.jit(backend.module.grad(loss))(state, backend.asarray(ids))
    found = nnx.merge(definition, gradients, rest).arrays()
    for n, p in torch.named_parameters():
        wanted = torch_too.to_numpy(p.grad)
        compare(backend.to_numpy(found[n]), wanted, backend, dtype, function=function_of(BUILDS[name][0]), terms=64 * 9)


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", GATED)
def test_gradients_of_every_sample_agree(name: str, backend: Backend, torch_too: Backend, dtype: str):
    """vmap of grad in both, with respect to the parameters."""
    pytest.importorskip("flax.nnx", reason="flax is not installed")
    jax, func, module = backend.module, torch_too.module.func, torch_module(name, torch_too)
    u = Draw(1).real(2, 20, 4)

    def loss(params: dict[str, Any], u: Any) -> Any:
        return (module.definition.apply(params, u[None, ...]) ** 2).sum()

    params, x = {n: p.detach() for n, p in module.arrays().items()}, torch_too.asarray(u, dtype)
    wanted = func.vmap(func.grad(loss), in_dims=(None, 0))(params, x)
    given = {n: backend.asarray(torch_too.to_numpy(p), dtype) for n, p in params.items()}
    found = backend.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(given, backend.asarray(u, dtype))
    alone = func.grad(loss)(params, x[1])
    for n, g in wanted.items():
        expected, function = torch_too.to_numpy(g), function_of(BUILDS[name][0])
        compare(torch_too.to_numpy(alone[n]), expected[1], torch_too, dtype, function=function, terms=64 * 20)
        compare(backend.to_numpy(found[n]), expected, backend, dtype, function=function, terms=64 * 20)


# In models -----------------------------------------------------------------------------------------------------------


@pytest.mark.backends("torch")
@pytest.mark.parametrize("pool", ["mean", "last", None])
@pytest.mark.parametrize("name", GATED)
def test_sequence_models_in_pieces_and_steps(name: str, pool: str | None, backend: Backend, dtype: str):
    torch, options = backend.module, {k: v for k, v in BUILDS[name][1].items() if k != "d_model"}
    torch.manual_seed(0)
    made = adapters.torch.SequenceModel(
        4, 3, 4, 2, layer=BUILDS[name][0], layer_options=options, pool=pool, device=backend.device
    )
    u = backend.asarray(Draw(1).real(2, 20, 4), dtype)
    params = {n: backend.to_numpy(p) for n, p in made.arrays().items()}
    wanted = made.definition.apply(params, backend.to_numpy(u))
    _, state = made(u[:, :7], return_state=True)
    _, state = made(u[:, 7:18], state=state, return_state=True)
    step = made.stepper()
    for k in (18, 19):
        y, state = step(u[:, k], state)
    function = "models.SequenceModel"
    assert_close(made(u), wanted, backend, dtype, function=function, terms=64 * 20)
    assert_close(y, wanted if pool else wanted[:, -1], backend, dtype, function=function, terms=64 * 20)


# PyTorch's transformations -------------------------------------------------------------------------------------------


def call(module: Any, u: Any, state: Any, reset: Any) -> list[Any]:
    """Outputs and states of a run over more than one chunk, and of one step."""
    y, last = module(u, state=state, return_state=True, reset=reset)
    y_t, after = module.step(u[:, 0], state)
    return [y, *last, y_t, *after]


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", GATED)
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_torch_compile(name: str, backend: Backend, dtype: str):
    """In one graph."""
    backend.module._dynamo.reset()  # of one function so many programs are kept as modules were before, up to a limit
    module, d = torch_module(name, backend), Draw(1)
    u, reset = backend.asarray(d.real(2, 20, 4), dtype), backend.asarray(d.resets(2, 20))
    given = (module, u, module.initial_state(2), reset)
    found = backend.module.compile(call, fullgraph=True, backend="eager")(*given)
    for actual, wanted in zip(found, call(*given), strict=True):
        assert_close(
            actual, backend.to_numpy(wanted), backend, dtype, function=function_of(BUILDS[name][0]), terms=64 * 20
        )


@pytest.mark.backends("torch")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_torch_compiled_gradient(backend: Backend, dtype: str):
    """Of Mamba, whose softplus PyTorch traces with strides that it does not have."""
    torch, module = backend.module, torch_module("Mamba", backend)
    u = backend.asarray(Draw(1).real(2, 3, 4), dtype).requires_grad_()

    def gradient(function: Any) -> Any:
        return torch.autograd.grad(function(u).square().sum(), u)[0]

    found, wanted = gradient(torch.compile(module, fullgraph=True, backend="aot_eager")), gradient(module)
    assert_close(found, backend.to_numpy(wanted), backend, dtype, function="layers.Mamba", terms=64 * 3)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", [*GATED, "MambaLM"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_torch_export(name: str, backend: Backend, dtype: str):
    module = torch_module(name, backend)
    u = placed(backend, inputs(name, Draw(1), 20), dtype)
    with backend.module.no_grad():
        program = backend.module.export.export(module, (u,))
        found, wanted = program.module()(u), backend.to_numpy(module(u))
    assert_close(found, wanted, backend, dtype, function=function_of(BUILDS[name][0]), terms=64 * 20)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("name", GATED)
def test_torch_autocast_stops_at_the_layer(name: str, half: str, backend: Backend, dtype: str):
    """Gates and states stay in float32 there, forward and backward; what comes in half goes out in half."""
    torch, module = backend.module, torch_module(name, backend)
    u = backend.asarray(Draw(1).real(2, 20, 4), dtype)
    wanted = module(u)
    with torch.autocast(backend.device.type, dtype=backend.dtype(half)):
        found, from_half = module(u), module(u.to(backend.dtype(half)))
    assert torch.equal(found, wanted)
    assert from_half.dtype == backend.dtype(half)
    gradients = [torch.autograd.grad(y.sum(), list(module.parameters())) for y in (found, wanted)]
    for actual, expected in zip(*gradients, strict=True):
        assert torch.equal(actual, expected)
