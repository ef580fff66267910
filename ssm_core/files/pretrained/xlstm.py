"""xLSTM, as NX-AI/xLSTM-7b is published: mLSTM blocks, with maps of their own or fused ones."""

from __future__ import annotations

import re
from typing import Any

from ..._arrays.errors import OptionError
from ...models import XLSTMLM, LanguageModel
from ..stored import Stored
from .architecture import Architecture, Config, registered

_PARTS = {"norm": "norm_mlstm", "mixer": "mlstm_layer", "channel_norm": "norm_ffn", "channel_mix": "ffn"}
_MIX = {"gate": "proj_up_gate", "up": "proj_up", "down": "proj_down"}
_FUSED = {
    "mlstm_layer.qkv_opreact": ("q", "k", "v", "ogate_preact"),
    "mlstm_layer.ifgate_preact": ("igate_preact", "fgate_preact"),
    "ffn.proj_up_gate_z": ("proj_up_gate", "proj_up"),
}
_ROUNDINGS = ((2.667, 64), (2.667, 8), (2.667, 1))  # of the width of the channel mix that files have


def their_name(name: str) -> str:
    """The name of one of our parameters in a checkpoint.

    >>> from ssm_core.files.pretrained.xlstm import their_name
    >>> their_name("backbone.layers.0.mixer.multihead_norm_weight")
    'backbone.blocks.0.mlstm_layer.multihead_norm.weight'
    """
    if not name.startswith("backbone.layers."):
        return name.replace("backbone.norm_f.", "backbone.out_norm.")
    _, _, i, part, own = name.split(".", 4)
    if part == "mixer":
        own = re.sub("_(weight|bias)$", r".\1", own)
    if part == "channel_mix":
        map_, _, leaf = own.partition(".")
        own = f"{_MIX[map_]}.{leaf}"
    return f"backbone.blocks.{i}.{_PARTS[part]}.{own}"


def prepared(c: Config, tensors: dict[str, Stored]) -> tuple[Config, dict[str, Stored]]:
    """Fused maps as those that they are made of, and the second names of sizes as the first."""
    for first, second in (("hidden_size", "embedding_dim"), ("num_hidden_layers", "num_blocks")):
        given = [c[name] for name in (first, second) if c.get(name) is not None]
        if len(set(map(str, given))) == 2:
            raise OptionError(f"{first} = {c[first]!r} and {second} = {c[second]!r} must be alike.")
        c = c | ({first: given[0]} if given else {})
    if c.get("weight_mode", "single") != "fused":
        return c, tensors
    found = {}
    for name, x in tensors.items():
        whole, _, leaf = name.rpartition(".")
        fused = next((f for f in _FUSED if whole.endswith(f)), None)
        if fused is None:
            found[name] = x
            continue
        row, place = 0, f"{whole.removesuffix(fused)}{fused.partition('.')[0]}"
        for part, size in zip(_FUSED[fused], _sizes(c, fused, x.shape[0]), strict=True):
            found[f"{place}.{part}.{leaf}"] = x.rows(row, size)
            row += size
    return c | {"weight_mode": "single"}, found


def _sizes(c: Config, fused: str, rows: int) -> list[int]:
    """Rows of the maps in a fused one."""
    sizes = [rows // 2] * 2
    if "qkv" in fused:
        keys, values = (int(c["hidden_size"] * c.get(f"{n}_dim_factor", d)) for n, d in (("qk", 0.5), ("v", 1.0)))
        sizes = [keys, keys, values, values]
    if sum(sizes) != rows:
        raise OptionError(f"{fused} has {rows} rows, but config.json makes them {sum(sizes)}.")
    return sizes


def rounded(hidden: int, factor: Any, multiple: Any) -> int:
    """The width of the channel mix."""
    good = isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor < 1e4
    if not good:
        raise OptionError(f"ffn_proj_factor = {factor!r} must be a positive number.")
    return int(((hidden * factor + multiple - 1) // multiple) * multiple)


def definition(c: Config, tied: bool) -> XLSTMLM:
    """The model of config.json."""
    bias, epsilon = c.get("use_bias", False), c.get("norm_eps", 1e-6)
    options = {
        "heads": c.get("num_heads", 8),
        "qk_dim_factor": c.get("qk_dim_factor", 0.5),
        "v_dim_factor": c.get("v_dim_factor", 1.0),
        "gate_soft_cap": c.get("gate_soft_cap", 15.0),
        "epsilon": c.get("eps", 1e-6),
        "norm_epsilon": epsilon,
        "bias": bias,
        "norm_bias": bias,
        "chunk": c.get("chunk_size", 64),
    }
    width = rounded(c["hidden_size"], c.get("ffn_proj_factor", 2.667), c.get("ffn_round_up_to_multiple_of", 64))
    return XLSTMLM(
        c["vocab_size"],
        c["hidden_size"],
        c["num_hidden_layers"],
        options,
        tied,
        epsilon,
        mix_width=width,
        logit_cap=c.get("output_logit_soft_cap", 30.0),
        bias=bias,
    )


def config(model: LanguageModel) -> Config:
    """The inverse of `definition`."""
    block: Any = model.block()
    assert isinstance(model, XLSTMLM)
    if model.channel_mix != "gated_mlp" or model.logit_cap is None or not model.out_norm:
        raise OptionError("the format knows no model without gated_mlp, logit_cap or out_norm.")
    if block.norm_epsilon != model.epsilon or not block.bias == block.norm_bias == model.bias:
        raise OptionError("the format has one epsilon for all norms, and one bias for all maps and norms.")
    mix: Any = model.repeated().mix()
    hidden, width = model.d_model, mix.maps()["up"][1]
    found = (rule for rule in _ROUNDINGS if rounded(hidden, *rule) == width)
    factor, multiple = next(found, ((width + 0.5) / hidden, 1))
    return {
        "architectures": ["xLSTMForCausalLM"],
        "embedding_dim": hidden,
        "num_blocks": model.n_layers,
        "num_heads": block.heads,
        "qk_dim_factor": block.qk_dim_factor,
        "v_dim_factor": block.v_dim_factor,
        "gate_soft_cap": block.gate_soft_cap,
        "eps": block.epsilon,
        "norm_eps": model.epsilon,
        "use_bias": model.bias,
        "chunk_size": block.chunk,
        "ffn_proj_factor": factor,
        "ffn_round_up_to_multiple_of": multiple,
        "output_logit_soft_cap": model.logit_cap,
        "add_out_norm": True,
        "weight_mode": "single",
    }


XLSTM = registered(
    Architecture(
        model_type="xlstm",
        model="`XLSTMLM`",
        definition=definition,
        describes=lambda model: isinstance(model, XLSTMLM),
        config=config,
        their_name=their_name,
        prepared=prepared,
        sizes=("num_heads", "chunk_size", "ffn_round_up_to_multiple_of"),
        optional=("embedding_dim", "num_blocks"),
        numbers=(
            *("norm_eps", "eps", "gate_soft_cap", "output_logit_soft_cap"),
            *("qk_dim_factor", "v_dim_factor", "ffn_proj_factor"),
        ),
        flags=("use_bias",),
        entries=(),
        fixed={"add_out_norm": (True,), "weight_mode": ("single", "fused")},
        passed=(
            *(
                "mode",
                "chunkwise_kernel",
                "sequence_kernel",
                "step_kernel",
                "return_last_states",
                "force_bos_token_insert",
            ),
            *("autocast_kernel_dtype", "inference_state_dtype", "norm_reduction_force_float32"),
            "max_inference_chunksize",
        ),
    )
)
