"""The models of transformers that are made fast, a row each: what of its module takes which replacement.

A new model is a row: the folder of transformers.models, and what is replaced there. `function` and `mixer` name an
attribute of its module, or a method as Class.method. Replacements have the parameters of what they take the place of,
which is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import functions
from .sequences import attending_apart, handing_on, over_sequences, over_sequences_of_attention


@dataclass(frozen=True)
class Replacement:
    """An attribute of a module of transformers, and what makes of it what takes its place."""

    name: str
    made_of: Callable[[Callable[..., Any]], Callable[..., Any]]


def function(name: str, ours: Callable[..., Any]) -> Replacement:
    return Replacement(name, lambda original: ours)


def mixer(name: str) -> Replacement:
    return Replacement(f"{name}.forward", over_sequences)


def convolution(name: str) -> Replacement:
    """A mixer that is a short convolution, between maps of its own."""
    return Replacement(f"{name}.forward", over_sequences_of_attention)


def keeping_packing(name: str) -> Replacement:
    """A model or a block that does not hand on to its mixers how sequences are packed."""
    return Replacement(f"{name}.forward", handing_on)


def attention(name: str) -> Replacement:
    """A model with attention, which is to keep packed sequences apart as its mixers do."""
    return Replacement(f"{name}.forward", attending_apart)


CONVOLUTION = (
    function("causal_conv1d_fn", functions.causal_conv1d_fn),
    function("causal_conv1d_update", functions.causal_conv1d_update),
)
MAMBA = (
    *CONVOLUTION,
    function("mamba_selective_scan", functions.mamba_selective_scan),
    function("mamba_selective_state_update", functions.mamba_selective_state_update),
)
FUSED_MAMBA = (*MAMBA, function("mamba_inner_fn", functions.not_fused))
MAMBA2 = (
    *CONVOLUTION,
    function("mamba2_split_conv1d_scan_combined", functions.not_fused),
    function("mamba2_chunk_scan", functions.mamba2_chunk_scan),
    function("mamba2_selective_state_update", functions.mamba2_selective_state_update),
)
GATED_DELTA = (
    *CONVOLUTION,
    function("torch_chunk_gated_delta_rule", functions.chunk_delta_rule),
    function("torch_recurrent_gated_delta_rule", functions.recurrent_delta_rule),
)
KDA = (
    *CONVOLUTION,
    function("chunk_kimi_delta_attention", functions.chunk_delta_rule),
    function("recurrent_kimi_delta_attention", functions.recurrent_delta_rule),
)

MODELS: dict[str, tuple[Replacement, ...]] = {
    "bailing_hybrid": (mixer("BailingHybridDeltaAttention"), attention("BailingHybridModel"), *KDA),
    "bamba": (mixer("BambaMixer"), attention("BambaModel"), *MAMBA2),
    "falcon_h1": (mixer("FalconH1Mixer"), attention("FalconH1Model"), *MAMBA2),
    "falcon_mamba": (
        mixer("FalconMambaMixer"),
        keeping_packing("FalconMambaModel"),
        keeping_packing("FalconMambaForCausalLM"),
        *FUSED_MAMBA,
    ),
    "glm5_next": (mixer("Glm5NextTextLinearAttention"), *KDA),
    "granitemoehybrid": (
        mixer("GraniteMoeHybridMambaLayer"),
        attention("GraniteMoeHybridModel"),
        *MAMBA2,
    ),
    "jamba": (
        mixer("JambaMambaMixer"),
        attention("JambaModel"),
        keeping_packing("JambaMambaDecoderLayer"),
        *FUSED_MAMBA,
    ),
    "kimi_linear": (mixer("KimiLinearDeltaAttention"), attention("KimiLinearModel"), *KDA),
    "lfm2": (convolution("Lfm2ShortConv"), attention("Lfm2Model"), *CONVOLUTION),
    "lfm2_moe": (convolution("Lfm2MoeShortConv"), attention("Lfm2MoeModel"), *CONVOLUTION),
    "lfm3": (convolution("Lfm3ShortConv"), attention("Lfm3Model"), *CONVOLUTION),
    "mamba": (
        mixer("MambaMixer"),
        keeping_packing("MambaModel"),
        keeping_packing("MambaForCausalLM"),
        *FUSED_MAMBA,
    ),
    "mamba2": (mixer("Mamba2Mixer"), keeping_packing("Mamba2ForCausalLM"), *MAMBA2),
    "minimax": (
        Replacement("MiniMaxLightningAttention.forward", functions.lightning_attention),
        attention("MiniMaxModel"),
    ),
    "nemotron_h": (mixer("NemotronHMamba2Mixer"), attention("NemotronHModel"), *MAMBA2),
    "olmo_hybrid": (mixer("OlmoHybridGatedDeltaNet"), attention("OlmoHybridModel"), *GATED_DELTA),
    "qwen3_5": (mixer("Qwen3_5GatedDeltaNet"), attention("Qwen3_5TextModel"), *GATED_DELTA),
    "qwen3_5_moe": (mixer("Qwen3_5MoeGatedDeltaNet"), attention("Qwen3_5MoeTextModel"), *GATED_DELTA),
    "qwen3_next": (mixer("Qwen3NextGatedDeltaNet"), attention("Qwen3NextModel"), *GATED_DELTA),
    "qwen4_exp": (mixer("Qwen4ExpTextGatedDeltaNet"), attention("Qwen4ExpTextModel"), *GATED_DELTA),
    "recurrent_gemma": (function("RecurrentGemmaRglru._rnn_scan", functions.rnn_scan),),
    "rwkv": (Replacement("rwkv_linear_attention", functions.rwkv_linear_attention),),
    "xlstm": (function("xLSTMBackend.forward", functions.mlstm),),
    "zamba": (mixer("ZambaMambaMixer"), attention("ZambaModel"), *MAMBA),
    "zamba2": (mixer("Zamba2MambaMixer"), attention("Zamba2Model"), *MAMBA2),
}
