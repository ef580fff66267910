"""RWKV-4, xLSTM and RecurrentGemma of Hugging Face's transformers itself, with weights by chance, both ways.

Runs where transformers is installed: `nox -s transformers`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed: nox -s transformers runs these tests")

import torch
import transformers
from directories import FAMILIES, weights

import ssm_core
from ssm_core import adapters

SIZES: dict[str, Any] = {"vocab_size": 43, "hidden_size": 32, "num_hidden_layers": 3}
GEMMA: dict[str, Any] = {"intermediate_size": 72, "num_attention_heads": 4, "attn_implementation": "eager"}
XLSTM: dict[str, Any] = {"num_heads": 2, "chunk_size": 8, "ffn_round_up_to_multiple_of": 8}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "rwkv": ("Rwkv", {}),
    "rwkv_wide": ("Rwkv", {"attention_hidden_size": 48, "intermediate_size": 20, "layer_norm_epsilon": 1e-3}),
    "rwkv_halved": ("Rwkv", {"num_hidden_layers": 5, "rescale_every": 2, "layer_norm_epsilon": 1e-2}),
    "rwkv_tied": ("Rwkv", {"tie_word_embeddings": True, "rescale_every": 0}),
    "xlstm": ("xLSTM", XLSTM),
    "xlstm_fused": ("xLSTM", XLSTM | {"weight_mode": "fused", "gate_soft_cap": 3.0, "output_logit_soft_cap": 2.0}),
    "xlstm_biases": ("xLSTM", XLSTM | {"use_bias": True, "qk_dim_factor": 1.0, "norm_eps": 1e-3, "eps": 1e-2}),
    "xlstm_fused_biases": ("xLSTM", XLSTM | {"weight_mode": "fused", "use_bias": True, "ffn_proj_factor": 1.3}),
    "recurrent_gemma": ("RecurrentGemma", GEMMA),
    "recurrent_gemma_groups": (
        "RecurrentGemma",
        GEMMA | {"num_key_value_heads": 1, "attention_bias": True, "attention_window_size": 4, "conv1d_width": 2},
    ),
    "recurrent_gemma_attention": (
        "RecurrentGemma", GEMMA | {"block_types": ["attention", "recurrent"], "hidden_activation": "gelu"}
    ),
    "recurrent_gemma_untied": (
        "RecurrentGemma", GEMMA | {"tie_word_embeddings": False, "logits_soft_cap": 2.0, "rms_norm_eps": 1e-3}
    ),
}  # fmt: skip
each_config = pytest.mark.parametrize("name", CONFIGS)
IDS = np.random.default_rng(0).integers(0, 43, (2, 16))  # whole chunks of xLSTM


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def theirs(name: str) -> Any:
    """A model of transformers, as if after some training, so that no parameter is passed over unseen."""
    family, options = CONFIGS[name]
    ids = {"eos_token_id": None, "pad_token_id": None, "bos_token_id": None}
    config = getattr(transformers, f"{family}Config")(**SIZES | options, **ids)
    torch.manual_seed(0)
    cls = getattr(transformers, f"{family}ForCausalLM")
    with patch.object(cls.__bases__[0], "_init_weights", lambda self, module: None):  # that of fused maps fails
        model = cls(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.empty_like(p).uniform_(-0.4, 0.4))
    return model


def logits_of(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.from_numpy(ids), use_cache=False).logits.numpy()
    return found


def close(found: Any, wanted: Any, allowed: float = 5e-5) -> None:
    """To the roundings of float32."""
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=allowed * np.abs(wanted).max())


@each_config
def test_what_they_save_is_loaded_and_goes_back(name: str, folder: Path, tmp_path: Path):
    """The same logits at once and step by step, and every tensor as it was."""
    model = theirs(name)
    model.save_pretrained(folder)
    wanted = logits_of(model, IDS)
    definition, params = ssm_core.from_pretrained(folder)
    close(definition.apply({n: p.astype(np.float64) for n, p in params.items()}, IDS), wanted)
    module = adapters.torch.from_pretrained(folder)
    with torch.no_grad():
        close(module(torch.from_numpy(IDS)), wanted)
        step, state = module.stepper(), module.initial_state(2)
        for k in range(IDS.shape[1]):
            y, state = step(torch.from_numpy(IDS[:, k]), state)
    close(y, wanted[:, -1])
    ssm_core.save_pretrained(definition, params, tmp_path / "back")
    back, report = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    close(logits_of(back.eval(), IDS), wanted)
    if "fused" not in name:
        for n, x in model.state_dict().items():
            assert torch.equal(back.state_dict()[n], x) or "halved" in name, n


@pytest.mark.parametrize(
    "name", [n for n, m in FAMILIES.items() if n.split()[0] in ("rwkv", "xlstm", "recurrent_gemma")]
)
def test_they_load_what_is_saved(name: str, folder: Path):
    definition = FAMILIES[name]
    params, ids = weights(definition), IDS % definition.vocab_size
    ssm_core.save_pretrained(definition, params, folder)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values()), report
    close(definition.apply(params, ids), logits_of(model.eval(), ids), 1e-4)
