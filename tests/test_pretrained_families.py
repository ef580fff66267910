"""Directories of RWKV, xLSTM, RecurrentGemma and flash-linear-attention's models: round trips through all
frameworks, and other layouts. Numbers of the original code are in `conformance/test_golden_models.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import OptionError, ShapeError, adapters, models
from ssm_core.files import pretrained

pytest.importorskip("safetensors")

from directories import FAMILIES, RANKS, refused, same, saved, weights, write_config, write_tensors
from safetensors.numpy import load_file, save_file

each_family = pytest.mark.parametrize("name", FAMILIES)
IDS = np.asarray([[1, 2, 3, 4, 5, 6], [10, 0, 10, 3, 3, 7]])


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def model_type(config: dict[str, Any]) -> str:
    """That of transformers, or of state-spaces."""
    return config["model_type"] if "ssm_cfg" not in config else config["ssm_cfg"]["layer"].lower()


def test_every_architecture_is_tried():
    tried = {name.partition(" ")[0] for name in FAMILIES} | {"mamba", "mamba2", "falcon_mamba"}
    assert tried == pretrained.architectures().keys()


@each_family
def test_what_is_saved_is_loaded(name: str, folder: Path):
    model, params = saved(folder, name)
    assert model_type(config_of(folder)) == name.partition(" ")[0]
    loaded, found = ssm_core.from_pretrained(folder)
    assert loaded == model
    assert hash(loaded) == hash(model)
    assert loaded.apply(found, IDS).shape == (2, 6, 11)
    same(found, params)
    np.testing.assert_array_equal(loaded.apply(found, IDS), model.apply(params, IDS))
    first, second = config_of(folder), load_file(folder / "model.safetensors")
    ssm_core.save_pretrained(loaded, found, folder)
    assert config_of(folder) == first
    same(load_file(folder / "model.safetensors"), second)


def test_options_at_their_defaults_equal_those_left_out():
    for short, long, others in (
        (models.RWKV4LM(11, 8, 2), {"mix_width": 32, "last_epsilon": 1e-5}, {"mix_width": 31, "last_epsilon": 1e-6}),
        (models.RWKV7LM(11, 8, 2, {"head_dim": 4}), {"mix_width": 32}, {"mix_width": 31}),
        (
            models.RecurrentGemmaLM(11, 8, 3, attention_options={"heads": 2}),
            {"mix_width": 24, "attention_options": {"heads": 2, "rotary": 0.5}},
            {"mix_width": 23, "attention_options": {"heads": 2, "rotary": 1.0}},
        ),
    ):
        assert short == replace(short, **long)
        assert hash(short) == hash(replace(short, **long))
        assert all(short != replace(short, **{name: x}) for name, x in others.items())


@each_family
def test_modules_of_torch(name: str, folder: Path, tmp_path: Path):
    """Logits, steps and gradients of every parameter, and what they save."""
    torch = pytest.importorskip("torch")
    model, params = saved(folder, name)
    module = adapters.torch.from_pretrained(folder, dtype=torch.float64)
    wide = {n: p.astype(np.float64) for n, p in params.items()}
    logits, ids = model.apply(wide, IDS), torch.from_numpy(IDS)
    y = module(ids)
    np.testing.assert_allclose(y.detach().numpy(), logits, rtol=1e-9, atol=1e-9)
    y.square().sum().backward()
    unused = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not unused
    step, state = module.stepper(), module.initial_state(2)
    for k in range(6):
        y, state = step(ids[:, k], state)
    np.testing.assert_allclose(y.detach().numpy(), logits[:, -1], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(module.generate(ids, 3).numpy(), model.generate(wide, IDS, 3))
    module.save_pretrained(tmp_path / "again")
    same(ssm_core.from_pretrained(tmp_path / "again")[1], params)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", ["hgrn2", "rwkv7", "rwkv", "xlstm biases", "recurrent_gemma groups", "kda"])
def test_modules_of_flax(name: str, folder: Path, tmp_path: Path):
    nnx = pytest.importorskip("flax.nnx")
    model, params = saved(folder, name)
    module = adapters.flax.from_pretrained(folder)
    logits = nnx.jit(lambda m, ids: m(ids))(module, IDS)
    wanted = model.apply(params, IDS)
    np.testing.assert_allclose(np.asarray(logits), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    module.save_pretrained(tmp_path / "again")
    same(ssm_core.from_pretrained(tmp_path / "again")[1], params)


@pytest.mark.parametrize("name", ["rwkv7", "rwkv", "hgrn2", "xlstm", "recurrent_gemma"])
def test_sequences_of_several_lengths(name: str):
    """Padded, packed and reset sequences are those alone, in outputs and states."""
    model = FAMILIES[name]
    params = {n: p.astype(np.float64) for n, p in weights(model).items()}
    alone, after = model.apply(params, IDS[1:, :4], return_state=True)
    y, state = model.apply(params, IDS, lengths=np.asarray([6, 4]), return_state=True)
    np.testing.assert_allclose(y[1:, :4], alone, atol=1e-9)
    packed, states = model.apply(
        params, np.concatenate([IDS[:1], IDS[1:, :4]], axis=1), cu_seqlens=np.asarray([0, 6, 10]), return_state=True
    )
    np.testing.assert_allclose(packed[:, 6:], alone, atol=1e-9)
    for found in (state, states):
        for x, z in zip(leaves(found), leaves(after), strict=True):
            np.testing.assert_allclose(x[1:], z, atol=1e-9)
    reset = np.zeros((1, 10), bool)
    reset[0, 6] = True
    joined = np.concatenate([IDS[:1], IDS[1:, :4]], axis=1)
    np.testing.assert_allclose(model.apply(params, joined, reset=reset)[:, 6:], alone, atol=1e-9)


def leaves(state: Any) -> list[Any]:
    return [x for part in state for x in leaves(part)] if isinstance(state, tuple) else [state]


# Other layouts -------------------------------------------------------------------------------------------------------


def test_fused_maps_of_xlstm(folder: Path):
    """weight_mode "fused": q, k, v and the output gate in one map, both gates in one, and both of the channel mix."""
    model, params = saved(folder, "xlstm biases", weight_mode="fused")

    def fused(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for i in range(model.n_layers):
            for place, whole, parts in (
                ("mlstm_layer", "qkv_opreact", ("q", "k", "v", "ogate_preact")),
                ("mlstm_layer", "ifgate_preact", ("igate_preact", "fgate_preact")),
                ("ffn", "proj_up_gate_z", ("proj_up_gate", "proj_up")),
            ):
                for leaf in ("weight", "bias"):
                    prefix = f"backbone.blocks.{i}.{place}."
                    t[f"{prefix}{whole}.{leaf}"] = np.concatenate([t.pop(f"{prefix}{p}.{leaf}") for p in parts])
        return t

    write_tensors(folder, fused)
    loaded, found = ssm_core.from_pretrained(folder)
    same(found, params)
    assert loaded == ssm_core.from_pretrained(folder)[0]
    write_config(folder, config_of(folder) | {"qk_dim_factor": 1.0})
    refused(folder, OptionError, "qkv_opreact has 24 rows, but config.json makes them 32")


def test_mamba3_in_the_layout_of_state_spaces(folder: Path):
    """Their entries alone, their names, and the first map of an MLP as one: the values, then the gates."""
    _, params = saved(folder, "mamba3 several")
    config, tensors = config_of(folder), load_file(folder / "model.safetensors")
    assert config.keys() == {
        "d_model", "d_intermediate", "n_layer", "vocab_size", "ssm_cfg", "attn_layer_idx", "attn_cfg", "rms_norm",
        "residual_in_fp32", "fused_add_norm", "pad_vocab_size_multiple", "tie_embeddings",
    }  # fmt: skip
    assert config["ssm_cfg"]["layer"] == "Mamba3"
    first = tensors["backbone.layers.1.mlp.fc1.weight"]
    np.testing.assert_array_equal(first[:128], params["backbone.layers.1.channel_mix.up.weight"])
    np.testing.assert_array_equal(first[128:], params["backbone.layers.1.channel_mix.gate.weight"])
    place, ours = "backbone.layers.1.mixer.", ssm_core.from_pretrained(folder)[1]
    mixer = {name.removeprefix(place): x for name, x in tensors.items() if name.startswith(place)}
    layer, found = ssm_core.importers.from_mamba3(mixer, n_groups=2, rope_fraction=1.0)
    assert (layer.rank, layer.out_norm, layer.d_state) == (3, True, 6)
    same(found, {name.removeprefix(place): x for name, x in ours.items() if name.startswith(place)})
    for options, mix, message in (
        ({"epsilon": 1e-6}, {}, "epsilon = 1e-05 in all norms"),
        ({"rope_fraction": 0.75}, {}, "rope_fraction = 0.5 or 1.0, not 0.75"),
        ({}, {"channel_mix": "gated_mlp", "mix_width": 100}, "mix_width = 100 must be a multiple of 128"),
        ({}, {"channel_mix": "mlp"}, "knows no channel_mix 'mlp'"),
    ):
        model = models.Mamba3LM(11, 8, 1, {"d_state": 4, "head_dim": 4, **options}, **mix)
        with pytest.raises(OptionError, match=message):
            ssm_core.save_pretrained(model, model.initial_parameters(), folder)


FIRST_NAMES = {
    "rwkv7": (
        ("model.embeddings", "emb"), ("model.norm", "ln_out"), ("lm_head", "head"), ("model.layers", "blocks"),
        (".attn_norm", ".ln1"), (".ffn_norm", ".ln2"), (".pre_norm", ".ln0"), (".attn.", ".att."),
        ("r_proj", "receptance"),
        ("k_proj", "key"), ("v_proj", "value"), ("o_proj", "output"), ("g_norm", "ln_x"), ("_lora.lora.0.weight", "1"),
        ("_lora.lora.2.weight", "2"), ("_lora.lora.2.bias", "0"),
    ),
    "rwkv": (
        ("rwkv.embeddings", "emb"), ("rwkv.ln_out", "ln_out"), ("rwkv.blocks", "blocks"), (".pre_ln", ".ln0"),
        (".attention.", ".att."), (".feed_forward.", ".ffn."), ("time_mix_key", "time_mix_k"),
        ("time_mix_value", "time_mix_v"), ("time_mix_receptance", "time_mix_r"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "head_dim"), [("rwkv", None), ("rwkv7", 4), ("rwkv7", 8)])
def test_first_names_of_rwkv_without_a_config(
    name: str, head_dim: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """As BlinkDL's files have them: all sizes are those of the tensors; vectors may be (1, 1, H)."""
    if name == "rwkv7":
        monkeypatch.setitem(FAMILIES, name, models.RWKV7LM(11, 8, 3, {"head_dim": head_dim, **RANKS}, mix_width=6))
    model, params = saved(folder, name)
    renamed: dict[str, np.ndarray] = {}
    for key, x in load_file(folder / "model.safetensors").items():
        first = key
        for theirs, ours in FIRST_NAMES[name]:
            first = first.replace(theirs, ours)
        x = x.T if "lora" in key and x.ndim == 2 else x
        renamed[first] = np.ascontiguousarray(x if x.ndim != 1 or "ln" in first else x[None, None])
    unused = {f"blocks.0.att.v{i}": np.ones(3, np.float32) for i in range(3)} if name == "rwkv7" else {}
    save_file(renamed | unused, folder / "model.safetensors")
    (folder / "config.json").unlink()
    loaded, found = ssm_core.from_pretrained(folder)
    assert type(loaded) is type(model)
    same(found, params)
    save_file({n: x for n, x in renamed.items() if n != "blocks.1.ffn.value.weight"}, folder / "model.safetensors")
    refused(folder, OptionError, r"missing \[.*\.1\.f.*value\.weight\] \(1\), surplus \[\]")
    write_config(folder, {"model_type": "mamba"})
    refused(folder, OptionError, f"model_type = 'mamba', but the tensors are those of '{name}'")


