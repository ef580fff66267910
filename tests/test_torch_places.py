"""Weights that accelerate keeps elsewhere, and other modules in the places of parts."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small import NAMES

from ssm_core import adapters
from ssm_core._arrays.errors import OptionError
from ssm_core.models.pointwise import ChannelMix
from tests.test_torch_tools import assert_same, made, merged, signal

torch = pytest.importorskip("torch")
T = adapters.torch

LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "HGRN2LM": {"layer_options": {"heads": 2}},
    "RWKV4LM": {},
    "RWKV7LM": {"layer_options": {"head_dim": 4}},
    "Mamba2LM": {"layer_options": {"head_dim": 4}},
    "XLSTMLM": {"layer_options": {"heads": 2}},
}


def model(name: str) -> Any:
    torch.manual_seed(0)
    found = getattr(T, name)(11, d_model=8, n_layers=2, **LANGUAGE_MODELS[name])
    with torch.no_grad():
        for p in found.parameters():
            p.add_(torch.empty_like(p).uniform_(-0.2, 0.2))
    return found.eval()


@pytest.mark.parametrize("name", [*NAMES, "SequenceModel", "MambaLM"])
def test_weights_that_are_elsewhere_between_calls(name: str, tmp_path: Path):
    """accelerate's hooks bring them to every call, and to steps, kernels, states, tokens and files."""
    accelerate = pytest.importorskip("accelerate")
    away = accelerate.cpu_offload(made(name).eval(), execution_device="cpu")
    with torch.no_grad():
        assert_same(away, made(name).eval(), name, tmp_path / "weights")
    assert all(p.is_meta for p in away.parameters())


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules:UserWarning")
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models_whose_weights_are_elsewhere(name: str, tmp_path: Path):
    """On the host, on the disk, some of both, and read from a file of ours into an empty model."""
    accelerate = pytest.importorskip("accelerate")
    wanted, places = model(name), {"backbone.layers.0": "cpu", "backbone.layers.1": "disk", "backbone.norm_f": "disk"}
    beside = [part for part, own in wanted.backbone.named_children() if part not in ("layers", "norm_f") and own]
    places |= {f"backbone.{part}": "cpu" for part in (*beside, *wanted.backbone.arrays())}
    places |= {} if wanted.lm_head is None else {"lm_head": "disk"}
    file, disk, some, rest = (str(tmp_path / part) for part in ("saved.safetensors", "disk", "some", "rest"))
    T.save(wanted, file)
    with accelerate.init_empty_weights():
        empty = model(name)
    for away in (
        accelerate.cpu_offload(model(name), execution_device="cpu"),
        accelerate.disk_offload(model(name), disk, execution_device="cpu"),
        accelerate.dispatch_model(model(name), places, main_device="cpu", offload_dir=some),
        accelerate.load_checkpoint_and_dispatch(empty, file, device_map=places, offload_folder=rest),
    ):
        assert any(p.is_meta for p in away.parameters())
        with torch.no_grad():
            assert_same(away.eval(), wanted, "MambaLM", tmp_path / "weights")


ADAPTED = {
    "MambaLM": ["mixer.in_proj_weight", "mixer.A_log", "embeddings.weight"],
    "SequenceModel": ["layer.output_weight", "layer.C_re", "up.weight"],
    "RWKV4LM": ["mixer.key_weight", "mixer.value_weight", "channel_mix.key_weight", "lm_head.weight"],
}


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_of_parameters(name: str, tmp_path: Path):
    """peft's `target_parameters`, several of one layer too, in steps and files without a merge."""
    peft = pytest.importorskip("peft")
    module, plain = (model(name) if name in LANGUAGE_MODELS else made(name).eval() for _ in range(2))
    kind, options = "MambaLM" if name in LANGUAGE_MODELS else name, {"r": 2, "init_lora_weights": False}
    config = peft.LoraConfig(target_modules=[], target_parameters=ADAPTED[name], **options)
    adapted = peft.get_peft_model(module, config).eval()
    wanted = copy.deepcopy(adapted).merge_and_unload()
    assert not torch.allclose(wanted(signal(kind)), plain(signal(kind)))
    assert_same(module, wanted, kind, tmp_path / "weights")
    adapted(signal(kind)).pow(2).sum().backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
    with adapted.disable_adapter():
        assert_same(module, plain, kind, tmp_path / "weights")
    adapted.merge_adapter()
    assert_same(module, wanted, kind, tmp_path / "weights")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("name", ["RWKV4LM", "RWKV7LM"])
