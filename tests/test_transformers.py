"""Hugging Face's transformers itself: what it saves is loaded with the same logits and the same text, and the other
way round. Runs where transformers is installed: `nox -s transformers`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed: nox -s transformers runs these tests")

import torch
import transformers
from directories import MODELS, weights

import ssm_core
from conformance import originals
from ssm_core import adapters
from ssm_core.models import generation, sampling

SIZES: dict[str, Any] = {"vocab_size": 43, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("Mamba", {}),
    "mamba_untied": ("Mamba", {"tie_word_embeddings": False, "expand": 3, "conv_kernel": 2, "time_step_rank": 5}),
    "mamba_biases": ("Mamba", {"use_bias": True, "layer_norm_epsilon": 1e-4}),
    "mamba_no_conv_bias": ("Mamba", {"use_conv_bias": False}),
    "falcon": ("FalconMamba", {}),
    "falcon_untied": ("FalconMamba", {"tie_word_embeddings": False, "mixer_rms_eps": 1e-3, "use_bias": True}),
    "mamba2": ("Mamba2", {"head_dim": 8, "num_heads": 8, "n_groups": 1}),
    "mamba2_groups": ("Mamba2", {"head_dim": 4, "num_heads": 16, "n_groups": 4, "chunk_size": 4}),
    "mamba2_tied": ("Mamba2", {"head_dim": 8, "num_heads": 8, "n_groups": 2, "tie_word_embeddings": True}),
    "mamba2_biases": (
        "Mamba2", {"head_dim": 16, "num_heads": 4, "n_groups": 2, "use_bias": True, "layer_norm_epsilon": 1e-4}
    ),
    "mamba2_no_conv_bias": ("Mamba2", {"head_dim": 16, "num_heads": 4, "n_groups": 1, "use_conv_bias": False}),
    "mamba2_limits": ("Mamba2", {"head_dim": 8, "num_heads": 8, "n_groups": 1, "time_step_limit": (0.3, 0.9)}),
}  # fmt: skip
each_config = pytest.mark.parametrize("name", CONFIGS)
IDS = np.random.default_rng(0).integers(0, 43, (2, 11))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def theirs(name: str) -> Any:
    """A model of transformers, as if after some training, so that no parameter is passed over unseen."""
    family, options = CONFIGS[name]
    config = getattr(transformers, f"{family}Config")(**SIZES, **options, eos_token_id=None, pad_token_id=None)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.empty_like(p).uniform_(-0.2, 0.2))
    return model


def logits_of(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.from_numpy(ids)).logits.numpy()
    return found


def close(found: Any, wanted: Any) -> None:
    """To the roundings of float32."""
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


@each_config
def test_what_they_save_is_loaded(name: str, folder: Path):
    model = theirs(name)
    model.save_pretrained(folder)
    definition, params = ssm_core.from_pretrained(folder)
    assert definition.tied == model.config.tie_word_embeddings
    wanted = logits_of(model, IDS)
    close(definition.apply({n: p.astype(np.float64) for n, p in params.items()}, IDS), wanted)
    module = getattr(adapters.torch, definition.name).from_pretrained(folder)
    close(module(torch.from_numpy(IDS)).detach(), wanted)


@each_config
def test_the_same_text(name: str, folder: Path):
    """Theirs with its cache."""
    model = theirs(name)
    model.save_pretrained(folder)
    definition, params = ssm_core.from_pretrained(folder)
    wanted = model.generate(torch.from_numpy(IDS), max_new_tokens=10, do_sample=False)[:, IDS.shape[1] :].numpy()
    np.testing.assert_array_equal(definition.generate(params, IDS, 10), wanted)
    module = getattr(adapters.torch, definition.name).from_pretrained(folder)
    np.testing.assert_array_equal(module.generate(torch.from_numpy(IDS), 10).numpy(), wanted)


def test_the_same_text_with_a_penalty_and_ends(folder: Path):
    """Greedy: what is repeated counts less, from the prompt on; a sequence that has ended is filled up."""
    model = theirs("mamba")
    model.save_pretrained(folder)
    definition, params = ssm_core.from_pretrained(folder)
    given: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False, "repetition_penalty": 1.7}
    wanted = model.generate(torch.from_numpy(IDS), **given)[:, IDS.shape[1] :].numpy()
    free = definition.generate(params, IDS, 20, repetition_penalty=1.7)
    np.testing.assert_array_equal(free, wanted)
    ends = [int(free[0, 3]), int(free[1, 6])]
    wanted = model.generate(torch.from_numpy(IDS), **given, eos_token_id=ends, pad_token_id=42)[:, IDS.shape[1] :]
    found = definition.generate(params, IDS, 20, repetition_penalty=1.7, eos=ends)
    assert found.shape == wanted.shape
    assert found.shape[1] < 20
    np.testing.assert_array_equal(np.where(wanted.numpy() == 42, found, wanted.numpy()), found)


@pytest.mark.parametrize("penalty", [1.0, 1.4, 0.5])
@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 7}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_k": 9, "top_p": 0.8, "min_p": 0.1}, {"top_p": 1.0}],
    ids=str,
)
@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
def test_probabilities_are_theirs(temperature: float, options: dict[str, Any], penalty: float):
    """Of every token, by the processors that their `generate` makes of the same options."""
    logits = np.random.default_rng(4).normal(size=(2, 43)) * 3
    config = transformers.GenerationConfig(
        do_sample=True, temperature=temperature, repetition_penalty=penalty, **({"top_k": 0} | options)
    )
    model = theirs("mamba")
    processors = model._get_logits_processor(config, input_ids_seq_length=IDS.shape[1])
    scores = processors(torch.from_numpy(IDS), torch.from_numpy(logits))
    wanted = torch.softmax(scores, dim=-1).numpy()
    seen = generation.tokens_of(IDS, None, "right", 43)
    kept = {"top_k": None, "top_p": None, "min_p": None} | options
    found = sampling.weights(generation.penalized(logits, seen, penalty), temperature, **kept)
    np.testing.assert_allclose(found / found.sum(axis=-1, keepdims=True), wanted, rtol=1e-9, atol=1e-15)


@each_config
def test_the_way_there_and_back(name: str, folder: Path, tmp_path: Path):
    model = theirs(name)
    model.save_pretrained(folder)
    ssm_core.save_pretrained(*ssm_core.from_pretrained(folder), tmp_path / "back")
    back, report = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    for n, x in model.state_dict().items():
        assert torch.equal(back.state_dict()[n], x), n
    close(logits_of(back.eval(), IDS), logits_of(model, IDS))


@pytest.mark.parametrize("name", MODELS)
def test_they_load_what_is_saved(name: str, folder: Path):
    definition = MODELS[name]
    params, ids = weights(definition), IDS % definition.vocab_size
    ssm_core.save_pretrained(definition, params, folder)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    close(definition.apply(params, ids), logits_of(model.eval(), ids))


@pytest.mark.parametrize("name", ["mamba_untied", "mamba2_groups"])
def test_files_in_several_parts(name: str, folder: Path):
    model = theirs(name)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    definition, params = ssm_core.from_pretrained(folder)
    wanted = logits_of(model, IDS)
    close(definition.apply(params, IDS), wanted)
    ssm_core.save_pretrained(definition, params, folder)
    close(logits_of(type(model).from_pretrained(folder).eval(), IDS), wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_files_of_half_precision(dtype: str, folder: Path):
    theirs("mamba").to(getattr(torch, dtype)).save_pretrained(folder)
    model = transformers.MambaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    definition, params = ssm_core.from_pretrained(folder)
    close(definition.apply(params, IDS), logits_of(model, IDS))


def test_a_head_of_its_own_and_ids_of_tokens(folder: Path, tmp_path: Path):
    """Both sides keep a head that config.json calls tied; what is saved again has the ids and the same logits."""
    from safetensors.torch import load_file, save_file

    model = theirs("mamba")
    model.config.eos_token_id, model.config.bos_token_id = 7, 1
    model.save_pretrained(folder)
    head = {"lm_head.weight": torch.randn(43, 32)}
    save_file(load_file(folder / "model.safetensors") | head, folder / "model.safetensors", metadata={"format": "pt"})
    wanted = logits_of(transformers.MambaForCausalLM.from_pretrained(folder).eval(), IDS)
    module = adapters.torch.from_pretrained(folder)
    close(module(torch.from_numpy(IDS)).detach(), wanted)
    module.save_pretrained(tmp_path / "back")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    close(logits_of(back, IDS), wanted)
    assert (back.config.eos_token_id, back.config.bos_token_id) == (7, 1)


# Layers of gated linear attention -------------------------------------------------------------------------------------


def redrawn(module: Any) -> dict[str, np.ndarray]:
    """All parameters of a module anew, and by the names that layers here give them."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.empty_like(p).uniform_(-0.5, 0.5))
    return {n.replace(".", "_"): p.detach().numpy() for n, p in module.named_parameters()}