def test_widths_that_follow_from_a_ratio(folder: Path):
    """As flash-linear-attention rounds them: up to multiples of 256, of RWKV-7 to those of 32."""
    _, _ = saved(folder, "gla", intermediate_size=None, hidden_ratio=None)
    refused(folder, ShapeError, r"gate_proj\.weight is \(5, 8\), but config\.json makes it \(256, 8\)")
    saved(folder, "rwkv7", intermediate_size=..., hidden_ratio=9)
    refused(folder, ShapeError, r"key\.weight is \(6, 8\), but config\.json makes it \(96, 8\)")


PUBLISHED: dict[str, dict[str, Any]] = {
    "xlstm": {
        "hidden_size": ...,
        "num_hidden_layers": ...,
        "add_embedding_dropout": False,
        "add_post_norm": False,
        "add_qk_norm": False,
        "add_post_blocks_norm": True,
        "add_forward_backend_padding": False,
        "head_dim": 4,
        "cell_norm_eps": 1e-6,
        "igate_bias_init_range": -10.0,
        "mlstm_round_up_to_multiple_of": 64,
        "forward_backend_name": "chunkwise--triton_xl_chunk",
        "step_backend_name": "triton_fused",
        "force_bos_token_insert": True,
        "step_kernel": "triton",
        "max_inference_chunksize": 16384,
    },
    "rwkv7": {"num_heads": 32, "hidden_ratio": 4.0, "attn": None, "fuse_cross_entropy": True, "use_l2warp": True},
    "rwkv": {"context_length": 1024, "bos_token_id": 0, "use_cache": True},
    "recurrent_gemma": {
        "_block_types": ["recurrent", "recurrent", "attention"],
        "embeddings_scale_by_sqrt_dim": True,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
        "rope_parameters": ...,
        "attention_dropout": 0.0,
        "final_w_init_variance_scale": 0.08,
        "w_init_variance_scale": 0.01,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_entries_of_published_models(name: str, folder: Path):
    """NX-AI/xLSTM-7b, fla-hub/rwkv7-191M-world (whose num_heads is that of another size), and the like."""
    model, params = saved(folder, name, **PUBLISHED[name])
    loaded, found = ssm_core.from_pretrained(folder)
    same(found, params)
    np.testing.assert_array_equal(loaded.apply(found, IDS), model.apply(params, IDS))


@pytest.mark.parametrize("name", ["gla", "retnet"])
def test_a_norm_that_is_joined_with_its_gate(name: str, folder: Path, tmp_path: Path):
    """fuse_norm, as most published models have it: another name, and the same numbers. It is saved without."""
    mixer = {"heads": 2, "epsilon": 1e-4}
    model = replace(FAMILIES[name], layer_options=mixer)
    params = weights(model)
    ssm_core.save_pretrained(model, params, folder)
    assert config_of(folder)["fuse_norm"] is False
    apart = load_file(folder / "model.safetensors")
    write_config(folder, config_of(folder) | {"fuse_norm": True})
    write_tensors(folder, lambda t: {n.replace(".g_norm.", ".g_norm_swish_gate."): x for n, x in t.items()})
    loaded, found = ssm_core.from_pretrained(folder)
    same(found, params)
    ssm_core.save_pretrained(loaded, found, tmp_path / "again")
    same(load_file(tmp_path / "again" / "model.safetensors"), apart)
    assert config_of(tmp_path / "again")["fuse_norm"] is False


@pytest.mark.parametrize("entries", [{"fuse_norm": True}, {"fuse_norm": ...}])
def test_the_norm_of_keys_of_rwkv7(entries: dict[str, Any], folder: Path):
    """fuse_norm adds 1e-6 under the root; flash-linear-attention has it unless config.json says otherwise."""
    model, params = saved(folder, "rwkv7", **entries)
    loaded, _ = ssm_core.from_pretrained(folder)
    assert (model.block().key_epsilon, loaded.block().key_epsilon) == (0, 1e-6)
    ssm_core.save_pretrained(loaded, params, folder)
    assert config_of(folder)["fuse_norm"] is True
    with pytest.raises(OptionError, match=r"the format knows no key_epsilon 0\.1: it has 0\.0 and 1e-06"):
        ssm_core.save_pretrained(
            replace(model, layer_options={**model.layer_options, "key_epsilon": 0.1}), params, folder
        )


def test_ranks_of_rwkv7_that_follow_from_the_sizes(folder: Path):
    saved(folder, "rwkv7", decay_low_rank_dim=None)
    refused(folder, ShapeError, r"w_lora\.lora\.0\.weight is \(2, 8\), but config\.json makes it \(32, 8\)")
