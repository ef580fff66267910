"""The layers as modules of PyTorch and Flax: the same functions, with the habits of their framework."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import adapters, layers

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, L, H = 2, 20, 4
INNER = {"d_state": 8, "dt_max": 0.5}
FRAMEWORKS = ("torch", "flax")
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "channels": {"channels": 2, "n_ssm": 2},
    "real": {"real": True, "init": "real"},
    "bidirectional": {"bidirectional": True},
}


class Framework:
    """What the tests need of a framework: its arrays, and modules with the weights of a definition."""

    def __init__(self, name: str) -> None:
        if name == "flax":
            pytest.importorskip("jax")
        pytest.importorskip(name)
        self.name = name
        self.adapter = getattr(adapters, name)
        self.xp = ssm_core._arrays.resolve("torch" if name == "torch" else "jax")

    def module(self, cls: str, *args: Any, seed: int = 0, **options: Any) -> Any:
        if self.name == "torch":
            import torch

            torch.manual_seed(seed)
        else:
            from flax import nnx

            options["rngs"] = nnx.Rngs(seed)
        return getattr(self.adapter, cls)(*args, **options)

    def run(self, f: Any, *args: Any) -> Any:
        """f of modules and arrays, compiled where one operation after another would take far longer."""
        if self.name == "torch":
            return f(*args)
        from flax import nnx

        return nnx.jit(f)(*args)

    def s4d(self, **options: Any) -> Any:
        return self.module("S4D", H, **{**INNER, **options})

    def model(self, **options: Any) -> Any:
        return self.module("SequenceModel", 3, 2, d_model=H, n_layers=1, layer_options=INNER, **options)

    def asarray(self, x: Any) -> Any:
        return self.xp.asarray(x)


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return Framework(request.param)


def signal(width: int = H, length: int = L) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, length, width)).astype(np.float32)


def to_numpy(x: Any) -> np.ndarray:
    return ssm_core._arrays.to_numpy(x)


def host(module: Any) -> dict[str, np.ndarray]:
    """The weights of a module as plain arrays, by their names in files."""
    return {name: to_numpy(x) for name, x in module.arrays().items()}


def close(x: Any, y: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(to_numpy(x), to_numpy(y), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------------------------- both frameworks


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
    special = {"torch": {"device", "dtype"}, "flax": {"rngs", "param_dtype"}}
    definition = inspect.signature(getattr(layers, cls)).parameters
    for name in FRAMEWORKS:
        framework = Framework(name)
        found = dict(inspect.signature(getattr(framework.adapter, cls).__init__).parameters)
        found.pop("self")
        assert list(found) == [*definition, *sorted(special[name], key=list(found).index)]
        for key, parameter in definition.items():
            if key != "layer_options":  # a mutable default, None in the modules
                assert found[key].default == parameter.default


def test_calls_are_alike_in_both_frameworks():
    torch, flax = (Framework(name).adapter for name in FRAMEWORKS)
    for cls in ("S4D", "SequenceModel"):
        for a, b in (("forward", "__call__"), ("step", "step"), ("stepper", "stepper"), ("initial_state",) * 2):
            first, second = (inspect.signature(getattr(getattr(m, cls), n)) for m, n in ((torch, a), (flax, b)))
            assert list(first.parameters) == list(second.parameters)
            assert [p.default for p in first.parameters.values()] == [p.default for p in second.parameters.values()]


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


# ------------------------------------------------------------------------------------------------------------- PyTorch


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_torch_copies_and_pickles(kind: str, torch: Any):
    module = getattr(Framework("torch"), kind)()
    u = torch.from_numpy(signal(H if kind == "s4d" else 3))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(u), module(u))
        assert other.definition == module.definition
        with torch.no_grad():
            next(other.parameters()).add_(1.0)
        assert not torch.equal(next(other.parameters()), next(module.parameters()))


@pytest.mark.parametrize("rate", [2, np.float64(2.0)], ids=repr)
def test_torch_rates_that_are_numbers(rate: Any, torch: Any):
    module, u = Framework("torch").s4d(), torch.from_numpy(signal())
    torch.testing.assert_close(module(u, rate=rate), module(u, rate=2.0))
    torch.testing.assert_close(module.kernel(L, rate=rate), module.kernel(L, rate=2.0))
    y, _ = module.step(u[:, 0], module.initial_state(B), rate=rate)
    torch.testing.assert_close(y, module(u, rate=2.0)[:, 0])


def test_torch_state_dict_and_strict_loading(torch: Any):
    module, other = (Framework("torch").model(seed=seed) for seed in (0, 1))
    other.load_state_dict(module.state_dict())
    u = torch.from_numpy(signal(3))
    torch.testing.assert_close(other(u), module(u))
    assert set(module.state_dict()) == set(module.arrays())


@pytest.mark.parametrize("kind", ["s4d", "model"])
def test_torch_meta_device(kind: str, torch: Any):
    module = getattr(Framework("torch"), kind)(device="meta")
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert module(torch.empty(B, L, H if kind == "s4d" else 3, device="meta")).device.type == "meta"
    module.to_empty(device="cpu")
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert torch.isfinite(module(torch.from_numpy(signal(H if kind == "s4d" else 3)))).all()


def test_torch_device_context(torch: Any):
    with torch.device("meta"):
        module = Framework("torch").s4d()
    assert module.log_dt.device.type == "meta"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_torch_dtypes(dtype: str, torch: Any):
    module = Framework("torch").s4d(dtype=getattr(torch, dtype))
    assert {p.dtype for p in module.parameters()} == {getattr(torch, dtype)}
    u = torch.from_numpy(signal()).to(getattr(torch, dtype))
    y, state = module(u, return_state=True)
    assert y.dtype == u.dtype
    assert state.dtype == (torch.complex128 if dtype == "float64" else torch.complex64)


@pytest.mark.parametrize("kind", ["s4d", "model"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_torch_half_precision_inputs_under_autocast(dtype: str, kind: str, torch: Any):
    module = getattr(Framework("torch"), kind)()
    u = torch.from_numpy(signal(H if kind == "s4d" else 3))
    wanted = module(u)
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        y = module(u)
        step, _ = module.step(u[:, 0], module.initial_state(B))
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y.float(), wanted, rtol=0.1, atol=0.05)
    assert torch.isfinite(step).all()
    y.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_torch_gradients_flow_through_the_state(torch: Any):
    module, u = Framework("torch").s4d(), torch.from_numpy(signal())

    def slopes(split: bool) -> list[Any]:
        module.zero_grad()
        if split:
            head, state = module(u[:, :7], return_state=True)
            y = torch.cat([head, module(u[:, 7:], state=state)], dim=1)
        else:
            y = module(u)
        (y**2).sum().backward()
        return [p.grad.clone() for p in module.parameters()]

    for x, y in zip(slopes(False), slopes(True), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)


def test_torch_functional_call_and_vmap_over_models(torch: Any):
    module, u = Framework("torch").s4d(), torch.from_numpy(signal())
    params = {name: torch.stack([p.detach(), p.detach() + 0.1]) for name, p in module.named_parameters()}
    found = torch.func.vmap(lambda p: torch.func.functional_call(module, p, (u,)))(params)
    for i in range(2):
        alone = torch.func.functional_call(module, {n: p[i] for n, p in params.items()}, (u,))
        torch.testing.assert_close(found[i], alone, rtol=1e-4, atol=1e-5)


def test_torch_parameter_groups(torch: Any):
    model = Framework("torch").model()
    model.head.bias.requires_grad_(False)
    regular, special = adapters.torch.param_groups(model, lr=0.1, weight_decay=0.5, ssm_lr=0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    assert (regular["lr"], regular["weight_decay"]) == (0.1, 0.5)
    assert (special["lr"], special["weight_decay"]) == (0.01, 0.0)
    ssm = {"log_dt", "log_A_re", "A_im", "B_re", "B_im"}
    found = {names[id(p)] for p in special["params"]}
    assert found == {n for n in names.values() if n.rsplit(".")[-1] in ssm}
    assert {names[id(p)] for p in regular["params"]} == set(names.values()) - found - {"head.bias"}


def test_torch_dropout_is_for_training_only(torch: Any):
    model, u = Framework("torch").model(dropout=0.5), torch.from_numpy(signal(3))
    assert not torch.equal(model(u), model(u))
    model.eval()
    torch.testing.assert_close(model(u), model(u))


def test_torch_modules_describe_themselves():
    text = repr(Framework("torch").s4d())
    assert text.startswith("S4D(d_model=4, d_state=8,")
    assert "SequenceModel(" in repr(Framework("torch").model())


def test_torch_loads_into_a_dtype(torch: Any, tmp_path: Path):
    module, path = Framework("torch").s4d(), tmp_path / "weights"
    adapters.torch.save(module, path)
    loaded = adapters.torch.load(path, dtype=torch.float64)
    assert loaded.log_dt.dtype == torch.float64
    torch.testing.assert_close(loaded.log_dt.float(), module.log_dt)


# ---------------------------------------------------------------------------------------------------------------- Flax


@pytest.fixture
def nnx() -> Any:
    pytest.importorskip("jax")
    return pytest.importorskip("flax.nnx")


def test_flax_split_and_merge(nnx: Any):
    module = Framework("flax").s4d()
    merged = nnx.merge(*nnx.split(module))
    assert merged.definition == module.definition
    for name, x in host(module).items():
        np.testing.assert_array_equal(host(merged)[name], x)


def test_flax_shapes_without_memory(nnx: Any):
    shapes = nnx.eval_shape(lambda: adapters.flax.S4D(1000, rngs=nnx.Rngs(0)))
    assert nnx.state(shapes, nnx.Param)["log_A_re"].shape == (1000, 32)


def test_flax_modes_of_dropout(nnx: Any):
    model = Framework("flax").model(dropout=0.5)
    (block,) = model.blocks
    assert block.dropout.rate == 0.5
    for mode in (model.eval, model.train):
        mode()
        assert block.dropout.deterministic == (mode == model.eval)


def test_flax_labels(nnx: Any):
    labels = dict(nnx.to_flat_state(adapters.flax.param_labels(Framework("flax").model())))
    ssm = {"log_dt", "log_A_re", "A_im", "B_re", "B_im"}
    assert {path[-1] for path, label in labels.items() if label == "ssm"} == ssm
    assert {path[-1] for path, label in labels.items() if label == "regular"} > {"kernel", "C_re", "D", "scale"}


def test_flax_optimizer(nnx: Any):
    optax = pytest.importorskip("optax")
    model, u = Framework("flax").s4d(), Framework("flax").asarray(signal())
    rules = {"regular": optax.sgd(0.0), "ssm": optax.sgd(0.1)}
    optimizer = nnx.Optimizer(model, optax.multi_transform(rules, adapters.flax.param_labels(model)), wrt=nnx.Param)
    before = host(model)

    @nnx.jit
    def train(model: Any, optimizer: Any) -> None:
        optimizer.update(model, nnx.grad(lambda m: (m(u) ** 2).sum())(model))

    train(model, optimizer)
    moved = {name for name, x in host(model).items() if (x != before[name]).any()}
    assert moved == {"log_dt", "log_A_re", "A_im", "B_re", "B_im"}


def test_flax_layouts_are_those_of_files(nnx: Any):
    model = Framework("flax").model()
    arrays = model.arrays()
    np.testing.assert_array_equal(arrays["encoder.weight"], np.asarray(model.encoder.kernel[...]).T)
    np.testing.assert_array_equal(arrays["blocks.0.norm.weight"], np.asarray(model.blocks[0].norm.scale[...]))


def test_flax_param_dtype(nnx: Any):
    import jax.numpy as jnp

    module = nnx.eval_shape(lambda: Framework("flax").s4d(param_dtype=jnp.bfloat16))
    assert {p.dtype for p in nnx.state(module, nnx.Param).values()} == {jnp.bfloat16.dtype}


def test_flax_half_precision_inputs(nnx: Any):
    import jax.numpy as jnp

    module, u = Framework("flax").s4d(), signal()
    y, state = nnx.jit(lambda m, u: m(u, return_state=True))(module, jnp.asarray(u, jnp.bfloat16))
    assert (y.dtype, state.dtype) == (jnp.bfloat16.dtype, jnp.complex64.dtype)
    np.testing.assert_allclose(np.asarray(y, np.float32), module.definition.apply(host(module), u), atol=0.05)
