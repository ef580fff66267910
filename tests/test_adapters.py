"""The layers as modules of PyTorch and Flax: the same functions in both."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modules import FRAMEWORKS, INNER, OPTIONS, B, Framework, H, L, close, host, signal

import ssm_core
from ssm_core import adapters, layers

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return Framework(request.param)


# JAX compiles every case for a second or two, so Flax takes fewer of them.
CASES = [*(("torch", name) for name in OPTIONS), ("flax", "default")]
POOLS = [("torch", "mean"), ("torch", "last"), ("torch", None), ("flax", "mean")]


@pytest.mark.parametrize(("framework", "name"), CASES, indirect=["framework"])
def test_layers_are_their_definitions(name: str, framework: Framework):
    module = framework.s4d(**OPTIONS[name])
    params, u, d = host(module), signal(), module.definition
    assert d == layers.S4D(H, **INNER, **OPTIONS[name])
    assert params.keys() == {p.name for p in d.parameters()}
    assert {x.dtype for x in params.values()} == {np.dtype(np.float32)}
    y, K = framework.run(lambda m, u: (m(u), m.kernel(L, rate=2.0)), module, framework.asarray(u))
    close(y, d.apply(params, u))
    close(K, d.kernel(params, L, rate=2.0))


def test_all_options_of_a_call_arrive(framework: Framework):
    module = framework.s4d()
    params, u, d = host(module), signal(), module.definition
    reset, lengths, scale = np.zeros((B, L), bool), np.asarray([5, L]), np.full((B, L), 1.5, np.float32)
    reset[:, 3] = True
    state = d.initial_state(params, B) + np.complex64(1 + 1j)
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"reset": reset, "state": state, "lengths": lengths}, {"mode": "chunk", "rate": 2.0}),
        ({"step_scale": scale}, {"mode": "scan"}),
    ]
    for arrays, options in calls if framework.name == "torch" else calls[:1]:
        given = {k: framework.asarray(v) for k, v in arrays.items()}
        call = lambda m, u, given, options=options: m(u, return_state=True, **given, **options)  # noqa: E731
        y, last = framework.run(call, module, framework.asarray(u), given)
        wanted, end = d.apply(params, u, return_state=True, **arrays, **options)
        valid = slice(0, 5) if "lengths" in arrays else slice(None)
        close(y[:, valid], wanted[:, valid])
        close(last, end)
    with pytest.raises(ssm_core.OptionError, match="unknown mode 'fft'"):
        module(framework.asarray(u), mode="fft")


@pytest.mark.parametrize(
    ("framework", "name"),
    [("torch", "default"), ("torch", "channels"), ("torch", "real"), ("flax", "default")],
    indirect=["framework"],
)
def test_layers_step(name: str, framework: Framework):
    module, u = framework.s4d(**OPTIONS[name]), framework.asarray(signal(length=2))

    def steps(module: Any, u: Any) -> Any:
        step, state, outputs = module.stepper(rate=2.0), module.initial_state(B), []
        for k in range(2):
            y, state = step(u[:, k], state)
            outputs.append(y)
        again, _ = module.step(u[:, 0], module.initial_state(B), rate=2.0)
        return outputs, state, again, module(u, return_state=True, rate=2.0)

    outputs, state, again, (wanted, last) = framework.run(steps, module, u)
    for k, y in enumerate(outputs):
        close(y, wanted[:, k])
    close(state, last)
    close(again, outputs[0])


@pytest.mark.parametrize(("framework", "pool"), POOLS, indirect=["framework"])
def test_models_are_their_definitions(pool: str | None, framework: Framework):
    module = framework.model(pool=pool)
    params, u, d = host(module), signal(3), module.definition
    assert {name: x.shape for name, x in params.items()} == {p.name: p.shape for p in d.parameters()}
    lengths = np.asarray([5, 8])

    def both(m: Any, u: Any, lengths: Any) -> Any:
        _, state = m(u[:, :-8], return_state=True)
        y, state = m(u[:, -8:], state=state, return_state=True, lengths=lengths)
        return y, state, m(u)

    y, state, whole = framework.run(both, module, framework.asarray(u), framework.asarray(lengths))
    close(whole, d.apply(params, u))
    wanted = d.apply(params, u, lengths=lengths + L - 8)
    valid = slice(L - 8, L - 3)
    close(y[:, :5] if pool is None else y, wanted[:, valid] if pool is None else wanted)
    _, end = d.apply(params, u, lengths=lengths + L - 8, return_state=True)
    for x, z in zip(state[:-1], end[:-1], strict=True):
        close(x, z)


def test_models_step(framework: Framework):
    module, u = framework.model(), signal(3, 2)

    def steps(module: Any, u: Any) -> Any:
        step, state = module.stepper(rate=2.0), module.initial_state(B)
        first = module.step(u[:, 0], state, rate=2.0)[0]
        for k in range(2):
            y, state = step(u[:, k], state)
        return first, y

    params, d = host(module), module.definition
    for length, y in enumerate(framework.run(steps, module, framework.asarray(u)), start=1):
        close(y, d.apply(params, u[:, :length], rate=2.0))


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_weights_travel(kind: str, framework: Framework, tmp_path: Path):
    pytest.importorskip("safetensors")
    module, path = getattr(framework, kind)(), tmp_path / "weights.safetensors"
    framework.adapter.save(module, path)
    definition, params = ssm_core.load(path)
    assert definition == module.definition
    for other in map(Framework, FRAMEWORKS):
        loaded = other.adapter.load(str(path))
        assert type(loaded) is getattr(other.adapter, definition.name)
        assert loaded.definition == definition
        for weights in (host(module), host(loaded)):
            assert weights.keys() == params.keys()
            for name, x in weights.items():
                np.testing.assert_array_equal(x, params[name])


def test_the_same_seed_draws_the_same(framework: Framework):
    first, same, other = (host(framework.s4d(seed=seed)) for seed in (0, 0, 1))
    for name, x in first.items():
        np.testing.assert_array_equal(same[name], x)
    assert (first["C_re"] != other["C_re"]).all()


@pytest.mark.parametrize("cls", ["S4D", "SequenceModel"])
def test_signatures_are_those_of_the_definition(cls: str):
    special = {"torch": {"device", "dtype"}, "flax": {"rngs", "param_dtype"}, "equinox": {"key", "dtype"}}
    definition = inspect.signature(getattr(layers, cls)).parameters
    for name in FRAMEWORKS:
        framework = Framework(name)
        found = dict(inspect.signature(getattr(framework.adapter, cls).__init__).parameters)
        found.pop("self")
        assert list(found) == [*definition, *sorted(special[name], key=list(found).index)]
        for key, parameter in definition.items():
            if key != "layer_options":  # a mutable default, None in the modules
                assert found[key].default == parameter.default


@pytest.mark.parametrize("name", ["flax", "equinox"])
def test_calls_are_those_of_torch(name: str):
    own, torch = Framework(name).adapter, Framework("torch").adapter
    for cls in ("S4D", "SequenceModel", "MambaLM"):
        methods = ("step", "stepper", "initial_state", *(("stream", "generate") if cls == "MambaLM" else ()))
        for a, b in (("forward", "__call__"), *zip(methods, methods, strict=True)):
            first, second = (inspect.signature(getattr(getattr(m, cls), n)) for m, n in ((torch, a), (own, b)))
            defaults = {n: p.default for n, p in second.parameters.items() if n != "key"}
            rest = [n for n, p in second.parameters.items() if p.kind is p.VAR_KEYWORD]  # handed on to the definition
            wanted = {n: p.default for n, p in first.parameters.items() if n in defaults or not rest}
            assert {n: default for n, default in defaults.items() if n not in rest} == wanted


def test_empty_batches_and_sequences(framework: Framework):
    module = framework.s4d()
    for shape in ((0, L, H), (B, 0, H)):
        assert framework.run(lambda m, u: m(u), module, framework.asarray(np.ones(shape, np.float32))).shape == shape


@pytest.mark.parametrize(("framework", "pool"), POOLS, indirect=["framework"])
def test_models_of_empty_batches(pool: str | None, framework: Framework):
    y = framework.run(lambda m, u: m(u), framework.model(pool=pool), framework.asarray(np.ones((0, L, 3), np.float32)))
    assert y.shape == ((0, L, 2) if pool is None else (0, 2))


def test_unknown_adapters():
    with pytest.raises(AttributeError, match=r"module 'ssm_core\.adapters' has no attribute 'keras'"):
        getattr(adapters, "keras")  # noqa: B009
    assert set(FRAMEWORKS) <= set(dir(adapters))
