"""Modules of Equinox, with the habits of Equinox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modules import INNER, Framework, H, close, host, signal

import ssm_core
from conformance.examples import Draw
from conformance.test_adapters import BUILDS, STATEFUL, inputs
from ssm_core import adapters, layers

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def eqx() -> Any:
    pytest.importorskip("jax")
    return pytest.importorskip("equinox")


@pytest.fixture
def key(eqx: Any) -> Any:
    import jax

    return jax.random.key(0)


@pytest.mark.parametrize("name", BUILDS)
def test_weights_of_every_definition(name: str, eqx: Any, tmp_path: Path):
    """A file becomes a module that computes, of the definition and the weights of the file, and the same file again."""
    import jax

    kind, options = BUILDS[name]
    definition = layers.make(kind, options)
    params = definition.initial_parameters(seed=3)
    ssm_core.save(definition, params, tmp_path / "weights.safetensors")
    module = adapters.equinox.load(tmp_path / "weights.safetensors")
    assert type(module) is getattr(adapters.equinox, kind)
    assert module.definition == definition
    u = jax.numpy.asarray(inputs(name, Draw(1), 6), None if "vocab_size" in options else jax.numpy.float32)
    wanted = eqx.filter_eval_shape(definition.apply, module.params, u)
    assert eqx.filter_eval_shape(module, u) == wanted
    adapters.equinox.save(module, tmp_path / "again.safetensors")
    _, again = ssm_core.load(tmp_path / "again.safetensors")
    for n, x in params.items():
        np.testing.assert_array_equal(again[n], x)
    special = {n for n, label in adapters.equinox.param_labels(module).params.items() if label == "ssm"}
    assert special == {p.name for p in definition.parameters() if p.no_weight_decay}


@pytest.mark.parametrize("name", BUILDS)
def test_same_numbers_as_the_definition(name: str, eqx: Any, key: Any):
    """Sequences, and steps where there are any, compiled; beside NumPy in double precision."""
    kind, options = BUILDS[name]
    module = getattr(adapters.equinox, kind)(**options, key=key)
    params = {n: x.astype(np.float64) for n, x in host(module).items()}
    u = inputs(name, Draw(1), 9)
    u = u if "vocab_size" in options else u.astype(np.float32)
    d, steps = module.definition, name in STATEFUL

    @eqx.filter_jit
    def run(m: Any, u: Any) -> Any:
        return m(u), m.step(u[:, 0], m.initial_state(2))[0] if steps else None

    y, first = run(module, u)
    close(y, d.apply(params, u), 1e-4)
    if steps:
        close(first, d.step(params, u[:, 0], d.initial_state(params, 2))[0], 1e-4)


def test_training_with_rates_of_their_own(eqx: Any):
    optax = pytest.importorskip("optax")
    model, u = Framework("equinox").model(), signal(3)
    rules = {"regular": optax.sgd(0.0), "ssm": optax.sgd(0.1)}
    optimizer = optax.multi_transform(rules, adapters.equinox.param_labels)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def train(model: Any, state: Any) -> Any:
        gradients = eqx.filter_grad(lambda m: (m(u) ** 2).sum())(model)
        updates, state = optimizer.update(gradients, state)
        return eqx.apply_updates(model, updates), state

    after, _ = train(model, state)
    changed = {n for n, x in host(after).items() if (x != host(model)[n]).any()}
    assert changed == {f"blocks.0.layer.{n}" for n in ("log_dt", "log_A_re", "A_im", "B_re", "B_im")}


def test_dropout_wants_a_key_or_inference(eqx: Any, key: Any):
    import jax

    model, u = Framework("equinox").model(dropout=0.5, channel_mix="mlp"), jax.numpy.asarray(signal(3))
    with pytest.raises(RuntimeError, match="requires a key"):
        model(u)
    evaluated = eqx.filter_jit(eqx.nn.inference_mode(model))(u)
    close(evaluated, model.definition.apply(host(model), signal(3)), 1e-4)
    run = eqx.filter_jit(lambda model, u, key: model(u, key=key))
    first, same, other = (run(model, u, k) for k in (key, key, jax.random.key(1)))
    close(first, same, 0)
    assert np.abs(np.asarray(first - other)).max() > 1e-3
    assert np.abs(np.asarray(first - evaluated)).max() > 1e-3


def test_habits_of_pytrees(eqx: Any, tmp_path: Path):
    """Parts replaced, files of Equinox's own, ensembles, a place in a Sequential."""
    import jax

    layer, u = Framework("equinox").s4d(), jax.numpy.asarray(signal())
    assert layer.D is layer.params["D"]
    with pytest.raises(AttributeError, match="no attribute 'E'"):
        _ = layer.E
    doubled = eqx.tree_at(lambda m: m.params["D"], layer, replace_fn=lambda D: 2 * D)
    close(doubled.D, 2 * layer.D, 0)
    eqx.tree_serialise_leaves(tmp_path / "layer.eqx", layer)
    read = eqx.tree_deserialise_leaves(tmp_path / "layer.eqx", Framework("equinox").s4d(seed=1))
    assert eqx.tree_equal(read, layer)
    keys = jax.random.split(jax.random.key(0), 3)
    ensemble = eqx.filter_vmap(lambda key: adapters.equinox.S4D(H, **INNER, key=key))(keys)
    each = eqx.filter_vmap(lambda m, u: m(u), in_axes=(eqx.if_array(0), None))
    second = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, ensemble)
    close(each(ensemble, u)[1], second(u), 1e-5)
    chain = eqx.nn.Sequential([layer, eqx.nn.Lambda(jax.nn.relu), doubled])
    close(chain(u), doubled(jax.nn.relu(layer(u))), 1e-6)


