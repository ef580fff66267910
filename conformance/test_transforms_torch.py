"""Functions and layers under the transformations of PyTorch: compile, export, vmap, grad, hessian, autocast."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core

from . import examples, truth
from .backends import Backend
from .cases import functions, systems
from .cases.functions import Case
from .cases.instance import params_of
from .examples import Draw
from .test_gradients import floating
from .tolerances import assert_close
from .transformed import LAYER, WITH_STATES, L, agree, layer_inputs, layer_modes, modes_of, scan_inputs, two_samples

pytestmark = [
    pytest.mark.fast_paths,
    pytest.mark.backends("torch"),
    pytest.mark.dtypes("float32"),
    # PyTorch's own forward mode and compiler do what PyTorch advises against.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning"),
]

# What NumPy computes on the host: constructors, eigenvalues of `to_diagonal`, other packages.
ON_HOST = ("hippo", "nplr", "diagonal_init", "eigenvector_condition", "to_diagonal", "to_scipy", "from_scipy")
EACH = {case.function: case for case in reversed((*functions.ALL, *systems.ALL)) if case.function not in ON_HOST}
ONE_EACH = tuple(EACH.values())


@pytest.mark.cases((*ONE_EACH, *WITH_STATES))
def test_torch_compile_of_functions(case: Case, backend: Backend, dtype: str):
    """In one graph."""
    arrays, _ = case.inputs(backend, dtype)
    compiled = backend.module.compile(case.call, fullgraph=True, backend="eager")
    agree(compiled(arrays), case.call(arrays), backend, dtype, case.function)


def test_torch_compile_of_the_layer(backend: Backend, dtype: str):
    torch, v = backend.module, layer_inputs(backend, dtype)
    params = {name: p.requires_grad_() for name, p in params_of(v, LAYER).items()}
    compiled = torch.compile(layer_modes, fullgraph=True, backend="aot_eager")
    found, wanted = (f(params, v.u, v.state, v.reset) for f in (compiled, layer_modes))
    agree(found, wanted, backend, dtype, "layers.S4D")
    gradients = [torch.autograd.grad(sum(y.real.sum() for y in ys), list(params.values())) for ys in (found, wanted)]
    agree(gradients[0], gradients[1], backend, dtype, "layers.S4D")


def test_torch_compile_for_numbers_that_vary(backend: Backend, dtype: str):
    """Options become symbols with their second value."""
    torch, v = backend.module, scan_inputs(backend, dtype)
    torch.compiler.reset()

    def run(number: float) -> Any:
        system = ssm_core.Diagonal(v.poles, v.B, v.C, number, conj_pairs=True)
        q = v.u[None, :, None, None]
        return *ssm_core.scan(system, v.u, dt=number), ssm_core.gated_linear_attention(q, q, q, scale=number)

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for number in (0.1, 0.2, 0.3):
        agree(compiled(number), run(number), backend, dtype, "scan")


@pytest.mark.parametrize("mode", ["conv", "chunk", "scan"])
def test_torch_compile_for_lengths_that_vary(mode: str, backend: Backend, dtype: str):
    """Sizes become symbols with the second length."""
    torch, v = backend.module, layer_inputs(backend, dtype)
    torch.compiler.reset()
    params = params_of(v, LAYER)

    def run(u: Any) -> Any:
        return LAYER.apply(params, u, mode=mode)

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for length in (L, L - 7, L - 8):
        u = v.u[:, :length, :]
        agree(compiled(u), run(u), backend, dtype, "layers.S4D")


def test_torch_compile_by_inductor(backend: Backend, dtype: str):
    """The compiler that users have by default, on the recurrent mode, whose operator is our own."""
    torch, v = backend.module, layer_inputs(backend, dtype)
    params = {name: p.requires_grad_() for name, p in params_of(v, LAYER).items()}

    def run(params: dict[str, Any], u: Any) -> Any:
        return LAYER.apply(params, u, mode="scan")

    found, wanted = torch.compile(run, fullgraph=True)(params, v.u), run(params, v.u)
    agree(found, wanted, backend, dtype, "layers.S4D")
    gradients = [torch.autograd.grad(y.sum(), list(params.values())) for y in (found, wanted)]
    agree(gradients[0], gradients[1], backend, dtype, "layers.S4D")


def test_torch_compiled_forward_mode(backend: Backend, dtype: str):
    """Right where the generic body can be traced; beyond, refused rather than silently zero."""
    torch = backend.module

    def scan(b: Any) -> Any:
        return ssm_core.linear_scan(0.5, b, axis=0)

    def convolve(u: Any) -> Any:
        return ssm_core.convolve(u, u[..., :4])

    short, long = (backend.asarray(np.ones((n, 12)), dtype) for n in (12, 100))
    for f in (scan, convolve):
        run = lambda x, f=f: torch.func.jvp(f, (x,), (x,))[1]  # noqa: E731
        compiled = torch.compile(run, fullgraph=True, backend="eager")
        agree(compiled(short), run(short), backend, dtype, "linear_scan")
    with pytest.raises(Exception, match="compile no forward-mode derivatives"):
        torch.compile(lambda x: torch.func.jvp(scan, (x,), (x,))[1], fullgraph=True, backend="eager")(long)


@pytest.mark.parametrize("mode", ["conv", "chunk", "scan"])
def test_torch_export(mode: str, backend: Backend, dtype: str):
    torch, v = backend.module, layer_inputs(backend, dtype)
    module = ssm_core.adapters.torch.S4D(3, d_state=4, device=backend.device)
    with torch.no_grad():
        program = torch.export.export(module, (v.u,), {"state": v.state, "return_state": True, "mode": mode})
        found = program.module()(v.u, state=v.state, return_state=True, mode=mode)
        agree(found, module(v.u, state=v.state, return_state=True, mode=mode), backend, dtype, "layers.S4D")


@pytest.mark.parametrize("mode", ["conv", "chunk", "scan"])
def test_torch_func_vmap_of_grad(mode: str, backend: Backend, dtype: str):
    """A gradient for every sample, with respect to the parameters."""
    func, v = backend.module.func, layer_inputs(backend, dtype)
    params = params_of(v, LAYER)

    def loss(params: dict[str, Any], u: Any) -> Any:
        return (LAYER.apply(params, u[None, ...], mode=mode) ** 2).sum()

    found = func.vmap(func.grad(loss), in_dims=(None, 0))(params, v.u)
    for name, gradient in found.items():
        wanted = backend.module.stack([func.grad(loss)(params, u)[name] for u in v.u])
        agree(gradient, wanted, backend, dtype, "layers.S4D")


@pytest.mark.parametrize("axes", [(0, 0), (1, 1), (2, 2), (None, 1), (2, None)], ids=str)
def test_torch_func_vmap_of_scan(axes: tuple[int | None, int | None], backend: Backend, dtype: str):
    """The mapped axis anywhere, in the gate, the input or both."""
    torch, d = backend.module, Draw(3)
    mapped = next(axis for axis in axes if axis is not None)
    inputs = [backend.asarray(x, dtype) for x in (d.gates(5, 4, 3), d.real(5, 4, 3))]
    inputs = [x if axis is not None else x.select(mapped, 0) for x, axis in zip(inputs, axes, strict=True)]

    def scan(a: Any, b: Any) -> Any:
        return ssm_core.linear_scan(a, b, axis=0)

    def piece(i: int) -> Any:
        return scan(*(x if axis is None else x.select(axis, i) for x, axis in zip(inputs, axes, strict=True)))

    wanted = torch.stack([piece(i) for i in range((5, 4, 3)[mapped])])
    agree(torch.func.vmap(scan, in_dims=axes)(*inputs), wanted, backend, dtype, "linear_scan")


@pytest.mark.parametrize("example", [examples.PAIRS, examples.MIMO], ids=lambda e: e.label)
def test_torch_func_vmap_of_modes(example: examples.Example, backend: Backend, dtype: str):
    """Signals and states mapped together, in every mode."""
    torch, v = backend.module, scan_inputs(backend, dtype, example, batch=(3,))

    def run(u: Any, state: Any) -> Any:
        return modes_of(SimpleNamespace(**vars(v) | {"u": u, "state": state}), example)

    agree(torch.func.vmap(run)(v.u, v.state), run(v.u, v.state), backend, dtype, "scan")


def test_torch_hessian(backend: Backend, dtype: str):
    """Forward over reverse, mapped: of the output energy with respect to the first state."""
    torch, v = backend.module, scan_inputs(backend, dtype, examples.REAL)

    def energy(state: Any) -> Any:
        y, _ = ssm_core.scan(examples.REAL.system(v), v.u, dt=0.1, initial=state, mode="scan")
        return (y**2).sum()

    values = examples.rounded(backend, v)
    system = truth.discrete(examples.REAL.plain(values), 0.1)
    zero = np.zeros(L)
    rows = np.stack([truth.recurrence(system, zero, e)[0] for e in np.eye(4)])
    assert_close(torch.func.hessian(energy)(v.state), 2 * rows @ rows.T, backend, dtype, function="scan", terms=64 * L)


@pytest.mark.cases(WITH_STATES)
def test_torch_vmap_of_functions(case: Case, backend: Backend, dtype: str):
    """Of all inputs, and of each alone."""
    func, (samples, stacked, call) = backend.module.func, two_samples(case, backend, dtype)
    for given in (stacked, *({name: x} for name, x in stacked.items())):
        each = [call({name: getattr(v, name) for name in given}) for v in samples]
        found = func.vmap(call)(given)
        for x, *of_each in zip(*(y if isinstance(y, tuple) else (y,) for y in (found, *each)), strict=True):
            agree(x, backend.xp.stack(of_each), backend, dtype, case.function)


@pytest.mark.cases(WITH_STATES)
def test_torch_batches_of_gradients_of_each_result(case: Case, backend: Backend, dtype: str):
    """With is_grads_batched, also of states alone."""
    torch, (arrays, _) = backend.module, case.inputs(backend, dtype)
    leaves = [arrays.__dict__[name].requires_grad_() for name in floating(arrays)]
    for result in case.results(backend, arrays):
        slopes = torch.stack([torch.ones_like(result), result.detach()])
        ways: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
        found = torch.autograd.grad(result, leaves, slopes, is_grads_batched=True, **ways)
        for x, *of_each in zip(found, *(torch.autograd.grad(result, leaves, g, **ways) for g in slopes), strict=True):
            if x is not None:
                agree(x, torch.stack(of_each), backend, dtype, case.function)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_torch_autocast_stops_at_the_layer(half: str, backend: Backend, dtype: str):
    """Powers and states stay in float32 there, forward and backward; what comes in half goes out in half."""
    torch = backend.module
    module = ssm_core.adapters.torch.S4D(3, d_state=4, device=backend.device)
    u = backend.asarray(Draw(1).real(2, L, 3), "float32")
    wanted = module(u)
    with torch.autocast(backend.device.type, dtype=getattr(torch, half)):
        found, from_half = module(u), module(u.to(getattr(torch, half)))
    agree(found, wanted, backend, dtype, "layers.S4D")
    assert from_half.dtype == getattr(torch, half)
    gradients = [torch.autograd.grad(y.sum(), list(module.parameters())) for y in (found, wanted)]
    agree(gradients[0], gradients[1], backend, dtype, "layers.S4D")


@pytest.mark.cases(ONE_EACH)
def test_torch_autocast_stops_at_functions(case: Case, backend: Backend, dtype: str):
    """Also called outside of a module they compute in float32."""
    torch, (arrays, _) = backend.module, case.inputs(backend, dtype)
    with torch.autocast(backend.device.type, dtype=torch.bfloat16):
        found = case.results(backend, arrays)
    for x, y in zip(found, case.results(backend, arrays), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


def test_torch_systems_are_pytrees(backend: Backend, dtype: str):
    """A gradient with respect to a system is a system; fields that are None are no leaves."""
    torch, v = backend.module, scan_inputs(backend, dtype)
    system = ssm_core.Diagonal(v.poles, v.B, v.C, conj_pairs=True)
    gradient = torch.func.grad(lambda s: ssm_core.kernel(s, 8, dt=0.1).sum())(system)
    assert isinstance(gradient, ssm_core.Diagonal)
    assert gradient.conj_pairs
    assert gradient.D is None
    by_field = torch.func.grad(
        lambda B: ssm_core.kernel(ssm_core.Diagonal(v.poles, B, v.C, conj_pairs=True), 8, dt=0.1).sum()
    )
    agree(gradient.B, by_field(v.B), backend, dtype, "kernel")
