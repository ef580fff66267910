"""Hugging Face directories of small language models, as they are published and with what may be wrong in them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import models
from ssm_core.models import LanguageModel, Mamba2LM, MambaLM

pytest.importorskip("safetensors")

from safetensors.numpy import load_file, save_file

MAMBA = MambaLM(11, 8, 2, {"d_state": 4})
MAMBA2 = Mamba2LM(11, 8, 2, {"d_state": 4, "head_dim": 4})
MODELS: dict[str, LanguageModel] = {
    "mamba": MAMBA,
    "mamba_untied": MambaLM(11, 8, 1, {"d_state": 4, "expand": 3, "d_conv": 2, "dt_rank": 3}, tied=False),
    "mamba_biases": MambaLM(11, 8, 1, {"d_state": 4, "bias": True}, epsilon=1e-6),
    "mamba_no_conv_bias": MambaLM(11, 8, 1, {"d_state": 4, "conv_bias": False}),
    "falcon": MambaLM(11, 8, 2, {"d_state": 4, "norm_epsilon": 1e-4}, tied=False),
    "mamba2": MAMBA2,
    "mamba2_untied": Mamba2LM(11, 8, 1, {"d_state": 4, "head_dim": 2, "n_groups": 4, "d_conv": 3}, tied=False),
    "mamba2_biases": Mamba2LM(11, 8, 1, {"d_state": 4, "head_dim": 4, "bias": True, "conv_bias": False}),
    "mamba2_limits": Mamba2LM(11, 8, 1, {"d_state": 4, "head_dim": 4, "dt_limit": (0.01, 0.05)}),
    "mamba2_one_limit": Mamba2LM(11, 8, 1, {"d_state": 4, "head_dim": 4, "dt_limit": (0.02, math.inf)}),
    "mamba2_epsilon": Mamba2LM(11, 8, 1, {"d_state": 4, "head_dim": 4, "epsilon": 1e-4}, epsilon=1e-4),
}


RANKS = {"decay_rank": 2, "a_rank": 3, "v_rank": 2, "gate_rank": 3}


def _fla(layer: str, options: dict[str, Any]) -> LanguageModel:
    """As flash-linear-attention has them: one epsilon, and gated MLPs."""
    return LanguageModel(
        11, 8, 2, layer, {"epsilon": 1e-4, **options}, tied=False, epsilon=1e-4, channel_mix="gated_mlp", mix_width=5
    )


def weights(model: LanguageModel, seed: int = 0) -> dict[str, np.ndarray]:
    """As if after some training: at first every bias of the maps is alike, and every norm is 1."""
    rng = np.random.default_rng(seed)
    found = model.initial_parameters(seed)
    return {n: (p + rng.uniform(-0.3, 0.3, p.shape)).astype(np.float32) for n, p in found.items()}


def saved(folder: Path, name: str = "mamba", **entries: Any) -> tuple[LanguageModel, dict[str, np.ndarray]]:
    """A directory of one of the models, with changed entries in its config.json (... takes one out)."""
    model = (MODELS | FAMILIES)[name]
    params = weights(model)
    ssm_core.save_pretrained(model, params, folder)
    config = json.loads((folder / "config.json").read_text()) | entries
    write_config(folder, {key: x for key, x in config.items() if x is not ...})
    return model, params


def write_config(folder: Path, config: Any) -> None:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))


def write_tensors(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path)


def write_raw(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """A file of (dtype, shape, bytes), byte by byte as its format says."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def sharded(folder: Path, change: Callable[[dict[str, str]], dict[str, str]] = lambda listed: listed) -> None:
    """Three files and an index instead of one file."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    listed = {name: f"model-{i % 3 + 1:05}-of-00003.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(listed.values()):
        save_file({name: tensors[name] for name in tensors if listed[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": change(listed)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def refused(folder: Path, error: type, message: str, *loaders: Callable[[Path], Any]) -> None:
    """By every loader, with the same message, which starts with the operation and ends as a sentence."""
    for load in loaders or (ssm_core.from_pretrained,):
        with pytest.raises(error, match=f"(?s)^from_pretrained: .*{message}") as caught:
            load(folder)
        assert isinstance(caught.value, ssm_core.SSMError)
        assert str(caught.value).endswith((".", ")")), str(caught.value)


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(x), err_msg=name)


def equivalent(found: LanguageModel, wanted: LanguageModel) -> None:
    """The same but for what only the first draw needs."""
    assert type(found) is type(wanted)
    sizes = ("vocab_size", "d_model", "n_layers", "tied", "epsilon")
    assert [getattr(found, s) for s in sizes] == [getattr(wanted, s) for s in sizes]
    first, second = found.block().options(), wanted.block().options()
    assert {n for n, x in first.items() if x != second[n]} <= {"A_min", "A_max"}


_SEVERAL = {"d_state": 6, "head_dim": 4, "n_groups": 2, "rank": 3, "rope_fraction": 1.0, "out_norm": True, "chunk": 16}

# Models of other families, by their model types; several of one are told apart behind a blank.
FAMILIES: dict[str, LanguageModel] = {
    "mamba3": models.Mamba3LM(11, 8, 2, {"d_state": 4, "head_dim": 4, "A_floor": 1e-3}),
    "mamba3 several": models.Mamba3LM(11, 8, 2, _SEVERAL, tied=False, channel_mix="gated_mlp", mix_width=128),
    "retnet": _fla("RetNet", {"heads": 2, "norm_weight": False}),
    "retnet shared": _fla("RetNet", {"heads": 2, "kv_heads": 1, "feature_map": "silu"}),
    "retnet bare": _fla("RetNet", {"heads": 1, "output_gate": False, "expand_k": 0.5}),
    "gla": _fla("GLA", {"heads": 2, "output_gate": False}),
    "gla shared": _fla("GLA", {"heads": 2, "kv_heads": 1, "feature_map": "relu", "lower_bound": -0.5}),
    "delta_net": _fla("DeltaNet", {"heads": 2, "output_gate": True, "negative_eigenvalues": True, "d_conv": 3}),
    "gated_deltanet": _fla("GatedDeltaNet", {"heads": 2, "head_dim": 4, "num_v_heads": 4, "output_gate": False}),
    "kda": _fla("KDA", {"heads": 2, "head_dim": 4, "gate_bias": True, "lower_bound": -5.0, "expand_v": 0.5}),
    "hgrn2": models.HGRN2LM(11, 8, 3, {"heads": 2}, mix_width=5, epsilon=1e-6),
    "hgrn2 unbounded": models.HGRN2LM(11, 8, 2, {"heads": 4, "chunk": 7}, lower_bounds=False, tied=False, mix_width=5),
    "rwkv7": models.RWKV7LM(11, 8, 3, {"head_dim": 4, **RANKS}, mix_width=6),
    "rwkv7 bare": models.RWKV7LM(11, 8, 1, {"head_dim": 8, **RANKS}, norm_bias=False, entry_norm=False, tied=True),
    "rwkv": models.RWKV4LM(11, 8, 2, {"width": 6}, mix_width=5),
    "rwkv halved": models.RWKV4LM(11, 8, 5, halved_every=2, epsilon=1e-3, last_epsilon=1e-5),
    "xlstm": models.XLSTMLM(11, 8, 2, {"heads": 2}, logit_cap=2.0),
    "xlstm biases": models.XLSTMLM(11, 8, 1, {"heads": 2, "bias": True, "norm_bias": True}, bias=True, mix_width=9),
    "recurrent_gemma": models.RecurrentGemmaLM(11, 8, 3, {"heads": 2}, attention_options={"heads": 2, "window": 4}),
    "recurrent_gemma groups": models.RecurrentGemmaLM(
        11,
        8,
        3,
        {"heads": 2, "activation": "gelu", "lru_width": 8, "d_conv": 2},
        tied=False,
        attention_options={"heads": 2, "kv_heads": 1, "window": 3, "bias": True, "rotary": 1.0, "theta": 100.0},
        block_types=("attention", "recurrent"),
        activation="gelu",
        logit_cap=3.0,
    ),
}
