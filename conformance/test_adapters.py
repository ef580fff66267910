"""The modules of PyTorch and Flax: one constructor, the same parameters, the same weights, the same results."""

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

from .backends import HALF, Backend
from .capabilities import function_of
from .cases import layers as cases
from .cases import models
from .examples import Draw
from .tolerances import assert_close, compare

pytestmark = pytest.mark.dtypes("float32")

OF_FRAMEWORKS = {"self", "device", "dtype", "rngs", "param_dtype"}
BUILDS: dict[str, tuple[str, dict[str, Any]]] = {**cases.MODULES, **models.MODULES}
LANGUAGE = tuple(name for name, (_, options) in BUILDS.items() if "vocab_size" in options)
each_build = pytest.mark.parametrize("name", BUILDS)
each_layer = pytest.mark.parametrize("layer", layers.LAYERS)
STATEFUL = [n for n, (kind, o) in BUILDS.items() if layers.LAYERS[kind].streaming and not o.get("bidirectional")]
# Discrete from the start, or of tokens: no rate.
WITHOUT_STEPS = (*(n for n, (kind, _) in cases.MODULES.items() if not cases.LAYERS[kind].timed), *LANGUAGE)
POOLED = tuple(n for n, (_, options) in models.MODULES.items() if isinstance(options.get("pool"), tuple))  # no resets


def inputs(name: str, d: Draw, length: int) -> np.ndarray:
    """(2, length, 4), with several axes where the layer has them, or tokens."""
    kind, options = BUILDS[name]
    if "vocab_size" in options:
        return d.generator.integers(0, options["vocab_size"], (2, length))
    record = cases.LAYERS.get(kind)
    axes = (length,) if record is None else record.axes(layers.make(kind, options), length)
    return d.real(2, *axes, 4)


def placed(framework: Backend, u: np.ndarray, dtype: str) -> Any:
    return framework.asarray(u, dtype if u.dtype.kind == "f" else None)


def torch_module(name: str, backend: Backend, seed: int = 0, **more: Any) -> Any:
    kind, options = BUILDS[name]
    backend.module.manual_seed(seed)
    return getattr(adapters.torch, kind)(**options, device=backend.device, **more)


def moved_off_zero(module: Any, backend: Backend) -> Any:
    """With numbers where weights begin at zero, as those of RWKV-7 that lead out do: no gradient passes them."""
    with backend.module.no_grad():
        for p in module.parameters():
            p.add_(0.1 * (p == 0).all() * backend.module.randn_like(p))
    return module


def flax_module(name: str, seed: int = 0, **more: Any) -> Any:
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
    kind, options = BUILDS[name]
    return getattr(adapters.flax, kind)(**options, rngs=nnx.Rngs(seed), **more)


def compiled(backend: Backend, f: Any) -> Any:
    """f of a module of Flax and arrays, as one program."""

    def run(module: Any, *arrays: Any) -> Any:
        nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
        definition, state = nnx.split(module)
        return backend.jit(lambda state, *arrays: f(nnx.merge(definition, state), *arrays))(state, *arrays)

    return run


def signature(f: Any) -> dict[str, Any]:
    """Names, kinds and defaults of the parameters that are not of one framework."""
    found = inspect.signature(f).parameters
    return {n: (p.kind, p.default) for n, p in found.items() if n not in OF_FRAMEWORKS}


# One interface -------------------------------------------------------------------------------------------------------


@pytest.mark.backends("jax")
@each_layer
def test_signatures_are_the_same(layer: str, backend: Backend, torch_too: Backend, dtype: str):
    pytest.importorskip("flax.nnx", reason="flax is not installed")
    torch, flax = (getattr(module, layer) for module in (adapters.torch, adapters.flax))
    assert signature(torch.__init__) == signature(flax.__init__)
    assert signature(torch.forward) == signature(flax.__call__)
    own = [cls for cls in flax.__mro__ if "adapters.flax" in cls.__module__]
    methods = {n for cls in own for n, f in vars(cls).items() if not n.startswith("_") and inspect.isroutine(f)}
    for name in {"initial_state", "step", "stepper", "arrays"} | methods:
        assert signature(getattr(torch, name)) == signature(getattr(flax, name)), name


@pytest.mark.backends("torch", "jax")
@each_layer
def test_options_are_those_of_the_definition(layer: str, backend: Backend, dtype: str):
    family = "flax" if backend.family == "jax" else "torch"
    found = signature(getattr(getattr(adapters, family), layer).__init__)
    wanted = signature(layers.LAYERS[layer].__init__)
    assert list(found) == list(wanted)
    dicts = ("layer_options", "attention_options")
    defaults = {n: default for n, (_, default) in found.items() if n not in dicts}
    assert defaults == {n: default for n, (_, default) in wanted.items() if n not in dicts}
    assert next(iter(found.values()))[0] is inspect.Parameter.POSITIONAL_OR_KEYWORD