def test_a_plain_module_in_place_of_a_mix_that_looks_back(name: str, tmp_path: Path):
    """It sees every step by itself and has no state; a mixer has one."""
    module, u = model(name), signal("MambaLM")
    for block in module.backbone.layers:
        block.channel_mix = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
    y, _ = module(u, return_state=True)
    step, state, steps = module.stepper(), module.initial_state(2), []
    for k in range(u.shape[1]):
        z, state = step(u[:, k], state)
        steps.append(z)
    torch.testing.assert_close(torch.stack(steps, 1), y)
    _, half = module(u[:, :4], return_state=True)
    torch.testing.assert_close(module(u[:, 4:], state=half), y[:, 4:])
    torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(u), y)
    for part in (module.backbone.layers[0].channel_mix, torch.nn.Linear(8, 8)):
        module.backbone.layers[0].channel_mix = part
        with pytest.raises(OptionError, match=rf"channel_mix: .* {type(part).__name__}.*torch\.save"):
            T.save(module, tmp_path / "weights")
    module.backbone.layers[0].mixer = torch.nn.Identity()
    for call in (lambda: module(u), lambda: module.initial_state(2), module.stepper):
        with pytest.raises(OptionError, match=rf"mixer: .* Identity .*adapters\.torch\.{module.definition.layer}\(8\)"):
            call()


def test_a_mixer_of_ones_own_needs_a_state_alone():
    """A module whose forward takes the options of a layer, though it cannot step."""

    class Mean(torch.nn.Module):
        def forward(self, u: Any, *, state: Any, return_state: bool, **options: Any) -> Any:
            return u.mean(1, keepdim=True).expand_as(u)

    module = made("SequenceModel")
    for block in module.blocks:
        block.layer = Mean()
    assert module(signal("SequenceModel")).shape == made("SequenceModel")(signal("SequenceModel")).shape


def test_shared_mixers(tmp_path: Path):
    """One mixer in two blocks is one set of parameters, in copies too, and both blocks' in files."""
    module = model("HGRN2LM")
    module.backbone.layers[1].mixer = module.backbone.layers[0].mixer
    wanted = merged(module)
    assert sum(1 for _ in module.parameters()) == sum(1 for _ in wanted.parameters()) - len(
        module.backbone.layers[0].mixer.arrays()
    )
    other = copy.deepcopy(module)
    assert other.backbone.layers[1].mixer is other.backbone.layers[0].mixer
    for found in (module, other):
        assert_same(found, wanted, "MambaLM", tmp_path / "weights")


def test_a_mixer_of_another_block_without_its_parameters(tmp_path: Path):
    """Only later blocks of RWKV-7 mix in the first block's values."""
    module = T.RWKV7LM(16, d_model=8, n_layers=2, layer_options={"head_dim": 4})
    module.backbone.layers[1].mixer = module.backbone.layers[0].mixer
    for call in (module.arrays, lambda: T.save(module, tmp_path / "weights")):
        with pytest.raises(OptionError, match=r"layers\.1\.mixer: a module RWKV7 has no v0.*which the definition has"):
            call()


def test_a_file_has_the_function_of_replaced_layers(tmp_path: Path):
    """A layer of other initial values in a block is saved; one whose options make another function is refused."""
    u = torch.randn(2, 9, 3)
    module = T.SequenceModel(3, 5, d_model=8, n_layers=2)
    module.blocks[0].layer = T.S4D(8, init="legs")
    T.save(module, tmp_path / "weights")
    torch.testing.assert_close(T.load(tmp_path / "weights")(u), module(u))
    module.blocks[1].layer = T.S4D(8, discretization="bilinear")
    with pytest.raises(OptionError, match=r"layer of block 1 has discretization = 'bilinear'.*'zoh' there: another"):
        T.save(module, tmp_path / "weights")