def test_language_models(eqx: Any, key: Any, tmp_path: Path):
    """Directories, tokens, and what is refused."""
    model = adapters.equinox.MambaLM(11, 8, 2, layer_options={"d_state": 4}, key=key)
    ids = np.asarray([[1, 2, 3], [4, 5, 6]])
    tokens = model.generate(ids, 5)
    wanted = model.definition.generate(host(model), ids, 5)
    np.testing.assert_array_equal(np.asarray(tokens), wanted)
    stream = model.stream(ids)
    np.testing.assert_array_equal(np.stack([next(stream) for _ in range(5)], axis=1), wanted)
    model.save_pretrained(tmp_path / "mamba")
    again = adapters.equinox.from_pretrained(tmp_path / "mamba")
    assert type(again) is adapters.equinox.MambaLM
    assert eqx.tree_equal(again, model)
    with pytest.raises(ssm_core.OptionError, match=r"holds a MambaLM\. Use adapters\.equinox"):
        adapters.equinox.RWKV7LM.from_pretrained(tmp_path / "mamba")


def test_only_modules_are_saved(tmp_path: Path):
    with pytest.raises(ssm_core.DTypeError, match="save: a list is no module of ssm_core"):
        adapters.equinox.save([], tmp_path / "x")  # type: ignore[arg-type]


def test_files_have_the_function_of_the_module(eqx: Any, key: Any, tmp_path: Path):
    """A call that was overridden, or another function than dropout, is refused; one that hands on is not."""
    import jax

    class Doubled(adapters.equinox.LRU):
        def __call__(self, u: Any, **options: Any) -> Any:
            return 2 * super().__call__(u, **options)

    class Same(adapters.equinox.LRU):
        def __call__(self, u: Any, **options: Any) -> Any:
            return super().__call__(u, **options)

    adapters.equinox.save(Same(4, d_state=4, key=key), tmp_path / "weights")
    model = adapters.equinox.SequenceModel(
        3, 5, d_model=4, n_layers=1, layer="LRU", layer_options={"d_state": 4}, dropout=0.3, key=key
    )
    adapters.equinox.save(model, tmp_path / "weights")
    model = eqx.tree_at(lambda m: m.dropout, model, eqx.nn.Lambda(jax.nn.relu))
    for module in (Doubled(4, d_state=4, key=key), model):
        with pytest.raises(ssm_core.OptionError, match="the module computes other outputs than its definition"):
            adapters.equinox.save(module, tmp_path / "weights")