@pytest.mark.backends("torch", "jax")
@each_build
def test_parameters_are_real_and_those_of_the_definition(name: str, backend: Backend, dtype: str):
    module = torch_module(name, backend) if backend.family == "torch" else flax_module(name)
    arrays = module.arrays()
    assert {n: tuple(x.shape) for n, x in arrays.items()} == {p.name: p.shape for p in module.definition.parameters()}
    assert {str(x.dtype).removeprefix("torch.") for x in arrays.values()} == {"float32"}
    assert all(backend.on_device(x) for x in arrays.values())


# One set of weights --------------------------------------------------------------------------------------------------


def written(writer: str, name: str, path: Path, torch: Backend) -> tuple[Any, dict[str, np.ndarray]]:
    """A file by each of the three, its definition and the weights that were written."""
    if writer == "torch":
        module: Any = torch_module(name, torch)
        adapters.torch.save(module, path)
        return module.definition, {n: torch.to_numpy(x) for n, x in module.arrays().items()}
    if writer == "flax":
        module = flax_module(name)
        adapters.flax.save(module, path)
        return module.definition, {n: np.asarray(x, np.float64) for n, x in module.arrays().items()}
    kind, options = BUILDS[name]
    definition = layers.make(kind, options)
    params = definition.initial_parameters(seed=3)
    ssm_core.save(definition, params, path)
    return definition, {n: x.astype(np.float64) for n, x in params.items()}


@pytest.mark.backends("jax")
@each_build
@pytest.mark.parametrize("writer", ["torch", "flax", "numpy"])
def test_weights_travel(writer: str, name: str, backend: Backend, torch_too: Backend, dtype: str, tmp_path: Path):
    """Every framework reads what every other has written: the same layer, the same weights to the last digit."""
    pytest.importorskip("flax.nnx", reason="flax is not installed")
    path = tmp_path / "weights.safetensors"
    definition, weights = written(writer, name, path, torch_too)
    in_torch, in_flax = adapters.torch.load(path, device=torch_too.device), adapters.flax.load(path)
    loaded, params = ssm_core.load(path)
    assert loaded == in_torch.definition == in_flax.definition == definition
    for n, wanted in weights.items():
        np.testing.assert_array_equal(params[n], wanted)
        np.testing.assert_array_equal(torch_too.to_numpy(in_torch.arrays()[n]), wanted)
        np.testing.assert_array_equal(np.asarray(in_flax.arrays()[n]), wanted)


@pytest.mark.backends("jax")
@each_build
def test_same_weights_same_output(name: str, backend: Backend, torch_too: Backend, dtype: str, tmp_path: Path):
    """Of one file, in all three."""
    pytest.importorskip("flax.nnx", reason="flax is not installed")
    path = tmp_path / "weights.safetensors"
    written("torch", name, path, torch_too)
    in_torch, in_flax = adapters.torch.load(path, device=torch_too.device), adapters.flax.load(path)
    loaded, params = ssm_core.load(path)
    u = inputs(name, Draw(1), 20)
    plain = loaded.apply({n: p.astype(np.float64) for n, p in params.items()}, u)
    run_flax = compiled(backend, lambda module, x: module(x))
    for result, framework in (
        (in_torch(placed(torch_too, u, dtype)), torch_too), (run_flax(in_flax, placed(backend, u, dtype)), backend)
    ):  # fmt: skip
        assert_close(result, plain, framework, dtype, function=function_of(loaded.name), terms=64 * 20)


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", STATEFUL)
def test_twins_agree_through_states(name: str, backend: Backend, torch_too: Backend, dtype: str, tmp_path: Path):
    """With lengths, resets, a rate, and in steps."""
    torch = torch_module(name, torch_too)
    adapters.torch.save(torch, tmp_path / "weights")
    pytest.importorskip("flax.nnx", reason="flax is not installed")
    flax = adapters.flax.load(tmp_path / "weights")
    d = Draw(2)
    u, given = inputs(name, d, 20), (np.asarray([20, 9]), d.resets(2, 20))
    options = {} if name in WITHOUT_STEPS else {"rate": 0.5}

    def run(module: Any, x: Any, lengths: Any, reset: Any) -> list[Any]:
        resets = {} if name in POOLED else {"reset": reset}
        y, state = module(x, lengths=lengths, return_state=True, **resets, **options)
        stepped, _ = module.step(x[:, 0], module.initial_state(2))
        again, _ = module(x[:, :3], state=state, return_state=True, mode="scan")
        return [y[:, :9] if y.ndim == 3 else y, stepped, again]

    results = []
    for module, framework, f in ((torch, torch_too, run), (flax, backend, compiled(backend, run))):
        found = f(module, placed(framework, u, dtype), *(framework.asarray(x) for x in given))
        results.append([framework.to_numpy(r) for r in found])
    for actual, wanted in zip(results[1], results[0], strict=True):
        compare(actual, wanted, backend, dtype, function=function_of(BUILDS[name][0]), terms=64 * 20)