def test_mlstm():
    """The layer of xLSTM: at once, and what its state becomes."""
    from transformers.models.xlstm.modeling_xlstm import xLSTMLayer

    sizes = {"hidden_size": 32, "embedding_dim": 32, "num_heads": 4, "num_blocks": 1, "vocab_size": 8, "chunk_size": 16}
    module = xLSTMLayer(transformers.xLSTMConfig(**sizes)).eval()
    params = redrawn(module)
    u = np.random.default_rng(1).normal(size=(2, 48, 32)).astype(np.float32)
    with torch.no_grad():
        wanted, state = module(torch.from_numpy(u))
    layer = ssm_core.layers.MLSTM(32, heads=4)
    y, found = layer.apply({p.name: params[p.name] for p in layer.parameters()}, u, return_state=True)
    close(y, wanted.numpy())
    for actual, expected in zip(found, state or (), strict=False):
        close(actual, expected.numpy().reshape(actual.shape))


@pytest.mark.parametrize("place", [0, 2])
def test_lightning(place: int):
    """The linear attention of MiniMax, of several depths."""
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    sizes = {"hidden_size": 24, "num_attention_heads": 3, "head_dim": 10, "num_hidden_layers": 4, "block_size": 7}
    module = MiniMaxLightningAttention(transformers.MiniMaxConfig(**sizes), layer_idx=place).eval()
    params = redrawn(module)
    u = np.random.default_rng(1).normal(size=(2, 20, 24)).astype(np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(u), position_embeddings=(None, None), attention_mask=None)[0]
    layer = ssm_core.layers.Lightning(24, heads=3, head_dim=10, layer_idx=place, num_layers=4)
    close(layer.apply(params, u), wanted.numpy())


