"""Modules of Flax, with the habits of Flax."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modules import Framework, H, close, host, signal

from ssm_core import adapters
from ssm_core._arrays.errors import OptionError

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def nnx() -> Any:
    pytest.importorskip("jax")
    return pytest.importorskip("flax.nnx")


def test_split_and_merge(nnx: Any):
    module = Framework("flax").s4d()
    merged = nnx.merge(*nnx.split(module))
    assert merged.definition == module.definition
    for name, x in host(module).items():
        np.testing.assert_array_equal(host(merged)[name], x)


def test_shapes_without_memory(nnx: Any):
    shapes = nnx.eval_shape(lambda: adapters.flax.S4D(1000, rngs=nnx.Rngs(0)))
    assert nnx.state(shapes, nnx.Param)["log_A_re"].shape == (1000, 32)


def test_modes_of_dropout(nnx: Any):
    model = Framework("flax").model(dropout=0.5)
    (block,) = model.blocks
    assert block.dropout.rate == 0.5
    for mode in (model.eval, model.train):
        mode()
        assert block.dropout.deterministic == (mode == model.eval)


def test_labels(nnx: Any):
    labels = dict(nnx.to_flat_state(adapters.flax.param_labels(Framework("flax").model())))
    ssm = {"log_dt", "log_A_re", "A_im", "B_re", "B_im"}
    assert {path[-1] for path, label in labels.items() if label == "ssm"} == ssm
    assert {path[-1] for path, label in labels.items() if label == "regular"} > {"kernel", "C_re", "D", "scale"}


def test_optimizer(nnx: Any):
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


def test_layouts_are_those_of_files(nnx: Any):
    model = Framework("flax").model()
    arrays = model.arrays()
    np.testing.assert_array_equal(arrays["encoder.weight"], np.asarray(model.encoder.kernel[...]).T)
    np.testing.assert_array_equal(arrays["blocks.0.norm.weight"], np.asarray(model.blocks[0].norm.scale[...]))


def test_shared_parameters(nnx: Any, tmp_path: Path):
    """A layer of two blocks, and one parameter of two layers."""
    pytest.importorskip("safetensors")
    model = Framework("flax").module("SequenceModel", 3, 2, d_model=H, n_layers=3, layer_options={"d_state": 8})
    model.blocks[2].layer = model.blocks[0].layer
    model.blocks[1].layer.output_weight = model.blocks[0].layer.output_weight
    params = host(model)
    assert {name: x.shape for name, x in params.items()} == {p.name: p.shape for p in model.definition.parameters()}
    for name in ("log_dt", "output_weight"):
        np.testing.assert_array_equal(params[f"blocks.2.layer.{name}"], params[f"blocks.0.layer.{name}"])
    u = signal(3)
    close(nnx.jit(lambda m, u: m(u))(model, Framework("flax").asarray(u)), model.definition.apply(params, u))
    adapters.flax.save(model, tmp_path / "shared")
    for name, x in host(adapters.flax.load(tmp_path / "shared")).items():
        np.testing.assert_array_equal(x, params[name])


def test_param_dtype(nnx: Any):
    import jax.numpy as jnp

    module = nnx.eval_shape(lambda: Framework("flax").s4d(param_dtype=jnp.bfloat16))
    assert {p.dtype for p in nnx.state(module, nnx.Param).values()} == {jnp.bfloat16.dtype}


def test_half_precision_inputs(nnx: Any):
    import jax.numpy as jnp

    module, u = Framework("flax").s4d(), signal()
    y, state = nnx.jit(lambda m, u: m(u, return_state=True))(module, jnp.asarray(u, jnp.bfloat16))
    assert (y.dtype, state.dtype) == (jnp.bfloat16.dtype, jnp.complex64.dtype)
    np.testing.assert_allclose(np.asarray(y, np.float32), module.definition.apply(host(module), u), atol=0.05)


def test_files_have_the_function_of_replaced_parts(nnx: Any, tmp_path: Path):
    """Layers of other initial values are saved; those whose options make another function are refused."""
    F = adapters.flax
    u = np.random.default_rng(1).normal(size=(2, 9, 3)).astype("float32")
    module = F.SequenceModel(3, 5, d_model=8, n_layers=2, rngs=nnx.Rngs(0))
    module.blocks[0].layer = F.S4D(8, init="legs", rngs=nnx.Rngs(1))
    F.save(module, tmp_path / "weights")
    np.testing.assert_allclose(F.load(tmp_path / "weights")(u), module(u), rtol=1e-6)
    module.blocks[1].layer = F.S4D(8, discretization="bilinear", rngs=nnx.Rngs(1))
    with pytest.raises(OptionError, match=r"layer of block 1 has discretization = 'bilinear'.*'zoh' there: another"):
        F.save(module, tmp_path / "weights")
    model = F.MambaLM(16, d_model=8, n_layers=2, rngs=nnx.Rngs(0))
    model.backbone.layers[1].norm = nnx.RMSNorm(8, epsilon=1e-3, rngs=nnx.Rngs(0))
    with pytest.raises(OptionError, match=r"MambaLM: the norm of block 1 has epsilon = 0.001"):
        model.save_pretrained(tmp_path)


def replaced(part: Any, name: str, value: Any) -> None:
    """Put something in a place, whatever was there."""
    from flax import nnx

    setattr(part, name, nnx.data(value))


def recurrent(nnx: Any, **options: Any) -> Any:
    sizes = {"d_model": 8, "n_layers": 1, "layer": "LRU", "layer_options": {"d_state": 4}}
    return adapters.flax.SequenceModel(3, 5, **sizes, **options, rngs=nnx.Rngs(0))


def test_calls_that_no_file_describes(nnx: Any, tmp_path: Path):
    """Low-rank adapters beside a map, a subclass of a layer, another function than dropout, another order of norms."""
    import jax

    class Doubled(adapters.flax.LRU):
        def __call__(self, u: Any, **options: Any) -> Any:
            return 2 * super().__call__(u, **options)

    adapted = nnx.LoRALinear(8, 5, lora_rank=2, rngs=nnx.Rngs(0))
    adapted.lora.lora_b[...] = adapted.lora.lora_b[...] + 0.5
    changes = (
        lambda m: setattr(m, "head", adapted),
        lambda m: setattr(m.blocks[0], "layer", Doubled(8, d_state=4, rngs=nnx.Rngs(0))),
        lambda m: replaced(m.blocks[0], "dropout", jax.nn.relu),
        lambda m: setattr(m, "definition", replace(m.definition, postnorm=True)),
    )
    for change in changes:
        module = recurrent(nnx, dropout=0.3)
        adapters.flax.save(module, tmp_path / "weights")
        change(module)
        with pytest.raises(OptionError, match="SequenceModel: the module computes other outputs than its definition"):
            adapters.flax.save(module, tmp_path / "weights")


def test_parts_that_no_parameters_describe(nnx: Any, tmp_path: Path):
    changes = {
        r"blocks\.0\.norm\.bias: no parameters .* RMSNorm": lambda m: setattr(
            m.blocks[0], "norm", nnx.RMSNorm(8, rngs=nnx.Rngs(0))
        ),
        r"head\.weight: no parameters .* Sequential": lambda m: setattr(
            m, "head", nnx.Sequential(nnx.Linear(8, 5, rngs=nnx.Rngs(0)))
        ),
        r"channel_mix\.up\.weight: no parameters": lambda m: replaced(m.blocks[0], "channel_mix", None),
        r"the module has 2 blocks, but its definition.*has 1": lambda m: m.blocks.append(m.blocks[0]),
    }
    for match, change in changes.items():
        module = recurrent(nnx, channel_mix="mlp")
        change(module)
        with pytest.raises(OptionError, match=match):
            adapters.flax.save(module, tmp_path / "weights")


def test_tokens_are_of_the_modules_function(nnx: Any, tmp_path: Path):
    """They come by the definition, so a module of another function is refused as it is for files."""
    model = adapters.flax.MambaLM(16, d_model=8, n_layers=1, rngs=nnx.Rngs(0))
    replaced(model, "lm_head", nnx.Linear(8, 16, use_bias=False, rngs=nnx.Rngs(1)))
    for call in (lambda: model.generate(np.asarray([[1, 2]]), 2), lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(OptionError, match="MambaLM: the module computes other outputs than its definition"):
            call()
    model.lm_head = None
    model.backbone.norm_f = nnx.LayerNorm(8, epsilon=1e-5, use_bias=False, rngs=nnx.Rngs(0))
    with pytest.raises(OptionError, match=r"the norm behind the blocks is Norm\(kind='layer'"):
        model.save_pretrained(tmp_path)
