"""Hugging Face directories: what is written is read again, every published spelling is read, and bad ones are refused
with their cause. tests/test_transformers.py holds them against transformers itself."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import adapters
from ssm_core.models import Mamba2LM, MambaLM

pytest.importorskip("safetensors")

import safetensors
from directories import (
    MAMBA,
    MODELS,
    equivalent,
    same,
    saved,
    weights,
    write_config,
    write_raw,
    write_tensors,
)
from safetensors.numpy import load_file

each_model = pytest.mark.parametrize("name", MODELS)
IDS = np.asarray([[1, 2, 3, 4, 5, 6], [10, 0, 10, 3, 3, 7]])


# Round trips ---------------------------------------------------------------------------------------------------------


@each_model
def test_what_is_saved_is_loaded(name: str, folder: Path):
    model, params = saved(folder, name)
    loaded, found = ssm_core.from_pretrained(folder)
    equivalent(loaded, model)
    same(found, params)
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(loaded.apply(found, IDS), model.apply(params, IDS))


@each_model
def test_names_and_layouts_are_the_published_ones(name: str, folder: Path):
    model, params = saved(folder, name)
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    assert tensors["backbone.embeddings.weight"].shape == (config["vocab_size"], config["hidden_size"])
    assert ("lm_head.weight" in tensors) == (not config["tie_word_embeddings"])
    block: Any = model.block()
    for i in range(config["num_hidden_layers"]):
        mixer = f"backbone.layers.{i}.mixer."
        conv = tensors[f"{mixer}conv1d.weight"]
        assert conv.shape[1:] == (1, config["conv_kernel"])
        np.testing.assert_array_equal(conv[:, 0], params[f"{mixer}conv_weight"])
        assert (f"{mixer}in_proj.bias" in tensors) == (f"{mixer}out_proj.bias" in tensors) == config["use_bias"]
        assert (f"{mixer}conv1d.bias" in tensors) == config["use_conv_bias"]
        if name.startswith("mamba2"):
            assert tensors[f"{mixer}norm.weight"].shape == (config["num_heads"] * config["head_dim"],)
        else:
            assert tensors[f"{mixer}dt_proj.weight"].shape == (block.inner, block.rank)
            assert config["time_step_rank"] == ("auto" if block.dt_rank is None else block.dt_rank)
    with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_any_array_library(xp: Any, folder: Path):
    params = {name: xp.asarray(x) for name, x in weights(MAMBA).items()}
    ssm_core.save_pretrained(MAMBA, params, folder)
    _, found = ssm_core.from_pretrained(folder, xp=xp)
    assert all(x.dtype == xp.float32 for x in found.values())
    same(found, params)


def test_parameters_come_in_the_dtype_asked_for(xp: Any, folder: Path):
    _, params = saved(folder)
    found = ssm_core.from_pretrained(folder, xp=xp, dtype=xp.float64)[1]
    assert all(x.dtype == xp.float64 for x in found.values())
    same(found, params)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_every_precision_is_written_as_float32(dtype: str, folder: Path):
    params = {name: x.astype(dtype) for name, x in weights(MAMBA).items()}
    ssm_core.save_pretrained(MAMBA, params, str(folder))
    same(ssm_core.from_pretrained(str(folder))[1], {name: x.astype(np.float32) for name, x in params.items()})
    assert {x.dtype for x in load_file(folder / "model.safetensors").values()} == {np.dtype(np.float32)}


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", ["falcon", "mamba2_biases"])
def test_from_torch_over_flax_to_numpy(name: str, folder: Path, tmp_path: Path):
    torch, nnx = pytest.importorskip("torch"), pytest.importorskip("flax.nnx")
    model, params = saved(folder, name)
    in_torch = getattr(adapters.torch, model.name).from_pretrained(folder)
    in_torch.save_pretrained(tmp_path / "from_torch")
    in_flax = getattr(adapters.flax, model.name).from_pretrained(tmp_path / "from_torch")
    in_flax.save_pretrained(tmp_path / "from_flax")
    loaded, found = ssm_core.from_pretrained(tmp_path / "from_flax")
    assert loaded == in_torch.definition == in_flax.definition
    same(found, params)
    wanted, logits = model.apply(params, IDS), in_torch(torch.from_numpy(IDS)).detach()
    np.testing.assert_allclose(logits.numpy(), wanted, rtol=1e-4, atol=1e-5)
    y = nnx.jit(lambda m, ids: m(ids))(in_flax, IDS)
    np.testing.assert_allclose(np.asarray(y), wanted, rtol=1e-4, atol=1e-5)


def test_torch_loads_onto_a_device_in_a_dtype(folder: Path):
    torch = pytest.importorskip("torch")
    _, params = saved(folder)
    module = adapters.torch.MambaLM.from_pretrained(folder, device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    table = torch.from_numpy(params["backbone.embeddings.weight"]).to(torch.bfloat16)
    assert torch.equal(module.backbone.embeddings.weight, table)


@pytest.mark.usefixtures("quick_compilation")
def test_flax_loads_into_a_dtype(folder: Path):
    jnp = pytest.importorskip("jax.numpy")
    pytest.importorskip("flax")
    _, params = saved(folder)
    module = adapters.flax.MambaLM.from_pretrained(folder, param_dtype=jnp.bfloat16)
    table = module.backbone.embeddings.embedding[...]
    assert table.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(table, np.float32), params["backbone.embeddings.weight"], rtol=1e-2)


# What saving keeps ---------------------------------------------------------------------------------------------------


@each_model
def test_definitions_survive(name: str, folder: Path):
    model, _ = saved(folder, name)
    loaded, _ = ssm_core.from_pretrained(folder)
    assert loaded == model
    assert hash(loaded) == hash(model)


def test_every_option_of_the_blocks_survives(folder: Path):
    """The length of a chunk, and what only the first draw needs; options at their defaults equal those left out."""
    options = {"d_state": 4, "head_dim": 4, "chunk": 8, "A_min": 2.0, "A_max": 3.0, "dt_floor": 1e-5}
    model = Mamba2LM(11, 8, 1, options)
    ssm_core.save_pretrained(model, weights(model), folder)
    loaded = ssm_core.from_pretrained(folder)[0]
    assert loaded == model == Mamba2LM(11, 8, 1, {**options, "d_conv": 4})
    assert loaded != Mamba2LM(11, 8, 1, {**options, "chunk": 16})


@pytest.mark.parametrize("framework", ["numpy", "torch", "flax"])
def test_what_the_directory_says_beyond_the_model_survives(framework: str, folder: Path, tmp_path: Path):
    """Ids of tokens, entries of other programs, generation_config.json."""
    pytest.importorskip(framework)
    tokens = {"eos_token_id": [7, 8], "bos_token_id": 1, "pad_token_id": None, "task_specific_params": {"of": [1, 2]}}
    saved(folder, **tokens, dtype="bfloat16")
    generation = {"eos_token_id": [7, 8], "temperature": 0.7}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    new = tmp_path / "new"
    if framework == "numpy":
        ssm_core.save_pretrained(*ssm_core.from_pretrained(folder), new)
    else:
        getattr(adapters, framework).from_pretrained(folder).save_pretrained(new)
    found = json.loads((new / "config.json").read_text())
    assert {name: found[name] for name in tokens} == tokens
    assert "dtype" not in found  # the file is float32 now
    assert json.loads((new / "generation_config.json").read_text()) == generation


@pytest.mark.parametrize("framework", ["torch", "flax"])
@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon"])
def test_the_directory_picks_the_class(name: str, framework: str, folder: Path):
    pytest.importorskip(framework)
    model, params = saved(folder, name)
    module = getattr(adapters, framework).from_pretrained(folder)
    assert type(module) is getattr(getattr(adapters, framework), model.name)
    same({n: np.asarray(x.detach() if framework == "torch" else x) for n, x in module.arrays().items()}, params)


@pytest.mark.parametrize("flag", [True, ...])
def test_a_head_of_its_own_is_kept(flag: Any, folder: Path):
    """Whatever config.json says of tied words: as transformers does."""
    _, params = saved(folder, tie_word_embeddings=flag)
    head = np.random.default_rng(1).normal(size=(11, 8)).astype(np.float32)
    write_tensors(folder, lambda t: t | {"lm_head.weight": head})
    model, found = ssm_core.from_pretrained(folder)
    assert not model.tied
    same(found, params | {"lm_head.weight": head})
    logits = model.apply(found, IDS)
    assert np.abs(logits - MAMBA.apply(params, IDS)).max() > 0.1


# Directories of state-spaces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_the_layout_of_state_spaces(name: str, folder: Path, tmp_path: Path):
    """Their config.json, their name of the embedding, a padded vocabulary, a head that is a copy of it."""
    model, params = saved(folder, name)
    write_tensors(folder, lambda t: {n.replace("embeddings", "embedding"): x for n, x in t.items()})
    write_tensors(folder, lambda t: t | {"lm_head.weight": t["backbone.embedding.weight"].copy()})
    cfg = {"mamba": {"d_state": 4}, "mamba2": {"layer": "Mamba2", "d_state": 4, "headdim": 4, "chunk_size": 64}}[name]
    write_config(folder, {"d_model": 8, "n_layer": 2, "vocab_size": 10, "ssm_cfg": cfg, "rms_norm": True,
                          "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 11,
                          "d_intermediate": 0, "attn_layer_idx": [], "attn_cfg": {}})  # fmt: skip
    loaded, found = ssm_core.from_pretrained(folder)
    assert loaded == model
    same(found, params)
    ssm_core.save_pretrained(loaded, found, tmp_path / "new")
    assert ssm_core.from_pretrained(tmp_path / "new")[0] == model


@pytest.mark.parametrize("parts", [1, 2])
def test_the_advice_for_pickled_files_works(parts: int, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """For tied weights too, which safetensors refuses as they are, and for files of several parts."""
    torch = pytest.importorskip("torch")
    module = importlib.import_module("safetensors.torch")
    _, params = saved(folder)
    tensors = module.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors["lm_head.weight"] = tensors["backbone.embeddings.weight"]
    tensors["backbone.norm_f.weight"] = torch.stack([tensors["backbone.norm_f.weight"]] * 2, 1)[:, 0]
    names = sorted(tensors)
    for i in range(parts):
        file = "pytorch_model.bin" if parts == 1 else f"pytorch_model-{i + 1:05}-of-{parts:05}.bin"
        torch.save({name: tensors[name] for name in names[i::parts]}, folder / file)
    torch.save({}, folder / "training_args.bin")
    with pytest.raises(ssm_core.OptionError, match=r"pickled and (is|are) not opened") as caught:
        ssm_core.from_pretrained(folder)
    advice = re.split("where you trust (?:it|them), with ", str(caught.value))[1].removesuffix(".")
    monkeypatch.chdir(folder)
    exec(advice, {"torch": torch, "safetensors": importlib.import_module("safetensors")})
    same(ssm_core.from_pretrained(folder)[1], params)


MEASURE = """
import sys, pathlib
import numpy as np
framework, folder = sys.argv[1:]
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
def now(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024
if framework == "torch":
    import torch
    from ssm_core.adapters.torch import from_pretrained
    load = lambda where: from_pretrained(where, dtype=torch.bfloat16)
else:
    import jax.numpy as jnp
    from ssm_core.adapters.flax import from_pretrained
    load = lambda where: from_pretrained(where, param_dtype=jnp.bfloat16)
small = load(folder + "/small")
before = now()
pathlib.Path("/proc/self/clear_refs").write_text("5")
large = load(folder + "/large")
print((peak() - before) / (pathlib.Path(folder) / "large/model.safetensors").stat().st_size)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is measured on Linux")
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_loading_takes_the_memory_of_the_result(framework: str, tmp_path: Path):
    """A file of bfloat16 in bfloat16: 1.3 times its size at most."""
    pytest.importorskip(framework)
    for name, model in (("small", MambaLM(64, 16, 2)), ("large", MambaLM(8192, 512, 20))):
        params = {p.name: np.zeros(p.shape, np.float32) for p in model.parameters()}
        ssm_core.save_pretrained(model, params, tmp_path / name)
        stored = load_file(tmp_path / name / "model.safetensors")
        raw = {n: ("BF16", x.shape, bytes(2 * x.size)) for n, x in stored.items()}
        write_raw(tmp_path / name, raw)
    command = [sys.executable, "-c", MEASURE, framework, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1.3, done.stdout
