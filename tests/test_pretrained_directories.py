"""What a Hugging Face directory of a model may look like: files in parts, other precisions, spellings, old names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.files import pretrained
from ssm_core.models import LanguageModel, Mamba3LM, MambaLM

pytest.importorskip("safetensors")

from directories import (
    MAMBA,
    MAMBA2,
    MODELS,
    equivalent,
    same,
    saved,
    sharded,
    weights,
    write_config,
    write_raw,
    write_tensors,
)
from safetensors.numpy import load_file

each_model = pytest.mark.parametrize("name", MODELS)
IDS = np.asarray([[1, 2, 3, 4, 5, 6], [10, 0, 10, 3, 3, 7]])


@pytest.mark.parametrize("name", ["mamba", "mamba2_untied"])
def test_several_files(name: str, folder: Path):
    _, params = saved(folder, name)
    sharded(folder)
    assert len(list(folder.glob("*.safetensors"))) == 3
    same(ssm_core.from_pretrained(folder)[1], params)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F64"])
def test_other_precisions(dtype: str, folder: Path):
    """Half precision becomes float32 to the last digit, as PyTorch reads it."""
    _, params = saved(folder)
    tensors = {}
    for name, x in load_file(folder / "model.safetensors").items():
        stored = {
            "F16": x.astype(np.float16), "F64": x.astype(np.float64), "BF16": (x.view(np.uint32) >> 16).astype("<u2")
        }[dtype]  # fmt: skip
        tensors[name] = dtype, x.shape, stored.tobytes()
    write_raw(folder, tensors)
    rounded = {
        "F16": lambda x: x.astype(np.float16).astype(np.float32),
        "F64": lambda x: x,
        "BF16": lambda x: (x.view(np.uint32) & 0xFFFF0000).view(np.float32),
    }[dtype]
    found = ssm_core.from_pretrained(folder)[1]
    same(found, {name: rounded(x) for name, x in params.items()})
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}


def test_bfloat16_of_torch(folder: Path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    _, params = saved(folder)
    tensors = {n: torch.from_numpy(x).to(torch.bfloat16) for n, x in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    wanted = {name: torch.from_numpy(x).to(torch.bfloat16).float().numpy() for name, x in params.items()}
    same(ssm_core.from_pretrained(folder)[1], wanted)


@pytest.mark.parametrize(
    "limit",
    ["[0.0, Infinity]", '[0.0, {"__float__": "Infinity"}]', "[0, 1e999]", f"[0, {10**400}]", None],
    ids=["json", "tagged", "overflow", "digits", "absent"],
)
def test_limits_of_steps_in_every_spelling(limit: str | None, folder: Path):
    _, params = saved(folder, "mamba2", time_step_limit="LIMIT" if limit else ...)
    text = (folder / "config.json").read_text()
    write_config(folder, text.replace('"LIMIT"', limit or ""))
    model, found = ssm_core.from_pretrained(folder)
    assert model.block().dt_limit == (0.0, math.inf)
    same(found, params)


@pytest.mark.parametrize("rank", ["auto", ..., 1])
def test_ranks_in_every_spelling(rank: Any, folder: Path):
    saved(folder, time_step_rank=rank)
    assert ssm_core.from_pretrained(folder)[0].block().rank == 1


@pytest.mark.parametrize("rank", [None, 1, 3])
def test_ranks_come_back_as_they_were_given(rank: int | None, tmp_path: Path):
    model = MambaLM(11, 8, 1, {"d_state": 4, "dt_rank": rank})
    ssm_core.save_pretrained(model, model.initial_parameters(), tmp_path)
    assert ssm_core.from_pretrained(tmp_path)[0].layer_options["dt_rank"] == rank


def test_norms_with_weights_have_no_directory(tmp_path: Path):
    model = MambaLM(11, 8, 1, {"norm_weights": True, "norm_epsilon": 1e-5})
    with pytest.raises(ssm_core.OptionError, match=r"no norm_weights = True.*ssm_core\.save"):
        ssm_core.save_pretrained(model, model.initial_parameters(), tmp_path)


@pytest.mark.parametrize("inner", [16, ...])
@pytest.mark.parametrize("expand", [2, 16, ...])
def test_the_inner_size_says_more_than_the_factor(expand: Any, inner: Any, folder: Path):
    """falcon-mamba-7b is published with expand 16, hidden_size 4096 and intermediate_size 8192."""
    saved(folder, expand=expand, intermediate_size=inner)
    if (expand, inner) == (16, ...):
        with pytest.raises(ssm_core.ShapeError, match=r"config\.json makes it \(256, "):
            ssm_core.from_pretrained(folder)
    else:
        assert ssm_core.from_pretrained(folder)[0].block().expand == 2


def test_a_config_of_the_sizes_alone(folder: Path):
    """All other entries have the defaults of transformers."""
    model = MambaLM(11, 8, 1)
    ssm_core.save_pretrained(model, weights(model), folder)
    write_config(folder, {"model_type": "mamba", "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1})
    equivalent(ssm_core.from_pretrained(folder)[0], model)


def test_entries_of_other_programs_are_passed_over(folder: Path):
    saved(folder, bos_token_id=0, ssm_cfg={}, fused_add_norm=True, time_step_scale=1.0, transformers_version="5.23.0")
    equivalent(ssm_core.from_pretrained(folder)[0], MAMBA)


@pytest.mark.parametrize("flag", [True, ...])
def test_tied_models_may_hold_a_head(flag: Any, folder: Path):
    """A copy of the embedding, which some programs write."""
    _, params = saved(folder, tie_word_embeddings=flag)
    write_tensors(folder, lambda t: t | {"lm_head.weight": t["backbone.embeddings.weight"].copy()})
    model, found = ssm_core.from_pretrained(folder)
    assert model.tied
    same(found, params)


@pytest.mark.parametrize(("name", "tied"), [("mamba", True), ("mamba_untied", False), ("mamba2_untied", False)])
def test_the_tensors_say_whether_a_silent_config_is_tied(name: str, tied: bool, folder: Path):
    _, params = saved(folder, name, tie_word_embeddings=...)
    model, found = ssm_core.from_pretrained(folder)
    assert model.tied == tied
    same(found, params)


def test_the_old_name_of_the_embedding(folder: Path):
    """state-spaces/mamba-130m-hf and its siblings have it."""
    _, params = saved(folder)
    write_tensors(folder, lambda t: {n.replace("embeddings", "embedding"): x for n, x in t.items()})
    same(ssm_core.from_pretrained(folder)[1], params)


@pytest.mark.parametrize("before", ["mamba2", "mamba_untied", "shards"])
def test_saving_over_a_directory(before: str, folder: Path):
    saved(folder, "mamba" if before == "shards" else before)
    if before == "shards":
        sharded(folder)
    params = weights(MAMBA, seed=1)
    ssm_core.save_pretrained(MAMBA, params, folder)
    model, found = ssm_core.from_pretrained(folder)
    equivalent(model, MAMBA)
    same(found, params)
    assert not (folder / "model.safetensors.index.json").exists()
    assert not list(folder.glob("*.new"))


def test_a_refused_save_leaves_the_old_directory(folder: Path):
    _, params = saved(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for model, given in ((MAMBA, {}), (Mamba3LM(11, 8, 1, {"head_dim": 4}), params), (MAMBA2, params)):
        with pytest.raises(ssm_core.SSMError, match=r"^save_pretrained: "):
            ssm_core.save_pretrained(model, given, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_without_meaning_stay(folder: Path):
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    saved(folder)
    assert (folder / "tokenizer.json").read_text() == "{}"


def test_without_safetensors(folder: Path, monkeypatch: pytest.MonkeyPatch):
    saved(folder)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    for call in (
        lambda: ssm_core.save_pretrained(MAMBA, weights(MAMBA), folder),
        lambda: ssm_core.from_pretrained(folder),
    ):
        with pytest.raises(ssm_core.MissingPackageError, match=r"safetensors is not installed.* pip install "):
            call()


def test_another_architecture(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Is one record: nothing else knows what a mixer is, or how its tensors are called."""
    model = LanguageModel(11, 8, 2, "S4D", {"d_state": 4}, channel_mix="gated_mlp", mix_width=12)

    def definition(c: dict[str, Any], tied: bool) -> LanguageModel:
        options = {"layer": "S4D", "layer_options": {"d_state": c["states"]}, "tied": tied}
        mix = {"channel_mix": "gated_mlp", "mix_width": c["width"]}
        return LanguageModel(c["vocab_size"], c["hidden_size"], c["num_hidden_layers"], **options, **mix)

    record = pretrained.Architecture(
        model_type="s4d_with_mlp",
        definition=definition,
        describes=lambda model: model.layer == "S4D",
        config=lambda model: {"states": model.layer_options["d_state"], "width": model.mix_width},
        their_name=lambda name: name.replace("backbone", "model").replace("channel_mix", "mlp"),
        their_shape=lambda name, shape: (*shape, 1) if name.endswith("log_dt") else shape,
        sizes=("states",),
    )
    known = {**pretrained.architectures(), record.model_type: record}
    monkeypatch.setattr(pretrained.directory, "architectures", lambda: known)
    params = weights(model)
    ssm_core.save_pretrained(model, params, folder)
    tensors = load_file(folder / "model.safetensors")
    assert tensors["model.layers.0.mixer.log_dt"].shape == (8, 1)
    assert "model.layers.1.mlp.gate.weight" in tensors
    loaded, found = ssm_core.from_pretrained(folder)
    assert loaded == model
    same(found, params)
    write_config(folder, (folder / "config.json").read_text().replace('"states": 4', '"states": 0'))
    with pytest.raises(ssm_core.OptionError, match="states = 0 must be a whole number of at least 1"):
        ssm_core.from_pretrained(folder)


def test_a_channel_mix_that_the_format_does_not_know(folder: Path):
    model = MambaLM(11, 8, 1, channel_mix="mlp")
    with pytest.raises(ssm_core.OptionError, match=r"^save_pretrained: the format knows no channel_mix 'mlp'\.$"):
        ssm_core.save_pretrained(model, weights(model), folder)
