"""What is wrong in directories of RWKV, xLSTM, RecurrentGemma and flash-linear-attention's models."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import DomainError, OptionError, ShapeError, adapters, models

pytest.importorskip("safetensors")

from directories import FAMILIES, refused, saved, sharded, write_config, write_tensors
from safetensors.numpy import load_file, save_file

MAMBAS = ("mamba", "falcon", "mamba2")
ONE_EACH = [name for name in FAMILIES if " " not in name]


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        *((name, {"invented": 1}, "without meaning for model_type .*: invented. Kn") for name in (*ONE_EACH, *MAMBAS)),
        ("recurrent_gemma", {"rope_parameters": 0}, "rope_parameters = 0 must be of rope_type 'default'"),
        ("rwkv7", {"value_dim": []}, r"value_dim = \[\] must be hidden_size = 8"),
        *((name, {"attn": {"layers": [0]}}, "attn = .* must be None") for name in ("gla", "kda", "hgrn2", "rwkv7")),
        ("retnet", {"use_short_conv": True}, "use_short_conv = True must be False"),
        ("retnet", {"num_kv_heads": 3}, "kv_heads = 3 must divide heads = 2"),
        ("retnet", {"feature_map": "elu"}, "feature_map = 'elu' must be None or 'relu' or 'swish' or 'silu'"),
        ("gla", {"clamp_min": 1.0}, "lower_bound = 1.0 must be None or a negative number"),
        ("gla", {"use_short_conv": True}, "use_short_conv = True must be False"),
        ("gla", {"hidden_act": "powlu"}, "hidden_act = 'powlu' must be 'swish' or 'silu'"),
        ("delta_net", {"qk_norm": "sum"}, "qk_norm = 'sum' must be 'l2'"),
        ("delta_net", {"use_beta": False}, "use_beta = False must be True"),
        ("kda", {"lower_bound": 1.0}, "lower_bound = 1.0 must be None or a negative number"),
        ("hgrn2", {"expand_ratio": 3}, "expand_ratio = 3 must divide hidden_size = 8"),
        ("rwkv7", {"head_dim": None, "num_heads": 3}, "num_heads = 3 does not divide hidden_size = 8"),
        ("rwkv7", {"fuse_norm": "no"}, "fuse_norm = 'no' must be true or false"),
        ("xlstm", {"add_qk_norm": True}, "add_qk_norm = True must be False"),
        ("rwkv7", {"value_dim": [8, 8, 16]}, "value_dim = .* must be hidden_size = 8"),
        ("rwkv", {"rescale_every": "6"}, "rescale_every = '6' must be a whole number"),
        ("xlstm", {"embedding_dim": 16}, "hidden_size = 8 and embedding_dim = 16 must be alike"),
        ("xlstm", {"add_out_norm": False}, "add_out_norm = False must be True"),
        ("recurrent_gemma", {"block_types": ["mamba"]}, "unknown block_type 'mamba'"),
        ("recurrent_gemma", {"rope_parameters": {"rope_type": "yarn"}}, "must be of rope_type 'default'"),
        ("recurrent_gemma", {"rope_parameters": {"type": "dynamic"}}, "must be of rope_type 'default'"),
        ("gla", {"expand_k": 1e308}, r"expand_k = 1e\+308 must be a positive number"),
        ("kda", {"expand_v": 1e308}, r"expand_v = 1e\+308 must be a positive number"),
        ("gla", {"fuse_norm": 1}, "fuse_norm = 1 must be true or false"),
        ("recurrent_gemma", {"hidden_activation": "relu"}, "hidden_activation = 'relu' must be one of"),
        ("recurrent_gemma", {"num_key_value_heads": 3}, "kv_heads = 3 must divide heads = 2"),
        ("recurrent_gemma", {"head_dim": 5}, "head_dim = 5 must be hidden_size / num_attention_heads = 4"),
    ],
)  # fmt: skip
def test_entries_that_no_model_can_have(name: str, entries: Any, message: str, folder: Path):
    saved(folder, name, **entries)
    refused(folder, OptionError, rf"config\.json of '.*': .*{message}")


@pytest.mark.parametrize(("name", "entries"), [("rwkv", {}), ("rwkv7", {"value_dim": None})])
def test_sizes_of_no_memory(name: str, entries: Any, folder: Path):
    """They are compared with the tensors before a number is computed for them."""
    saved(folder, name, hidden_size=2**40, **entries)
    refused(folder, OptionError, "hidden_size = 1099511627776 must be a whole number")
    saved(folder, name, hidden_size=2**30, **entries)
    refused(folder, ShapeError, r"is \(11, 8\), but config\.json makes it \(11, 1073741824\)")


@pytest.mark.parametrize("name", ONE_EACH)
def test_entries_of_the_wrong_type(name: str, folder: Path):
    """Every entry, one by one: refused as what it is, or without meaning."""
    saved(folder, name)
    config = config_of(folder)
    for entry in sorted(config):
        for value in ("8", None, -1, 1.5, [], {}, float("nan")):
            write_config(folder, config | {entry: value})
            with contextlib.suppress(ssm_core.SSMError):
                ssm_core.from_pretrained(folder)


@pytest.mark.parametrize(("bad", "many"), [(np.nan, 1), (np.inf, 3)])
@pytest.mark.parametrize("framework", ["numpy", "torch", "flax"])
def test_numbers_that_are_not_finite(bad: float, many: int, framework: str, folder: Path):
    saved(folder, "rwkv7")
    key = "model.layers.1.attn.w_lora.lora.0.weight"

    def broken(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = t[key].copy()
        x.reshape(-1)[:many] = bad
        return t | {key: x}

    write_tensors(folder, broken)
    if framework != "numpy":
        pytest.importorskip(framework)
    load = ssm_core.from_pretrained if framework == "numpy" else getattr(adapters, framework).from_pretrained
    refused(folder, DomainError, rf"{key} of model\.safetensors holds numbers that are not finite: {many} of", load)


@pytest.mark.parametrize("name", ONE_EACH)
def test_tensors_that_are_missing_or_too_many(name: str, folder: Path):
    saved(folder, name)
    tensors = load_file(folder / "model.safetensors")
    last = max(tensors, key=lambda n: ("layers.1" in n or "blocks.1" in n, n))
    write_tensors(folder, lambda t: {n: x for n, x in t.items() if n != last})
    refused(folder, OptionError, rf"missing \[{last}\] \(1\), surplus \[\] \(0\)")
    save_file(tensors | {"more.weight": np.ones(2, np.float32)}, folder / "model.safetensors")
    refused(folder, OptionError, r"missing \[\] \(0\), surplus \[more\.weight\] \(1\)")
    save_file(tensors, folder / "model.safetensors")
    sharded(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused(folder, OptionError, "model-00002-of-00003.safetensors' is no readable safetensors file .*No such file")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.LanguageModel(11, 8, 1, "GLA", {"heads": 2}, epsilon=1e-5), "no channel_mix None: it has 'gated_mlp'"),
        (
            models.LanguageModel(11, 8, 1, "GLA", {"heads": 2, "gate_rank": 3}, channel_mix="gated_mlp"),
            "the format knows no gate_rank 3: it has 16",
        ),
        (
            models.LanguageModel(11, 8, 1, "RetNet", {"heads": 2, "epsilon": 0.1}, channel_mix="gated_mlp"),
            "one epsilon for all norms, but the model has 1e-05 and its blocks have 0.1",
        ),
        (models.RWKV4LM(11, 8, 1, entry_norm=False), "no model without entry_norm or norm_bias"),
        (models.XLSTMLM(11, 8, 1, {"heads": 2}, out_norm=False), "no model without gated_mlp, logit_cap or out_norm"),
        (models.RecurrentGemmaLM(11, 8, 1, logit_cap=None), "knows no logit_cap None|one number of heads"),
    ],
)
def test_what_the_format_cannot_say(model: Any, message: str, folder: Path):
    with pytest.raises(OptionError, match=rf"^save_pretrained: .*{message}"):
        ssm_core.save_pretrained(model, model.initial_parameters(), folder)
    assert not folder.exists()


def test_options_that_models_set_themselves():
    with pytest.raises(OptionError, match=r"first_values is handed from block to block\. Leave it out"):
        models.LanguageModel(11, 8, 2, "RWKV7", {"head_dim": 4, "first_values": "given"})
    with pytest.raises(OptionError, match=r"lower_bound is what the blocks share\. Leave it out"):
        models.HGRN2LM(11, 8, 2, {"heads": 2, "lower_bound": 0.1})
    with pytest.raises(OptionError, match="logit_cap = 0 must be a positive number"):
        models.XLSTMLM(11, 8, 2, {"heads": 2}, logit_cap=0)
    options = [b.layer_options for b in models.SequenceModel(1, 1, 8, 3, "RWKV7", {"head_dim": 4}).pattern()]
    assert [o["first_values"] for o in options] == ["given", "taken", "taken"]
    assert [o["layer_idx"] for o in options] == [0, 1, 2]