def test_a_directory_has_the_function_of_replaced_layers(tmp_path: Path):
    module = T.MambaLM(16, d_model=8, n_layers=2)
    module.backbone.layers[1].mixer = T.Mamba(8, discretization="zoh")
    with pytest.raises(OptionError, match=r"MambaLM: the mixer of block 1 has discretization = 'zoh'"):
        module.save_pretrained(tmp_path)


def test_a_file_has_the_function_of_replaced_norms_and_mixes(tmp_path: Path):
    module = T.SequenceModel(3, 5, d_model=8, n_layers=2, channel_mix="mlp")
    module.blocks[0].norm = torch.nn.LayerNorm(8, eps=1e-3)
    with pytest.raises(OptionError, match=r"norm of block 0 has epsilon = 0.001.*has 1e-05 there"):
        T.save(module, tmp_path / "weights")
    module.blocks[0].norm = torch.nn.LayerNorm(8)
    module.blocks[1].channel_mix = type(module.blocks[1].channel_mix)(ChannelMix("mlp", 8, activation="silu"))
    with pytest.raises(OptionError, match=r"channel_mix of block 1 has activation = 'silu'"):
        T.save(module, tmp_path / "weights")
    module.blocks[1].channel_mix = type(module.blocks[1].channel_mix)(ChannelMix("mlp", 8, 32, "gelu"))
    T.save(module, tmp_path / "weights")


@pytest.mark.parametrize("name", ["HGRN2LM", "RWKV7LM", "Mamba2LM", "XLSTMLM"])
def test_layers_of_other_chunks_are_saved(name: str, tmp_path: Path):
    """Whatever mixers have behind their inputs: HGRN-2's bounds, the first values of RWKV-7."""
    module = model(name)
    for block in module.backbone.layers:
        own = block.mixer.definition
        block.mixer = type(block.mixer)(**(own.options() | {"chunk": own.chunk * 2}))
    T.save(module, tmp_path / "weights")


def test_a_window_beyond_the_probe_is_refused(tmp_path: Path):
    options = {"heads": 2, "window": 50}
    module = T.LanguageModel(11, d_model=8, n_layers=1, layer="LocalAttention", layer_options=options)
    module.backbone.layers[0].mixer = T.LocalAttention(8, heads=2, window=60)
    with pytest.raises(OptionError, match=r"mixer of block 0 has window = 60.*has window = 50 there"):
        T.save(module, tmp_path / "weights")


def doubled(kind: Any) -> Any:
    """A subclass whose calls give twice as much."""

    class Doubled(kind):
        def forward(self, *args: Any, **options: Any) -> Any:
            return 2 * super().forward(*args, **options)

    return Doubled


def hooked(part: Any) -> None:
    part.register_forward_hook(lambda part, args, y: 2 * y)


OTHER_CALLS = {
    "layer": lambda m: setattr(m.blocks[0], "layer", doubled(T.S4D)(8)),
    "norm": lambda m: setattr(m.blocks[0], "norm", doubled(torch.nn.LayerNorm)(8)),
    "head": lambda m: setattr(m, "head", doubled(torch.nn.Linear)(8, 5)),
    "dropout": lambda m: setattr(m.blocks[1], "dropout", torch.nn.ReLU()),
    "more": lambda m: setattr(m.blocks[1], "channel_mix", torch.nn.Linear(8, 8)),
    "hook of the encoder": lambda m: hooked(m.encoder),
    "hook of a block": lambda m: hooked(m.blocks[0]),
    "hook": hooked,
    "postnorm": lambda m: setattr(m, "definition", replace(m.definition, postnorm=True)),
    "of the block": lambda m: setattr(m.blocks[0], "definition", replace(m.blocks[0].definition, postnorm=True)),
    "instance": lambda m: setattr(m, "forward", lambda u: torch.zeros(1, 5)),
}


