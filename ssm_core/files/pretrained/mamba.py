"""Mamba, as state-spaces/mamba-130m-hf and its siblings are published; its successors share most of it."""

from __future__ import annotations

from typing import Any

from ..._arrays.errors import OptionError
from ...models import LanguageModel, MambaLM
from .architecture import Architecture, Config, is_size, registered

# Ours within a block, and theirs; "weight" and "bias" follow.
_RENAMED = {
    "in_proj_": "in_proj.",
    "out_proj_": "out_proj.",
    "x_proj_": "x_proj.",
    "dt_proj_": "dt_proj.",
    "conv_": "conv1d.",
    "norm_weight": "norm.weight",
}
_BLOCK = ".mixer."

SIZES = ("state_size", "conv_kernel", "expand", "intermediate_size")
NUMBERS = ("layer_norm_epsilon", "time_step_min", "time_step_max", "time_step_floor")
FLAGS = ("use_bias", "use_conv_bias")
ENTRIES = ("time_step_rank", "hidden_act")
PASSED = (  # of first draws, of how it is computed, and what the program that trained it called the same
    *("time_step_scale", "time_step_init_scheme", "rescale_prenorm_residual", "residual_in_fp32", "use_mambapy"),
    *("use_associative_scan", "use_falcon_mambapy", "ssm_cfg", "d_model", "d_inner", "n_layer", "fused_add_norm"),
    *("rms_norm", "pad_vocab_size_multiple", "norm_before_gate", "A_initializer_range", "tie_embeddings"),
)
OTHER_NAMES = {"backbone.embedding.weight": "backbone.embeddings.weight"}  # in the first published checkpoints


def their_name(name: str) -> str:
    """The name of one of our parameters in a checkpoint.

    >>> from ssm_core.files.pretrained.mamba import their_name
    >>> their_name("backbone.layers.0.mixer.in_proj_weight")
    'backbone.layers.0.mixer.in_proj.weight'
    """
    model, block, own = name.rpartition(_BLOCK)
    for ours, theirs in _RENAMED.items():
        if block and own.startswith(ours):
            return f"{model}{block}{theirs}{own[len(ours) :]}"
    return name


def their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The taps of a convolution have an axis of one input."""
    return (shape[0], 1, *shape[1:]) if name.endswith("conv1d.weight") else shape


def definition(c: Config, tied: bool) -> MambaLM:
    """The model of config.json."""
    rank = c.get("time_step_rank", "auto")
    if rank != "auto" and not is_size(rank):
        raise OptionError(f"time_step_rank = {rank!r} must be 'auto' or a whole number of at least 1.")
    hidden = c["hidden_size"]
    options = layer_options(c) | {"dt_rank": None if rank == "auto" else rank}
    inner = c.get("intermediate_size", options["expand"] * hidden)
    options["expand"], rest = divmod(inner, hidden)  # published files contradict themselves: this is what they mean
    if rest:
        raise OptionError(f"intermediate_size = {inner} is no multiple of hidden_size = {hidden}.")
    epsilon = c.get("layer_norm_epsilon", 1e-5)
    return MambaLM(c["vocab_size"], hidden, c["num_hidden_layers"], options, tied, epsilon)


def layer_options(c: Config, d_state: int = 16) -> dict[str, Any]:
    """Options of the blocks that all successors have; entries that are not there have the defaults of transformers."""
    if c.get("hidden_act", "silu") not in ("silu", "swish"):
        raise OptionError(f"hidden_act = {c['hidden_act']!r} must be 'silu'.")
    return {
        "d_state": c.get("state_size", d_state),
        "d_conv": c.get("conv_kernel", 4),
        "expand": c.get("expand", 2),
        "dt_min": c.get("time_step_min", 1e-3),
        "dt_max": c.get("time_step_max", 1e-1),
        "dt_floor": c.get("time_step_floor", 1e-4),
        "conv_bias": c.get("use_conv_bias", True),
        "bias": c.get("use_bias", False),
    }


def layer_entries(model: LanguageModel) -> Config:
    """The inverse of `layer_options`, and the epsilon of the norms."""
    if model.channel_mix is not None:
        raise OptionError(f"the format knows no channel_mix {model.channel_mix!r}.")
    block: Any = model.block()
    return {
        "layer_norm_epsilon": model.epsilon,
        "hidden_act": "silu",
        "state_size": block.d_state,
        "conv_kernel": block.d_conv,
        "expand": block.expand,
        "use_bias": block.bias,
        "use_conv_bias": block.conv_bias,
        "time_step_min": block.dt_min,
        "time_step_max": block.dt_max,
        "time_step_floor": block.dt_floor,
    }


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`."""
    block: Any = model.block()
    if block.discretization != "mamba":
        raise OptionError(f"the format knows no discretization {block.discretization!r}.")
    if block.norm_weights:
        raise OptionError(
            "the format knows no norm_weights = True, weights of the norms of the step, B and C. "
            "Keep the model in one file: adapters.torch.save(model, path), or ssm_core.save."
        )
    return {
        "architectures": ["MambaForCausalLM"],
        "time_step_rank": "auto" if block.dt_rank is None else block.dt_rank,
        "intermediate_size": block.inner,
    } | layer_entries(model)


MAMBA = registered(
    Architecture(
        model_type="mamba",
        model="`MambaLM`",
        definition=definition,
        describes=lambda model: model.layer == "Mamba" and model.layer_options.get("norm_epsilon") is None,
        config=config,
        their_name=their_name,
        their_shape=their_shape,
        sizes=SIZES,
        numbers=NUMBERS,
        flags=FLAGS,
        other_names=OTHER_NAMES,
        entries=ENTRIES,
        passed=PASSED,
    )
)
