"""Small models of transformers, one of each type that `accelerate` knows, as if after some training."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {"vocab_size": 43, "hidden_size": 32, "num_hidden_layers": 2}
TOKENS = {"eos_token_id": None, "pad_token_id": 0, "bos_token_id": 1}
ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 48}
MIXED = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DELTA: dict[str, Any] = {
    **ATTENTION, **MIXED, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "shared_expert_intermediate_size": 16,
}  # fmt: skip
HEADS: dict[str, Any] = {
    **ATTENTION, "mamba_d_state": 8, "mamba_d_head": 8, "mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_chunk_size": 16
}  # fmt: skip
ZAMBA = {**ATTENTION, "mamba_d_state": 8, "num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"]}

KIMI: dict[str, Any] = {
    **ATTENTION, **EXPERTS, "layer_types": MIXED["layer_types"], "linear_num_heads": 2, "linear_head_dim": 16,
    "kv_lora_rank": 16, "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "num_local_experts": 4, "n_group": 1, "topk_group": 1,
}  # fmt: skip

TYPES: dict[str, dict[str, Any]] = {
    "Mamba": {"state_size": 8},
    "FalconMamba": {"state_size": 8},
    "Mamba2": {"state_size": 8, "head_dim": 8, "num_heads": 8, "n_groups": 2, "chunk_size": 16},
    "Jamba": {
        **ATTENTION, "mamba_d_state": 8, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1,
    },
    "Zamba": {**ZAMBA, "n_mamba_heads": 2},
    "Zamba2": {**ZAMBA, "mamba_headdim": 16, "n_mamba_heads": 4, "mamba_ngroups": 1, "chunk_size": 16},
    "Bamba": {**HEADS, "attn_layer_indices": [1]},
    "NemotronH": {
        **ATTENTION, "ssm_state_size": 8, "mamba_head_dim": 8, "mamba_num_heads": 8, "n_groups": 2, "chunk_size": 16,
        "layers_block_type": ["mamba", "attention"], "head_dim": 16,
    },
    "GraniteMoeHybrid": {
        **HEADS, "layer_types": ["mamba", "attention"], "num_local_experts": 2, "num_experts_per_tok": 1,
        "shared_intermediate_size": 16,
    },
    "FalconH1": {**HEADS, "mamba_d_ssm": 64, "head_dim": 16},
    "Qwen3Next": {**DELTA, **EXPERTS},
    "Qwen3_5": DELTA,
    "Qwen3_5Moe": {**DELTA, **EXPERTS},
    "OlmoHybrid": DELTA,
    "KimiLinear": KIMI,
    "BailingHybrid": KIMI,
    "Lfm2": {**ATTENTION, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "conv_bias": True},
    "Lfm2Moe": {**ATTENTION, **EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "Lfm3": {**ATTENTION, **EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "MiniMax": {
        **ATTENTION, "head_dim": 16, "layer_types": ["full_attention", "linear_attention"], "num_local_experts": 2,
        "num_experts_per_tok": 1, "block_size": 16,
    },
    "Rwkv": {"rescale_every": 1},
    "xLSTM": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2, "chunk_size": 16, "num_blocks": 2},
    "RecurrentGemma": {**ATTENTION, "lru_width": 32, "block_types": ["recurrent", "attention"], "head_dim": 16},
}  # fmt: skip
RECURRENT = ("Mamba", "FalconMamba", "Mamba2", "xLSTM")  # without positions, and with a cache of another name
PADDED = [
    name for name in TYPES if name not in ("xLSTM", "RecurrentGemma", "Rwkv")
]  # those that know of padding at all


def model_of(name: str, **options: Any) -> Any:
    text = "Text" if name.startswith("Qwen3_5") else ""
    config = getattr(transformers, f"{name}{text}Config")(**{**SIZES, **TYPES[name], **TOKENS, **options})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.empty_like(p).uniform_(-0.1, 0.1))
    return model


def gradients(model: Any) -> dict[str, Any]:
    """Those of a backward that was run, which are taken away."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found
