"""RWKV-4 and RWKV-7 by the names of their first checkpoints: blocks.0.att.key.weight, as in BlinkDL's files.

Those files are pickled. Converted to safetensors they are a directory without config.json: all sizes are those of the
tensors, and entries of a config.json that is there come first.
"""

from __future__ import annotations

import re

from ..._arrays.errors import OptionError
from ..stored import Stored
from .architecture import Config

Tensors = dict[str, Stored]
_UNUSED = ("blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2")  # the first block's own values are the first
_OUTER = {
    "rwkv": {"emb": "rwkv.embeddings", "ln_out": "rwkv.ln_out", "head": "head"},
    "rwkv7": {"emb": "model.embeddings", "ln_out": "model.norm", "head": "lm_head"},
}
_BLOCKS = {"rwkv": "rwkv.blocks", "rwkv7": "model.layers"}
_PARTS = {
    "rwkv": {"att": "attention", "ffn": "feed_forward", "ln0": "pre_ln", "ln1": "ln1", "ln2": "ln2"},
    "rwkv7": {"att": "attn", "ffn": "ffn", "ln0": "pre_norm", "ln1": "attn_norm", "ln2": "ffn_norm"},
}
_SHARES = {"time_mix_k": "time_mix_key", "time_mix_v": "time_mix_value", "time_mix_r": "time_mix_receptance"}
_MAPS = {"receptance": "r_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj", "ln_x": "g_norm"}
_LOW_RANK = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}


def version(tensors: Tensors) -> str:
    """The model type that tensors of such names are of, or nothing."""
    if "emb.weight" not in tensors:
        return ""
    if "blocks.0.att.x_r" in tensors and "blocks.0.att.r_k" in tensors:
        return "rwkv7"
    return "rwkv" if {"blocks.0.att.time_first", "blocks.0.att.time_mix_k"} <= tensors.keys() else ""


def translated(config: Config, tensors: Tensors) -> tuple[Config, Tensors]:
    """The config.json and the tensors of transformers, or of flash-linear-attention, that say the same."""
    kind = version(tensors)
    if config.get("model_type", kind) != kind:
        raise OptionError(f"model_type = {config['model_type']!r}, but the tensors are those of {kind!r}.")
    tensors = {name: x for name, x in tensors.items() if kind != "rwkv7" or name not in _UNUSED}
    vocab, hidden = _matrix(tensors, "emb.weight")
    numbers = [int(found.group(1)) for name in tensors if (found := re.match(r"blocks\.(\d{1,6})\.", name))]
    sizes = {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": max(numbers) + 1,
        "intermediate_size": _matrix(tensors, "blocks.0.ffn.key.weight")[0],
    }
    if kind == "rwkv":
        sizes |= {"attention_hidden_size": _matrix(tensors, "blocks.0.att.key.weight")[0], "rescale_every": 0}
    else:
        sizes |= _ranks(tensors) | {"norm_first": "blocks.0.ln0.weight" in tensors}
        heads = tensors["blocks.0.att.r_k"].shape
        by_heads = len(heads) == 2 and (heads[0] > 1 or heads[1] % 64 != 0)  # else in one row, or of one head
        D = config.get("head_dim") or (heads[1] if by_heads else 64)
        sizes |= {"head_dim": D, "norm_eps": 1e-5, "fuse_norm": False}
        sizes |= {} if D == 64 else {"ssm_core": {"epsilon": 64e-5}}  # the norm of the heads, whatever their size
    return sizes | config, {_their_name(kind, name): _flat(kind, name, x, sizes) for name, x in tensors.items()}


def _ranks(tensors: Tensors) -> Config:
    """Those of the low-rank maps; a model of one block has no map of values."""
    names = {"w": "decay", "g": "gate", "a": "a", "v": "v"}
    found = {n: f"blocks.{1 if n == 'v' else 0}.att.{n}1" for n in names}
    return {f"{names[n]}_low_rank_dim": _matrix(tensors, key)[1] for n, key in found.items() if key in tensors}


def _matrix(tensors: Tensors, name: str) -> tuple[int, int]:
    if name not in tensors or len(tensors[name].shape) != 2:
        found = tensors[name].shape if name in tensors else "missing"
        raise OptionError(f"{name} must be a matrix ({found}).")
    return tensors[name].shape[0], tensors[name].shape[1]


def _their_name(kind: str, name: str) -> str:
    first, _, rest = name.partition(".")
    if first in _OUTER[kind]:
        return f"{_OUTER[kind][first]}.{rest}"
    parts = name.split(".", 3)
    if first != "blocks" or len(parts) < 4 or parts[2] not in _PARTS[kind]:
        return name  # and refused as surplus
    _, i, part, own = parts
    if kind == "rwkv":
        own = _SHARES.get(own, own)
    elif part == "att":
        map_, _, leaf = own.partition(".")
        low = re.fullmatch("[wavg][012]", own)
        own = f"{own[0]}_lora.lora.{_LOW_RANK[own[1]]}" if low else f"{_MAPS[map_]}.{leaf}" if map_ in _MAPS else own
    return f"{_BLOCKS[kind]}.{i}.{_PARTS[kind][part]}.{own}"


def _flat(kind: str, name: str, x: Stored, sizes: Config) -> Stored:
    """In the shape of the other layout: vectors are (1, 1, H) in some files, and (H,) in others."""
    own = name.rpartition(".")[2]
    if kind == "rwkv7" and re.search(r"\.att\.[wavg][12]$", name) and len(x.shape) == 2:
        return x.T
    size = 1
    for n in x.shape:
        size *= n
    vector = size == max(x.shape, default=1)
    if own == "r_k" and size == sizes["hidden_size"] and not size % sizes["head_dim"]:
        return x.reshaped((size // sizes["head_dim"], sizes["head_dim"]))
    if not vector:
        return x
    shares = own in _SHARES if kind == "rwkv" else own.startswith("x_") and ".att." in name
    return x.reshaped((1, 1, size) if shares else (size,))