@pytest.mark.backends("jax")
@each_build
def test_special_parameters_are_the_same(name: str, backend: Backend, torch_too: Backend, dtype: str):
    """Those that param_groups gives their own learning rate are those that param_labels calls "ssm"."""
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
    torch, flax = torch_module(name, torch_too), flax_module(name)
    ordinary, special = adapters.torch.param_groups(torch, lr=1e-2, weight_decay=0.1)
    assert special["weight_decay"] == 0.0
    assert len(ordinary["params"]) + len(special["params"]) == len(list(torch.parameters()))
    ids = {id(p) for p in special["params"]}
    in_torch = {n for n, p in torch.named_parameters() if id(p) in ids}
    labels = adapters.flax.param_labels(flax)
    flat = {".".join(map(str, path)): label for path, label in nnx.to_flat_state(labels)}
    in_flax = {n for n, label in flat.items() if (label if isinstance(label, str) else label[...]) == "ssm"}
    assert in_torch == in_flax
    assert bool(in_torch) == any(p.no_weight_decay for p in torch.definition.parameters())


# PyTorch's habits ----------------------------------------------------------------------------------------------------


@pytest.mark.backends("torch")
@each_build
def test_torch_copies(name: str, backend: Backend, dtype: str):
    module = moved_off_zero(torch_module(name, backend), backend)
    u = placed(backend, inputs(name, Draw(1), 12), dtype)
    fresh = torch_module(name, backend, seed=1)
    assert not backend.module.equal(fresh(u), module(u))
    fresh.load_state_dict(module.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh):
        assert twin is not module
        assert twin.definition == module.definition
        assert backend.module.equal(twin(u), module(u))


@pytest.mark.backends("torch")
@each_build
def test_torch_meta_device_and_reset_parameters(name: str, backend: Backend, dtype: str):
    """Built without memory, materialized, then drawn like one that was built at once."""
    torch, kind = backend.module, BUILDS[name][0]
    empty = getattr(adapters.torch, kind)(**BUILDS[name][1], device="meta")
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert empty(placed(backend, inputs(name, Draw(1), 12), dtype).to("meta")).device.type == "meta"
    module = empty.to_empty(device=backend.device)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    wanted = torch_module(name, backend).arrays()
    first, second = (module.definition.initial_parameters(seed) for seed in (0, 1))
    for n, p in module.arrays().items():
        constant = np.array_equal(first[n], second[n])  # whatever the draw is
        assert torch.isfinite(p).all()
        assert not constant or torch.equal(p, wanted[n])


@pytest.mark.backends("torch")
@pytest.mark.dtypes("float64", *HALF)
def test_torch_modules_in_other_dtypes(backend: Backend, dtype: str):
    """Parameters in half precision are computed with in float32; in float64, in float64."""
    module = torch_module("S4D", backend, dtype=backend.dtype(dtype))
    assert {p.dtype for p in module.parameters()} == {backend.dtype(dtype)}
    u = backend.asarray(Draw(1).real(2, 12, 4), dtype)
    params = {n: backend.to_numpy(p) for n, p in module.arrays().items()}
    wanted = module.definition.apply(params, backend.to_numpy(u))
    assert_close(module(u), wanted, backend, dtype, function="layers.S4D", terms=64 * 12, half=True)


@pytest.mark.backends("torch")
@each_build
def test_torch_trains_every_parameter(name: str, backend: Backend, dtype: str):
    """No parameter is left without a gradient, as wrappers that synchronize gradients need."""
    module = moved_off_zero(torch_module(name, backend), backend)
    (module(placed(backend, inputs(name, Draw(1), 12), dtype)) ** 2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.backends("torch", "jax")
def test_dropout_is_for_training_only(backend: Backend, dtype: str):
    """Two passes differ in training, and not in evaluation."""
    if backend.family == "torch":
        module = torch_module("SequenceModel", backend, dropout=0.5)
    else:
        module = flax_module("SequenceModel", dropout=0.5)
    u = backend.asarray(Draw(1).real(2, 12, 4), dtype)
    module.train()
    first, second = (backend.to_numpy(module(u)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    module.eval()
    first, second = (backend.to_numpy(module(u)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
