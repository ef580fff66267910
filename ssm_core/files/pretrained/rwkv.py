"""RWKV-4, as RWKV/rwkv-4-169m-pile and its siblings are published."""

from __future__ import annotations

from typing import Any

from ..._arrays.errors import OptionError
from ...models import RWKV4LM, LanguageModel
from .architecture import Architecture, Config, registered

_PARTS = {"mixer": "attention", "norm": "ln1", "channel_mix": "feed_forward", "channel_norm": "ln2"}
_OUTER = {
    "backbone.first_norm.": "rwkv.blocks.0.pre_ln.",
    "backbone.norm_f.": "rwkv.ln_out.",
    "backbone.": "rwkv.",
    "lm_head.": "head.",
}
LAST_EPSILON = 1e-5  # of the norm behind the blocks, whatever layer_norm_epsilon says


def their_name(name: str) -> str:
    """The name of one of our parameters in a checkpoint.

    >>> from ssm_core.files.pretrained.rwkv import their_name
    >>> their_name("backbone.layers.1.channel_mix.key_weight")
    'rwkv.blocks.1.feed_forward.key.weight'
    """
    if not name.startswith("backbone.layers."):
        ours = next(ours for ours in _OUTER if name.startswith(ours))
        return name.replace(ours, _OUTER[ours], 1)
    _, _, i, part, own = name.split(".", 4)
    return f"rwkv.blocks.{i}.{_PARTS[part]}.{own.replace('_weight', '.weight')}"


def their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shares are (1, 1, H)."""
    return (1, 1, *shape) if ".time_mix_" in name else shape


def definition(c: Config, tied: bool) -> RWKV4LM:
    """The model of config.json."""
    every = c.get("rescale_every", 6)
    if isinstance(every, bool) or not isinstance(every, int):
        raise OptionError(f"rescale_every = {every!r} must be a whole number.")
    return RWKV4LM(
        c["vocab_size"],
        c["hidden_size"],
        c["num_hidden_layers"],
        {"width": c.get("attention_hidden_size")},
        tied,
        c.get("layer_norm_epsilon", 1e-5),
        mix_width=c.get("intermediate_size"),
        halved_every=every if every > 0 else None,
        last_epsilon=LAST_EPSILON,
    )


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`."""
    block: Any = model.block()
    assert isinstance(model, RWKV4LM)
    if not (model.entry_norm and model.norm_bias):
        raise OptionError("the format knows no model without entry_norm or norm_bias.")
    last = model.epsilon if model.last_epsilon is None else model.last_epsilon
    if last != LAST_EPSILON:
        raise OptionError(
            f"the format has last_epsilon {LAST_EPSILON} whatever the others are, but the model has {last}."
        )
    return {
        "architectures": ["RwkvForCausalLM"],
        "layer_norm_epsilon": model.epsilon,
        "attention_hidden_size": block.width,
        "intermediate_size": model.mix_width or 4 * model.d_model,
        "rescale_every": model.halved_every or 0,
    }


RWKV4 = registered(
    Architecture(
        model_type="rwkv",
        model="`RWKV4LM`",
        definition=definition,
        describes=lambda model: isinstance(model, RWKV4LM),
        config=config,
        their_name=their_name,
        their_shape=their_shape,
        numbers=("layer_norm_epsilon",),
        optional=("attention_hidden_size", "intermediate_size"),
        unsaid=("chunk",),
        entries=("rescale_every",),
        passed=("context_length",),
    )
)
