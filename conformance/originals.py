"""Layers and their parameters from the state dicts of the blocks of other projects, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import KDA, RWKV7, GatedDeltaNet, RWKVChannelMix

Tensors = dict[str, np.ndarray]
Imported = tuple[Any, Tensors]


def gated_delta_net(t: Tensors, config: dict[str, Any], **options: Any) -> Imported:
    """Of Qwen3-Next: its maps have q, k, v and gate, and b and a, key head by key head."""
    G, H = config["linear_num_key_heads"], config["linear_num_value_heads"]
    K, V, R = config["linear_key_head_dim"], config["linear_value_head_dim"], H // G
    width = config["hidden_size"]
    per_head = t["in_proj_qkvz.weight"].reshape(G, 2 * K + 2 * R * V, width)
    q, k, v, z = np.split(per_head, [K, 2 * K, 2 * K + R * V], axis=1)
    b, a = np.split(t["in_proj_ba.weight"].reshape(G, 2 * R, width), 2, axis=1)
    maps = {"q": q, "k": k, "v": v, "g": z, "a": a, "b": b}
    params = {f"{n}_proj_weight": x.reshape(-1, width) for n, x in maps.items()}
    params |= _taps(t["conv1d.weight"], (G * K, 2 * G * K)) | {n: t[n] for n in ("A_log", "dt_bias")}
    params |= {"o_norm_weight": t["norm.weight"], "o_proj_weight": t["out_proj.weight"]}
    sizes = {"heads": G, "head_dim": K, "num_v_heads": H, "expand_v": V / K, "epsilon": config["rms_norm_eps"]}
    return GatedDeltaNet(width, d_conv=config["linear_conv_kernel_dim"], **sizes, **options), params


def kda(t: Tensors, config: dict[str, Any], **options: Any) -> Imported:
    """Of Kimi Linear: one convolution for q, k and v, and the gate of its own module."""
    heads, D = config["linear_num_heads"], config["linear_head_dim"]
    t = {n.removeprefix("forget_gate."): x for n, x in t.items()}
    params = {n.replace(".", "_"): x for n, x in t.items() if n != "conv1d.weight"}
    params |= _taps(t["conv1d.weight"], (heads * D, 2 * heads * D)) | {"A_log": t["A_log"].reshape(-1)}
    sizes = {"heads": heads, "head_dim": D, "epsilon": config["rms_norm_eps"]}
    return KDA(config["hidden_size"], d_conv=config["linear_conv_kernel_dim"], **sizes, **options), params


def _taps(weight: np.ndarray, ends: tuple[int, int]) -> Tensors:
    """One convolution (channels, 1, taps) as those of q, k and v."""
    return {f"{n}_conv1d_weight": x for n, x in zip("qkv", np.split(weight[:, 0], ends), strict=True)}


def rwkv7(t: Tensors, block: int, blocks: int, **options: Any) -> tuple[Imported, Imported]:
    """The time mix and the channel mix of a block of RWKV-LM."""
    mine = {n: _named(t, f"blocks.{block}.{n}.") for n in ("att", "ffn")}
    H, width = len(mine["att"]["x_r"]), len(mine["ffn"]["key_weight"])
    names = {"w": "decay_rank", "a": "a_rank", "g": "gate_rank", "v": "v_rank"}
    ranks = {name: mine["att"][f"{n}1"].shape[1] for n, name in names.items() if f"{n}1" in mine["att"]}
    values = {"first_values": "taken" if block else "given"}
    head_dim = mine["att"]["r_k"].size // options.pop("heads")
    mine["att"]["r_k"] = mine["att"]["r_k"].reshape(-1, head_dim)
    place = {"layer_idx": block, "num_layers": blocks}
    return (
        (RWKV7(H, head_dim=head_dim, **ranks, **values, **place, **options), mine["att"]),
        (RWKVChannelMix(H, width=width, gated=False, **place), mine["ffn"]),
    )


def _named(t: Tensors, prefix: str) -> Tensors:
    return {n.removeprefix(prefix).replace(".", "_"): x for n, x in t.items() if n.startswith(prefix)}
