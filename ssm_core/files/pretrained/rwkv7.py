"""RWKV-7 in the layout of flash-linear-attention, as fla-hub/rwkv7-191M-world and its siblings are published."""

from __future__ import annotations

import re
from typing import Any

from ..._arrays.errors import OptionError
from ...models import RWKV7LM, LanguageModel
from . import fla
from .architecture import Architecture, Config, registered

# Ours within a block, and theirs.
_MAPS = {"receptance": "r_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj", "ln_x": "g_norm"}
_LOW_RANK = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}
_PARTS = {"mixer": "attn", "norm": "attn_norm", "channel_mix": "ffn", "channel_norm": "ffn_norm"}
_RANKS = {"decay": 64, "gate": 128, "a": 64, "v": 16}


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


def definition(c: Config, tied: bool) -> RWKV7LM:
    """The model of config.json."""
    hidden, heads, D = c["hidden_size"], c.get("num_heads"), c.get("head_dim", 64)
    if D is None:
        D = hidden // heads if heads else 64
    if heads is not None and heads * D != hidden:
        raise OptionError(f"num_heads * head_dim = {heads} * {D} is not hidden_size = {hidden}.")
    values = c.get("value_dim")
    if values is not None and any(v != hidden for v in (values if isinstance(values, list) else [values])):
        raise OptionError(f"value_dim = {values!r} must be hidden_size = {hidden} in every block.")
    epsilon = c.get("norm_eps", 1e-5)
    ranks = {f"{name}_rank": c.get(f"{name}_low_rank_dim", n) for name, n in _RANKS.items()}
    return RWKV7LM(
        c["vocab_size"],
        hidden,
        c["num_hidden_layers"],
        {"head_dim": D, "epsilon": D * epsilon, **ranks},
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
    return {
        "architectures": ["RWKV7ForCausalLM"],
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
        flags=("norm_first", "norm_bias"),
        unsaid=("chunk", "epsilon"),
        sizes=tuple(f"{name}_low_rank_dim" for name in _RANKS),
        optional=("head_dim", "num_heads", "intermediate_size"),
        entries=("value_dim", "hidden_ratio"),
        fixed={"attn": (None,), "hidden_act": ("sqrelu",)},
        passed=fla.PASSED,
    )
)
