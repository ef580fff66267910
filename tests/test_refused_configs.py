"""Hugging Face directories whose config.json is broken, lacks something, or says what no model can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssm_core import OptionError

pytest.importorskip("safetensors")

from directories import refused, saved, write_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("no json", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "cannot be read"),
        ("[]", "holds no object"),
        ('[{"model_type": "mamba"}]', "holds no object"),
        ("null", "holds no object"),
        ('"mamba"', "holds no object"),
        ("3", "holds no object"),
    ],
    ids=lambda x: x[:20],
)
def test_configs_that_are_none(text: str, message: str, folder: Path):
    saved(folder)
    write_config(folder, text)
    refused(folder, OptionError, rf"config\.json' {message}")
    write_config(folder, {"model_type": "mamba"})
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, OptionError, rf"model\.safetensors\.index\.json' {message}")


def test_a_config_that_is_no_text(folder: Path):
    saved(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe{}")
    refused(folder, OptionError, r"config\.json' cannot be read")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(folder, OptionError, r"config\.json' cannot be read")


@pytest.mark.parametrize("kind", ["llama", "Mamba", "", None, 3, ["mamba"], {}, ...])
def test_model_types(kind: Any, folder: Path):
    saved(folder, model_type=kind)
    refused(folder, OptionError, "has model_type .*Known: .*'falcon_mamba'.*'mamba'.*'mamba2'")


def test_a_directory_of_another_model_type(folder: Path):
    saved(folder, model_type="mamba2", head_dim=4, n_groups=1)
    refused(folder, OptionError, r"are not those of config\.json: missing \[.*dt_bias.*\] \(4\), surplus \[.*x_proj")


@pytest.mark.parametrize("entry", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_missing_entries(entry: str, folder: Path):
    saved(folder, **{entry: ...})
    refused(folder, OptionError, rf"config\.json of '.*' lacks '{entry}'")


def test_a_missing_head_dim(folder: Path):
    saved(folder, "mamba2", head_dim=...)
    refused(folder, OptionError, "lacks 'head_dim'")


SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "state_size", "conv_kernel", "expand", "intermediate_size")
SIZES2 = ("vocab_size", "hidden_size", "num_hidden_layers", "state_size", "head_dim", "num_heads", "n_groups")
NO_SIZES = ("8", -8, 0, None, 8.0, 8.5, True, [8], {}, float("nan"), float("inf"), 2**31, 10**400)


SIZES_TRIED = [
    *(("mamba", "vocab_size", value) for value in NO_SIZES),
    *((name, e, value) for name, es in (("mamba", SIZES), ("mamba2", SIZES2)) for e in es for value in ("8", None)),
]


@pytest.mark.parametrize(("name", "entry", "value"), SIZES_TRIED, ids=lambda x: repr(x)[:20])
def test_sizes_of_the_wrong_type(name: str, entry: str, value: Any, folder: Path):
    saved(folder, name, **{entry: value})
    refused(folder, OptionError, rf"config\.json of '.*': {entry} = .* must be a whole number of at least 1")


NUMBERS = ("layer_norm_epsilon", "time_step_min", "time_step_max", "time_step_floor", "mixer_rms_eps")


NO_NUMBERS = ("1e-5", -1e-5, 0, None, True, [1e-5], {}, float("nan"), float("inf"), 10**400)
NUMBERS_TRIED = [*((NUMBERS[0], value) for value in NO_NUMBERS), *((e, v) for e in NUMBERS[1:] for v in NO_NUMBERS[:2])]


@pytest.mark.parametrize(("entry", "value"), NUMBERS_TRIED, ids=lambda x: repr(x)[:20])
def test_numbers_of_the_wrong_type(entry: str, value: Any, folder: Path):
    saved(folder, "falcon", **{entry: value})
    refused(folder, OptionError, rf"config\.json of '.*': {entry} = .* must be a positive number")


@pytest.mark.parametrize("value", ["true", 1, 0, None, [True]])
@pytest.mark.parametrize("entry", ["use_bias", "use_conv_bias", "tie_word_embeddings"])
def test_flags_of_the_wrong_type(entry: str, value: Any, folder: Path):
    saved(folder, **{entry: value})
    refused(folder, OptionError, rf"{entry} = .* must be true or false")


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("mamba", {"time_step_rank": "automatic"}, "time_step_rank = 'automatic' must be 'auto' or a whole number"),
        ("mamba", {"time_step_rank": None}, "time_step_rank = None must be 'auto'"),
        ("mamba", {"time_step_rank": -1}, "time_step_rank = -1 must be 'auto'"),
        ("mamba", {"time_step_rank": ["auto"]}, r"time_step_rank = \['auto'\] must be 'auto'"),
        ("mamba", {"time_step_min": 0.2}, r"needs 0 < dt_min <= dt_max \(dt_min: 0.2, dt_max: 0.1\)"),
        ("mamba", {"intermediate_size": 17}, "intermediate_size = 17 is no multiple of hidden_size = 8"),
        ("mamba", {"hidden_act": "gelu"}, "hidden_act = 'gelu' must be 'silu'"),
        ("mamba", {"hidden_act": None}, "hidden_act = None must be 'silu'"),
        ("mamba", {"hidden_act": ["silu"]}, r"hidden_act = \['silu'\] must be 'silu'"),
        ("mamba", {"layer_norm_epsilon": 2}, r"epsilon = 2 must lie in \(0, 1\)"),
        ("mamba2", {"num_heads": 3}, r"num_heads \* head_dim = 3 \* 4 is not expand \* hidden_size = 16"),
        ("mamba2", {"head_dim": 5, "num_heads": ...}, "head_dim|num_heads"),
        ("mamba2", {"n_groups": 3}, "n_groups = 3 must divide the 4 heads"),
        ("mamba2", {"n_groups": ...}, "n_groups = 8 must divide the 4 heads"),
        ("mamba2", {"time_step_limit": 3}, "dt_limit = 3 must be two numbers"),
        ("mamba2", {"time_step_limit": None}, "dt_limit = None must be two numbers"),
        ("mamba2", {"time_step_limit": "[0, 1]"}, "dt_limit = .* must be two numbers"),
        ("mamba2", {"time_step_limit": []}, r"dt_limit = \(\) must be two numbers"),
        ("mamba2", {"time_step_limit": [0.1]}, "dt_limit = .* must be two numbers"),
        ("mamba2", {"time_step_limit": [0.2, 0.1]}, "dt_limit = .* must be two numbers, 0 <= low <= high"),
        ("mamba2", {"time_step_limit": [-1, 0.1]}, "dt_limit = .* must be two numbers, 0 <= low <= high"),
        ("mamba2", {"time_step_limit": ["0", "inf"]}, "dt_limit = .* must be two numbers"),
        ("mamba2", {"time_step_limit": [0.0, {"__float__": "many"}]}, "dt_limit = .* must be two numbers"),
        ("mamba2", {"time_step_limit": [0.0, {}]}, "dt_limit = .* must be two numbers"),
    ],
)
def test_entries_that_no_model_can_have(name: str, entries: Any, message: str, folder: Path):
    saved(folder, name, **entries)
    refused(folder, OptionError, rf"config\.json of '.*{message}")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"rms_norm": False}, "rms_norm = False must be True"),
        ({"d_intermediate": 64}, "d_intermediate = 64 must be 0"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx = \[1\] must be \[\]"),
        ({"ssm_cfg": {"layer": "Mamba9"}}, "layer = 'Mamba9' must be one of 'Mamba1', 'Mamba2'"),
        ({"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}}, "rmsnorm = False must be True"),
        ({"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, "D_has_hdim = True must be False"),
        ({"ssm_cfg": {"invented": 1}}, r"entries without meaning here: \['invented'\]"),
        ({"ssm_cfg": [1]}, r"ssm_cfg = \[1\] must be an object"),
        ({"ssm_cfg": {"layer": "Mamba3", "d_conv": 4}}, r"entries without meaning here: \['d_conv'\]"),
        ({"ssm_cfg": {"layer": "Mamba3", "is_mimo": True, "mimo_rank": 1}}, "is_mimo with mimo_rank = 1"),
        ({"ssm_cfg": {"layer": "Mamba3"}, "d_intermediate": -1}, "d_intermediate = -1 must be a whole number"),
        ({"pad_vocab_size_multiple": 0}, "pad_vocab_size_multiple = 0 must be a whole number"),
        ({"n_layer": "2"}, "num_hidden_layers = '2' must be a whole number"),
        ({"ssm_core": {"d_state": 8}}, "ssm_core = .* must be an object"),
    ],
)
def test_configs_of_state_spaces(entries: Any, message: str, folder: Path):
    saved(folder)
    write_config(folder, {"d_model": 8, "n_layer": 2, "vocab_size": 11, "pad_vocab_size_multiple": 1} | entries)
    refused(folder, OptionError, message)
    write_config(folder, {"d_model": 8, "n_layer": 2})
    refused(folder, OptionError, "lacks 'vocab_size'")
