"""RecurrentGemma, as google/recurrentgemma-2b and its siblings are published."""

from __future__ import annotations

from typing import Any

from ..._arrays.errors import OptionError
from ...models import LanguageModel, RecurrentGemmaLM
from ...models.language_model import TABLE
from .architecture import Architecture, Config, registered

_PARTS = {
    "norm": "temporal_pre_norm",
    "mixer": "temporal_block",
    "channel_norm": "channel_pre_norm",
    "channel_mix": "mlp_block",
}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "silu": "silu"}


def their_name(name: str) -> str:
    """The name of one of our parameters in a checkpoint.

    >>> from ssm_core.files.pretrained.recurrent_gemma import their_name
    >>> their_name("backbone.layers.0.mixer.rg_lru_input_gate_weight")
    'model.layers.0.temporal_block.rg_lru.input_gate_weight'
    """
    if name == TABLE:
        return "model.embed_tokens.weight"
    if not name.startswith("backbone.layers."):
        return name.replace("backbone.norm_f.", "model.final_norm.")
    _, _, i, part, own = name.split(".", 4)
    if part == "channel_mix":
        own = own.replace(".", "_proj.", 1)
    elif part == "mixer" and own.startswith("rg_lru_"):
        own = own.replace("rg_lru_", "rg_lru.", 1)
    elif part == "mixer":
        map_, _, leaf = own.rpartition("_")
        own = f"{map_}.{leaf}"
    return f"model.layers.{i}.{_PARTS[part]}.{own}"


def their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The taps of a convolution have an axis of one input."""
    return (shape[0], 1, *shape[1:]) if name.endswith("conv_1d.weight") else shape


def rope(c: Config) -> tuple[Any, Any]:
    """The share of features that turn, and theta; older files have both beside the other entries."""
    given = (c.get(name) for name in ("rope_parameters", "rope_scaling"))
    found: Any = next((entry for entry in given if entry is not None), {})
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    kinds = {str(found.get(name, "default")) for name in ("rope_type", "type")} if isinstance(found, dict) else set()
    if kinds != {"default"} or found.keys() - known:
        raise OptionError(f"rope_parameters = {found!r} must be of rope_type 'default'.")
    share = found.get("partial_rotary_factor", c.get("partial_rotary_factor", 0.5))
    return share, found.get("rope_theta", c.get("rope_theta", 10000.0))


def definition(c: Config, tied: bool) -> RecurrentGemmaLM:
    """The model of config.json."""
    activation = c.get("hidden_activation", "gelu_pytorch_tanh")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise OptionError(f"hidden_activation = {activation!r} must be one of {', '.join(map(repr, _ACTIVATIONS))}.")
    heads, hidden, width = c.get("num_attention_heads", 10), c["hidden_size"], c["intermediate_size"]
    if c.get("head_dim") not in (None, hidden // heads):
        raise OptionError(
            f"head_dim = {c['head_dim']!r} must be hidden_size / num_attention_heads = {hidden // heads}."
        )
    if width % 2:
        raise OptionError(f"intermediate_size = {width} must be even: the blocks have half of it.")
    rotary, theta = rope(c)
    kinds = c.get("block_types", ("recurrent", "recurrent", "attention"))
    return RecurrentGemmaLM(
        c["vocab_size"],
        hidden,
        c["num_hidden_layers"],
        {
            "lru_width": c.get("lru_width"),
            "heads": heads,
            "d_conv": c.get("conv1d_width", 4),
            "activation": _ACTIVATIONS[activation],
        },
        tied,
        c.get("rms_norm_eps", 1e-6),
        mix_width=width // 2,
        attention_options={
            "heads": heads,
            "kv_heads": c.get("num_key_value_heads"),
            "window": c.get("attention_window_size", 2048),
            "rotary": rotary,
            "theta": theta,
            "bias": c.get("attention_bias", False),
        },
        block_types=tuple(kinds) if isinstance(kinds, list) else kinds,
        activation=_ACTIVATIONS[activation],
        logit_cap=c.get("logits_soft_cap", 30.0),
    )


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`."""
    assert isinstance(model, RecurrentGemmaLM)
    block: Any = model.block()
    attention: Any = model.attention()
    mix: Any = model.repeated().mix()
    if not attention.output_bias or attention.width * attention.heads != model.d_model:
        raise OptionError("the format knows no output_bias=False, and no head_dim but hidden_size / heads.")
    if block.heads != attention.heads:
        raise OptionError(f"the format has one number of heads, not {block.heads} and {attention.heads}.")
    if block.activation != model.activation:
        raise OptionError(f"the format has one activation, not {block.activation!r} and {model.activation!r}.")
    if model.logit_cap is None:
        raise OptionError("the format knows no logit_cap None.")
    theirs = {ours: name for name, ours in _ACTIVATIONS.items()}
    return {
        "architectures": ["RecurrentGemmaForCausalLM"],
        "rms_norm_eps": model.epsilon,
        "intermediate_size": 2 * mix.width,
        "lru_width": block.lru_width,
        "conv1d_width": block.d_conv,
        "hidden_activation": theirs[model.activation],
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.width,
        "attention_window_size": attention.window,
        "attention_bias": attention.bias,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": attention.theta,
            "partial_rotary_factor": attention.rotary,
        },
        "block_types": list(model.block_types),
        "logits_soft_cap": model.logit_cap,
    }


RECURRENT_GEMMA = registered(
    Architecture(
        model_type="recurrent_gemma",
        model="`RecurrentGemmaLM`",
        definition=definition,
        describes=lambda model: isinstance(model, RecurrentGemmaLM),
        config=config,
        their_name=their_name,
        their_shape=their_shape,
        sizes=("intermediate_size", "num_attention_heads", "attention_window_size", "conv1d_width"),
        numbers=("rms_norm_eps", "logits_soft_cap"),
        flags=("attention_bias",),
        unsaid=("a_min", "a_max"),
        optional=("lru_width", "num_key_value_heads", "head_dim"),
        entries=(
            *("hidden_activation", "block_types"),
            *("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor"),
        ),
        fixed={"embeddings_scale_by_sqrt_dim": (True,)},
        passed=(
            *(
                "w_init_variance_scale",
                "final_w_init_variance_scale",
                "attention_dropout",
            ),
            *("layer_types", "_block_types"),
        ),
    )
)
