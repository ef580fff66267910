"""The jobs of transformers' own models: a training step with `adapters.transformers.accelerate` and without.

Small models of random weights, 2 layers of width 256, batch 2, 1024 steps: forward, loss, and backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ssm_core

from .. import peers
from ..harness import Case, Job
from .common import close

BATCH, L, WIDTH = 2, 1024, 256

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 512, "head_dim": 64}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
LINEAR: dict[str, Any] = {"layer_types": ["linear_attention", "linear_attention"]}
KEYS = {"linear_num_key_heads": 4, "linear_key_head_dim": 64, "linear_num_value_heads": 4, "linear_value_head_dim": 64}

# the type, its options, what is wanted, and how often it is run
MODELS: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "mamba": ("Mamba", {}, "wanted: 50x", 1),
    "falcon-mamba": ("FalconMamba", {}, "wanted: 50x", 1),
    "mamba2": ("Mamba2", {"num_heads": 8, "head_dim": 64, "n_groups": 1, "state_size": 64}, "wanted: 1x", 3),
    "qwen3-next": (
        "Qwen3Next", ATTENTION | MOE | LINEAR | KEYS | {"shared_expert_intermediate_size": 128}, "wanted: 1x", 3,
    ),
    "kimi-linear": (
        "KimiLinear",
        ATTENTION | MOE | LINEAR | {"linear_num_heads": 4, "linear_head_dim": 64, "num_local_experts": 4}
        | {"n_group": 1, "topk_group": 1},
        "wanted: 15x",
        3,
    ),
    "xlstm": ("xLSTM", {"embedding_dim": WIDTH, "num_blocks": 2, "num_heads": 4}, "wanted: 1x", 3),
    "recurrent-gemma": (
        "RecurrentGemma", ATTENTION | {"lru_width": WIDTH, "block_types": ["recurrent", "recurrent"]}, "wanted: 1x", 3,
    ),
}  # fmt: skip


def training_step(kind: str) -> Case:
    """The same model, whose functions are replaced for ours and put back for theirs."""
    family, options, wanted, repeats = MODELS[kind]
    here, missing = peers.those_here({"transformers": lambda: steps_of(family, options)})
    if missing:
        return Case(f"{family} training step", lambda: None, {}, None, wanted, repeats=0, missing=missing)
    ours, theirs = here["transformers"]

    def check() -> None:
        close(ours(), theirs(), 1e-4)

    return Case(f"{family} training step", ours, {"transformers": theirs}, check, wanted, repeats=repeats)


def steps_of(family: str, options: dict[str, Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A step with and without the replacements, which gives the gradient of the embedding."""
    import torch

    library = peers.package("transformers")
    torch.manual_seed(0)
    config = getattr(library, f"{family}Config")(**SIZES, **options)
    model = getattr(library, f"{family}ForCausalLM")(config).train()
    ids = torch.randint(1, SIZES["vocab_size"], (BATCH, L))

    def theirs() -> Any:
        model.zero_grad(set_to_none=True)
        model(ids, labels=ids, use_cache=False).loss.backward()
        return model.get_input_embeddings().weight.grad

    def ours() -> Any:
        with ssm_core.adapters.transformers.accelerate(model.config.model_type):
            return theirs()

    return ours, theirs


JOBS = {f"train-{kind}": Job(lambda kind=kind: training_step(kind)) for kind in MODELS}
