"""Functions whose steps depend on the input under the transformations of PyTorch and of JAX.

One case of each with most of its options: compiled in one graph, for a length that varies too, exported, mapped, and
differentiated for every sample.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import ssm_core

from .backends import Backend
from .cases import duality, selective
from .cases.functions import Case
from .test_gradients import floating
from .transformed import agree

pytestmark = [
    pytest.mark.fast_paths,
    pytest.mark.dtypes("float32"),
    # PyTorch's own forward mode and compiler do what PyTorch advises against.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning"),
]

NAMED = {case.label: case for case in (*selective.ALL, *duality.ALL)}
CASES = tuple(
    NAMED[label]
    for label in (
        "selective_scan[grouped-everything-chunks_of_4]",
        "selective_scan[trapezoidal-everything]",
        "ssd[everything-chunks_of_4]",
        "ssd[A_and_D_of_all-lengths]",
        "mamba3_scan[everything-chunks_of_4]",
        "mamba3_scan[rank-lengths]",
        "causal_conv1d[reset-lengths]",
        "rms_norm[gate_first-groups]",
        "selective_state_update[heads]",
    )
)
PACKED = tuple(case for case in NAMED.values() if case.name == "packed")
IN_TIME = ("selective_scan", "ssd", "mamba3_scan", "causal_conv1d")
SHORTER = (7, 6)  # steps, where a case has more


def split(case: Case, backend: Backend, dtype: str) -> tuple[SimpleNamespace, dict[str, Any]]:
    """All inputs, and those that are floating arrays."""
    arrays, _ = case.inputs(backend, dtype)
    return arrays, {name: getattr(arrays, name) for name in floating(arrays)}


def with_(arrays: SimpleNamespace, given: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**vars(arrays) | given)


def results(case: Case, arrays: SimpleNamespace, given: dict[str, Any]) -> tuple[Any, ...]:
    found = case.call(with_(arrays, given))
    return found if isinstance(found, tuple) else (found,)


def energy(case: Case, arrays: SimpleNamespace, given: dict[str, Any], xp: Any) -> Any:
    return sum(xp.sum(y * y) for y in results(case, arrays, given))


def stacked(given: dict[str, Any], xp: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two sets of inputs along a new axis, and one by one."""
    singles = [given, {name: x * 0.75 for name, x in given.items()}]
    return {name: xp.stack([single[name] for single in singles], axis=0) for name in given}, singles


@pytest.fixture(autouse=True)
def forgotten(backend: Backend) -> None:
    """Cases share their code: without this, each would be compiled as a variant of the one before, with its sizes."""
    if backend.family == "torch":
        backend.module.compiler.reset()


# PyTorch -------------------------------------------------------------------------------------------------------------


@pytest.mark.cases((*CASES, *PACKED))
@pytest.mark.backends("torch")
def test_torch_compile(case: Case, backend: Backend, dtype: str):
    """Forward and backward in one graph each."""
    torch = backend.module
    arrays, given = split(case, backend, dtype)
    compiled, gradients = torch.compile(case.call, fullgraph=True, backend="aot_eager"), []
    for f in (compiled, case.call):
        leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
        found = f(with_(arrays, leaves))
        found = found if isinstance(found, tuple) else (found,)
        loss = sum((y**2).sum() for y in found)
        gradients.append([*found, *torch.autograd.grad(loss, list(leaves.values()))])
    agree(gradients[0], gradients[1], backend, dtype, case.function)


@pytest.mark.cases([case for case in CASES if case.function in IN_TIME and "lengths" not in case.name])
@pytest.mark.backends("torch")
def test_torch_compile_for_a_length_that_varies(case: Case, backend: Backend, dtype: str):
    """The second length makes sizes symbolic."""
    arrays, given = split(case, backend, dtype)
    compiled = backend.module.compile(case.call, fullgraph=True, backend="eager")
    length = duality.L
    for steps in (length, *SHORTER):
        cut = {name: x.narrow(list(x.shape).index(length), 0, steps) if length in x.shape else x for name, x in
               given.items()}  # fmt: skip
        cut |= {"reset": arrays.reset[:, :steps]} if hasattr(arrays, "reset") else {}
        v = with_(arrays, cut)
        agree(compiled(v), case.call(v), backend, dtype, case.function)


@pytest.mark.cases(CASES)
@pytest.mark.backends("torch")
def test_torch_export(case: Case, backend: Backend, dtype: str):
    torch = backend.module
    arrays, given = split(case, backend, dtype)

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, given: dict[str, Any]) -> Any:
            return results(case, arrays, given)

    with torch.no_grad():
        program = torch.export.export(Module(), (given,))
        agree(program.module()(given), results(case, arrays, given), backend, dtype, case.function)


@pytest.mark.cases(CASES)
@pytest.mark.backends("torch")
def test_torch_vmap(case: Case, backend: Backend, dtype: str):
    """Of the function, and of its gradient with respect to everything."""
    func, (arrays, given) = backend.module.func, split(case, backend, dtype)
    both, singles = stacked(given, backend.xp)

    def run(given: dict[str, Any]) -> Any:
        return results(case, arrays, given)

    def slope(given: dict[str, Any]) -> Any:
        return tuple(func.grad(lambda given: energy(case, arrays, given, backend.xp))(given).values())

    for f in (run, slope):
        wanted = [backend.xp.stack(ys, axis=0) for ys in zip(*map(f, singles), strict=True)]
        agree(func.vmap(f)(both), wanted, backend, dtype, case.function)


# JAX -----------------------------------------------------------------------------------------------------------------


@pytest.mark.cases(CASES)
@pytest.mark.backends("jax")
def test_jax_vmap(case: Case, backend: Backend, dtype: str):
    """Of the function and of its gradient, under jit."""
    jax, (arrays, given) = backend.module, split(case, backend, dtype)
    both, singles = stacked(given, backend.xp)

    def run(given: dict[str, Any]) -> Any:
        slopes = jax.grad(lambda given: energy(case, arrays, given, backend.xp))(given)
        return (*results(case, arrays, given), *slopes.values())

    single = backend.jit(run)
    wanted = [backend.xp.stack(ys) for ys in zip(*map(single, singles), strict=True)]
    agree(backend.jit(jax.vmap(run))(both), wanted, backend, dtype, case.function)


@pytest.mark.cases([case for case in NAMED.values() if case.name == "packed-states"])
@pytest.mark.backends("jax")
def test_packed_sequences_with_states_are_refused_under_a_trace(case: Case, backend: Backend, dtype: str):
    """cu_seqlens lays out memory, so it must be known; a jit may close over it."""
    arrays, _ = case.inputs(backend, dtype)
    traced = backend.jit(lambda given: case.call(with_(arrays, given)))
    everything = {name: x for name, x in vars(arrays).items() if backend.owns(x)}
    for given in ({"cu_seqlens": arrays.cu_seqlens}, everything):
        with pytest.raises(ssm_core.OptionError, match=r"cu_seqlens as known numbers.* Make it outside of the traced"):
            traced(given)


@pytest.mark.cases([case for case in NAMED.values() if case.name == "packed-states"])
@pytest.mark.backends("torch")
def test_packed_sequences_with_states_do_not_compile(case: Case, backend: Backend, dtype: str):
    arrays, _ = case.inputs(backend, dtype)
    compiled = backend.module.compile(case.call, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"cu_seqlens as known numbers.* Make it outside of the traced"):
        compiled(arrays)