@pytest.mark.parametrize("change", OTHER_CALLS)
def test_calls_that_no_file_describes(change: str, tmp_path: Path):
    module = T.SequenceModel(3, 5, d_model=8, n_layers=2)
    if change == "more":
        module.blocks[1].channel_norm = torch.nn.LayerNorm(8)
    OTHER_CALLS[change](module)
    with pytest.raises(OptionError, match="SequenceModel: the module computes other outputs than its definition"):
        T.save(module, tmp_path / "weights")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_calls_that_change_nothing(dtype: torch.dtype, tmp_path: Path):
    """Hooks that look on, and subclasses that hand on."""

    class Own(T.SequenceModel):
        def forward(self, *args: Any, **options: Any) -> Any:
            return super().forward(*args, **options)

    module = Own(3, 5, d_model=8, n_layers=2, dropout=0.5, dtype=dtype)
    module.blocks[0].norm.register_forward_hook(lambda *args: None)
    T.save(module, tmp_path / "weights")
    layer = T.S4ND(4, d_state=4, dtype=dtype)
    layer.register_forward_pre_hook(lambda *args: None)
    T.save(layer, tmp_path / "layer")
    assert module.training


def test_a_layer_of_other_calls(tmp_path: Path):
    with pytest.raises(OptionError, match="S4D: the module computes other outputs"):
        T.save(doubled(T.S4D)(8), tmp_path / "weights")


def test_ends_that_no_file_describes(tmp_path: Path):
    """Norms around the blocks, and heads beside the embedding."""
    module = T.MambaLM(16, d_model=8, n_layers=1)
    module.lm_head = torch.nn.Linear(8, 16, bias=False)
    with pytest.raises(OptionError, match="MambaLM: the module computes other outputs"):
        module.save_pretrained(tmp_path)
    module.lm_head.weight = module.backbone.embeddings.weight
    module.save_pretrained(tmp_path)
    module.backbone.norm_f = torch.nn.RMSNorm(8, eps=1e-2)
    with pytest.raises(OptionError, match=r"the norm behind the blocks has epsilon = 0.01.*has 1e-05 there"):
        module.save_pretrained(tmp_path)
    module = T.RWKV4LM(16, d_model=8, n_layers=1)
    module.backbone.first_norm = torch.nn.LayerNorm(8, eps=1e-2)
    with pytest.raises(OptionError, match=r"the norm of the embedding has epsilon = 0.01"):
        T.save(module, tmp_path / "weights")
    module.lm_head = None
    with pytest.raises(OptionError, match=r"RWKV4LM\.lm_head: there is no module, but the definition has weight there"):
        T.save(module, tmp_path / "weights")


def test_norms_of_another_kind_with_the_same_parameters(tmp_path: Path):
    module = T.MambaLM(16, d_model=8, n_layers=1)
    module.backbone.layers[0].norm = torch.nn.LayerNorm(8, bias=False)
    with pytest.raises(OptionError, match=r"the norm of block 0 is Norm\(kind='layer'.*has Norm\(kind='rms'"):
        T.save(module, tmp_path / "weights")


def test_other_numbers_of_blocks(tmp_path: Path):
    module = T.SequenceModel(3, 5, d_model=8, n_layers=2, channel_mix="mlp")
    module.blocks[1].channel_mix = torch.nn.Linear(8, 8)
    with pytest.raises(OptionError, match=r"blocks\.1\.channel_mix\.up: there is no module"):
        T.save(module, tmp_path / "weights")
    for blocks in (module.blocks[:1], torch.nn.ModuleList([*module.blocks, module.blocks[0]])):
        module.blocks = blocks
        with pytest.raises(OptionError, match=f"the module has {len(blocks)} blocks, but its definition.*has 2"):
            T.save(module, tmp_path / "weights")
