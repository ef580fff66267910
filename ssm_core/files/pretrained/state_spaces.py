"""The directories that state-spaces publishes for mamba_ssm: its own config.json, in the words of transformers.

{"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 8, ...}; the vocabulary
is padded to a multiple, and the tensors have the names of transformers but for the embedding.
"""

from __future__ import annotations

from typing import Any

from ..._arrays.errors import OptionError
from .architecture import Config, is_size

_LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2", "Mamba3": "mamba3"}
_ALL = {
    "d_state": "state_size",
    "expand": "expand",
    "dt_min": "time_step_min",
    "dt_max": "time_step_max",
    "dt_init_floor": "time_step_floor",
}
_CONVOLVED = {"d_conv": "conv_kernel", "conv_bias": "use_conv_bias", "bias": "use_bias"}
_HEADS = {"headdim": "head_dim", "ngroups": "n_groups", "chunk_size": "chunk_size"}
_SAME = ("rope_fraction", "A_floor", "is_outproj_norm", "is_mimo", "mimo_rank")
_OPTIONS = {
    "mamba": {**_ALL, **_CONVOLVED, "dt_rank": "time_step_rank"},
    "mamba2": {**_ALL, **_CONVOLVED, **_HEADS, "dt_limit": "time_step_limit"},
    "mamba3": {**_ALL, **_HEADS, **{name: name for name in _SAME}},
}
_DEFAULTS = {"mamba": {}, "mamba2": {"head_dim": 64, "n_groups": 1}, "mamba3": {}}
# What only the first draw or the speed depends on.
_WITHOUT_MEANING = {
    *("layer", "dt_init", "dt_scale", "use_fast_path", "use_mem_eff_path", "A_init_range", "conv_init"),
    *("dropout", "fuse_pregate_headwise_norm"),
}
_FIXED: dict[str, tuple[Any, ...]] = {  # options that our models have in one way only
    "rmsnorm": (True,),
    "norm_before_gate": (False,),
    "D_has_hdim": (False,),
    "activation": ("swish", "silu"),
    "d_ssm": (None,),
}
_FIXED_ENTRIES: dict[str, tuple[Any, ...]] = {"rms_norm": (True,), "attn_layer_idx": ([], None)}
_ENTRIES = ("d_model", "n_layer", "ssm_cfg", "tie_embeddings", "pad_vocab_size_multiple", "residual_in_fp32")
_ENTRIES_DROPPED = (*_ENTRIES, *_FIXED_ENTRIES, "d_intermediate", "fused_add_norm", "attn_cfg")


def is_original(config: Config) -> bool:
    """Whether it is a config.json of mamba_ssm."""
    return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()


def translated(config: Config) -> Config:
    """The config.json of transformers that says the same; raises OptionError for what no model here has."""
    options = config.get("ssm_cfg") or {}
    if not isinstance(options, dict):
        raise OptionError(f"ssm_cfg = {options!r} must be an object.")
    layer = options.get("layer", "Mamba1")
    if not isinstance(layer, str) or layer not in _LAYERS:
        raise OptionError(f"ssm_cfg: layer = {layer!r} must be one of {', '.join(map(repr, _LAYERS))}.")
    kind = _LAYERS[layer]
    for name, known in (_FIXED_ENTRIES | ({} if kind == "mamba3" else {"d_intermediate": (0,)})).items():
        if name in config and config[name] not in known:
            raise OptionError(f"{name} = {config[name]!r} must be {known[0]!r}, as all models here have it.")
    for name, known in _FIXED.items():
        if name in options and options[name] not in known:
            raise OptionError(
                f"ssm_cfg: {name} = {options[name]!r} must be {known[0]!r}: the layers here have no other."
            )
    names = _OPTIONS[kind]
    unknown = sorted(options.keys() - names.keys() - _FIXED.keys() - _WITHOUT_MEANING)
    if unknown:
        raise OptionError(f"ssm_cfg has entries without meaning here: {unknown}.")
    found = {
        "model_type": kind,
        "hidden_size": config["d_model"],
        "num_hidden_layers": config["n_layer"],
        "vocab_size": _padded(config),
        **_DEFAULTS[kind],
        **{names[name]: x for name, x in options.items() if name in names},
    }
    if kind == "mamba3":
        found["d_intermediate"] = config.get("d_intermediate", 0)
    if "tie_embeddings" in config:
        found["tie_word_embeddings"] = config["tie_embeddings"]
    return {name: x for name, x in config.items() if name not in _ENTRIES_DROPPED} | found


def original(config: Config) -> Config:
    """The inverse of `translated`, for Mamba-3, which transformers has not: the entries that mamba_ssm takes."""
    names = {"hidden_size": "d_model", "num_hidden_layers": "n_layer", "tie_word_embeddings": "tie_embeddings"}
    options = {theirs: config[ours] for theirs, ours in _OPTIONS["mamba3"].items()}
    said = {"model_type", "torch_dtype", *names, *_OPTIONS["mamba3"].values()}
    return {
        **{theirs: config[ours] for ours, theirs in names.items()},
        **{name: x for name, x in config.items() if name not in said},
        "ssm_cfg": {"layer": "Mamba3", **options},
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
    }


def _padded(config: Config) -> Any:
    """The vocabulary as a whole multiple."""
    size, multiple = config["vocab_size"], config.get("pad_vocab_size_multiple", 8)
    if not is_size(multiple):
        raise OptionError(f"pad_vocab_size_multiple = {multiple!r} must be a whole number of at least 1.")
    return -(-size // multiple) * multiple if is_size(size) else size
