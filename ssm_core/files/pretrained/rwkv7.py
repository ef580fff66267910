"""RWKV-7 in the layout of flash-linear-attention, as fla-hub/rwkv7-191M-world and its siblings are published."""

from __future__ import annotations

import re
from typing import Any

from ..._arrays.errors import OptionError
from ...layers.gated.rwkv7 import RANKS
from ...models import RWKV7LM, LanguageModel
from . import fla
from .architecture import Architecture, Config, registered

# Ours within a block, and theirs.
_MAPS = {"receptance": "r_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj", "ln_x": "g_norm"}
_LOW_RANK = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}
_PARTS = {"mixer": "attn", "norm": "attn_norm", "channel_mix": "ffn", "channel_norm": "ffn_norm"}
_RANKS = {"decay": 64, "gate": 128, "a": 64, "v": 16}
FUSED_EPSILON = 1e-6  # under the root of the norm of keys, where fuse_norm is true


def their_name(name: str) -> str:
    """The name of one of our parameters in a checkpoint.

    >>> from ssm_core.files.pretrained.rwkv7 import their_name
    >>> their_name("backbone.layers.1.mixer.w1")
    'model.layers.1.attn.w_lora.lora.0.weight'
    """
    if not name.startswith("backbone.layers."):
        name = name.replace("backbone.first_norm.", "model.layers.0.pre_norm.")
        return name.replace("backbone.norm_f.", "model.norm.").replace("backbone.", "model.")
    _, _, i, part, own = name.split(".", 4)
    if part == "mixer":
        if re.fullmatch("[wavg][012]", own):
            own = f"{own[0]}_lora.lora.{_LOW_RANK[own[1]]}"
        else:
            map_, _, kind = own.rpartition("_")
            own = f"{_MAPS[map_]}.{kind}" if map_ in _MAPS else own
    elif part == "channel_mix":
        own = own.replace("_weight", ".weight")
    return f"model.layers.{i}.{_PARTS[part]}.{own}"


def their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shares of the time mix are (1, 1, H)."""
    return (1, 1, *shape) if re.search(r"\.attn\.x_[rwkvag]$", name) else shape


def head_dim(c: Config) -> int:
    """Features of a head. Published files name a num_heads that is not theirs beside it, which nobody reads."""
    hidden, heads, D = c["hidden_size"], c.get("num_heads"), c.get("head_dim", 64)
    if D is None and (heads is None or hidden % heads):
        raise OptionError(f"head_dim is null, and num_heads = {heads} does not divide hidden_size = {hidden}.")
    return int(hidden // heads if D is None else D)


def rank(c: Config, name: str) -> int:
    """Of a map of low rank; null is one that follows from the sizes."""
    given = c.get(f"{name}_low_rank_dim", _RANKS[name])
    share = 1 if name == "gate" else head_dim(c) / 64
    return max(32, round(RANKS[f"{name}_rank"] * c["hidden_size"] ** 0.5 * share / 32) * 32) if given is None else given


def definition(c: Config, tied: bool) -> RWKV7LM:
    """The model of config.json."""
    hidden, D = c["hidden_size"], head_dim(c)
    values = c.get("value_dim")
    if values not in (None, hidden, [hidden] * c["num_hidden_layers"]):
        raise OptionError(f"value_dim = {values!r} must be hidden_size = {hidden} in every block.")
    epsilon = c.get("norm_eps", 1e-5)
    ranks = {f"{name}_rank": rank(c, name) for name in _RANKS}
    keys = FUSED_EPSILON if c.get("fuse_norm", True) else 0.0
    return RWKV7LM(
        c["vocab_size"],
        hidden,
        c["num_hidden_layers"],
        {"head_dim": D, "epsilon": D * epsilon, "key_epsilon": keys, **ranks},
        tied,
        epsilon,
        mix_width=fla.width(c, 4, 1, 32),
        entry_norm=c.get("norm_first", True),
        norm_bias=c.get("norm_bias", True),
    )


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`; another epsilon of the heads' norm than head_dim norm_eps is an entry of our own."""
    block: Any = model.block()
    mix: Any = model.repeated().mix()
    assert isinstance(model, RWKV7LM)
    if block.key_epsilon not in (0, FUSED_EPSILON):
        raise OptionError(f"the format knows no key_epsilon {block.key_epsilon}: it has 0.0 and {FUSED_EPSILON}.")
    return {
        "architectures": ["RWKV7ForCausalLM"],
        "fuse_norm": block.key_epsilon != 0,
        "hidden_act": "sqrelu",
        "norm_eps": model.epsilon,
        "norm_first": model.entry_norm,
        "norm_bias": model.norm_bias,
        "intermediate_size": mix.width or 4 * model.d_model,
        "head_dim": block.head_dim,
        "num_heads": block.heads,
        "value_dim": [model.d_model] * model.n_layers,
        **{f"{name}_low_rank_dim": block.rank(f"{name}_rank") for name in _RANKS},
    }


RWKV7 = registered(
    Architecture(
        model_type="rwkv7",
        model="`RWKV7LM`",
        definition=definition,
        describes=lambda model: isinstance(model, RWKV7LM),
        config=config,
        their_name=their_name,
        their_shape=their_shape,
        transposed=lambda name: bool(re.search(r"_lora\.lora\.[02]\.weight$", name)),
        numbers=("norm_eps",),
        flags=("norm_first", "norm_bias", "fuse_norm"),
        unsaid=("chunk", "epsilon"),
        optional=("head_dim", "num_heads", "intermediate_size", *(f"{name}_low_rank_dim" for name in _RANKS)),
        entries=("value_dim", "hidden_ratio"),
        fixed={"attn": (None,), "hidden_act": ("sqrelu",)},
        passed=fla.PASSED,
    )
)