def doubled(module: Any) -> Any:
    """Its parameters anew, in double precision."""
    redrawn(module)
    return module.double().eval()


def weights_of(layer: Any, module: Any) -> dict[str, np.ndarray]:
    """By their names there, with an underscore for every point."""
    held = {name.replace(".", "_"): x.detach().numpy() for name, x in module.named_parameters()}
    shapes = {p.name: p.shape for p in layer.parameters()}
    assert held.keys() == shapes.keys()
    return {name: held[name].reshape(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("width", "heads", "taps"), [(12, 3, 4), (16, 1, 2)])
def test_the_recurrent_block_of_recurrent_gemma(width: int, heads: int, taps: int):
    """Sequences that begin at position 0, one of them once more inside, which starts the convolution there too."""
    from transformers.models.recurrent_gemma import modeling_recurrent_gemma as gemma

    config = transformers.RecurrentGemmaConfig(
        hidden_size=8,
        lru_width=width,
        num_attention_heads=heads,
        conv1d_width=taps,
        hidden_activation="gelu_pytorch_tanh",
    )
    block = doubled(gemma.RecurrentGemmaRecurrentBlock(config, 0))
    layer = ssm_core.layers.RGLRU(8, lru_width=width, heads=heads, d_conv=taps)
    u = np.random.default_rng(0).normal(size=(2, 11, 8))
    with torch.no_grad():
        position = torch.arange(11)[None].expand(2, -1)
        wanted = block(torch.from_numpy(u), position, None, use_cache=False)[0].numpy()
    params = weights_of(layer, block)
    close(layer.apply(params, u), wanted)
    begins = np.zeros((2, 22), bool)
    begins[:, 11] = True
    close(layer.apply(params, np.concatenate([u, u], axis=1), reset=begins), np.concatenate([wanted, wanted], axis=1))


@pytest.mark.parametrize("width", [None, 12])
def test_the_time_mix_of_rwkv(width: int | None):
    from transformers.models.rwkv import modeling_rwkv as rwkv

    config = transformers.RwkvConfig(
        vocab_size=11, hidden_size=8, attention_hidden_size=width, num_hidden_layers=2, context_length=32
    )
    block = doubled(rwkv.RwkvSelfAttention(config, 0))
    layer = ssm_core.layers.RWKV4(8, width=width, chunk=4)
    u = np.random.default_rng(0).normal(size=(2, 11, 8))
    with torch.no_grad():
        wanted = block(torch.from_numpy(u))[0].numpy()
    params = weights_of(layer, block)
    close(layer.apply(params, u), wanted)
    state, steps = layer.initial_state(params, 2), []
    for k in range(11):
        y, state = layer.step(params, u[:, k], state)
        steps.append(y)
    close(np.stack(steps, axis=1), wanted)


# Layers of delta rules ------------------------------------------------------------------------------------------------


def blocks_of_delta_rules() -> Any:
    from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    sizes = {"linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 5}
    sizes |= {"linear_value_head_dim": 10, "linear_conv_kernel_dim": 3, "hidden_size": 24, "rms_norm_eps": 1e-5}
    yield Qwen3NextGatedDeltaNet(transformers.Qwen3NextConfig(**sizes), layer_idx=0), sizes, originals.gated_delta_net
    sizes = {"linear_num_heads": 3, "linear_head_dim": 8, "linear_conv_kernel_dim": 4, "hidden_size": 24}
    sizes |= {"rms_norm_eps": 1e-6}
    yield KimiLinearDeltaAttention(transformers.KimiLinearConfig(**sizes), layer_idx=0), sizes, originals.kda


def test_gated_delta_net_and_kda():
    """The linear attention of Qwen3-Next and of Kimi Linear, over several of their chunks."""
    for module, sizes, imported in blocks_of_delta_rules():
        redrawn(module.eval())
        u = np.random.default_rng(1).normal(size=(2, 150, 24)).astype(np.float32)
        with torch.no_grad():
            found = module(torch.from_numpy(u))
        wanted = found[0] if isinstance(found, tuple) else found
        layer, params = imported({n: p.detach().numpy() for n, p in module.named_parameters()}, sizes)
        close(layer.apply(params, u), wanted.numpy())
