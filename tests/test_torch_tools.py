"""Tools of PyTorch and of others around modules: adapters, shards, quantization, parts of one's own."""

from __future__ import annotations

import copy
import importlib
import pickle
from pathlib import Path
from typing import Any

import pytest
from small import NAMES, small

from ssm_core import adapters
from ssm_core._arrays.errors import OptionError

torch = pytest.importorskip("torch")
T = adapters.torch

LAYERS = ("S4D", "S5", "Mamba", "Mamba2")
OTHERS = tuple(name for name in NAMES if name not in LAYERS)
MODELS = ("SequenceModel", "MambaLM")


def made(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    if name == "SequenceModel":
        return T.SequenceModel(4, 3, d_model=4, n_layers=2, layer_options={"d_state": 4}, channel_mix="mlp").eval()
    if name == "MambaLM":
        return T.MambaLM(11, d_model=8, n_layers=2, layer_options={"d_state": 4})
    return T.module(small(name))


def signal(name: str) -> Any:
    draws = torch.Generator().manual_seed(1)
    if name == "MambaLM":
        return torch.randint(0, 11, (2, 9), generator=draws)
    return torch.randn(2, 9, 4, generator=draws)


def assert_same(module: Any, wanted: Any, name: str, path: Path) -> None:
    """As the module with these weights in sequences, in a step, in kernels and in a file."""
    u = signal(name)
    torch.testing.assert_close(module(u), wanted(u), rtol=1e-4, atol=1e-5)
    y, _ = module.step(u[:, 0], module.initial_state(2))
    torch.testing.assert_close(y, wanted.step(u[:, 0], wanted.initial_state(2))[0], rtol=1e-4, atol=1e-5)
    if hasattr(wanted, "kernel"):
        torch.testing.assert_close(module.kernel(5), wanted.kernel(5))
    if hasattr(wanted, "generate"):
        assert torch.equal(module.generate(u, 3), wanted.generate(u, 3))
    T.save(module, path)
    torch.testing.assert_close(T.load(path).eval()(u), wanted(u), rtol=1e-4, atol=1e-5)


def merged(module: Any) -> Any:
    """A plain module of the weights that a module computes with."""
    plain = T.module(module.definition).eval()
    plain.load_state_dict({name: x.detach() for name, x in module.arrays().items()})
    return plain


@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_low_rank_adapters(name: str, tmp_path: Path):
    peft = pytest.importorskip("peft")
    module, plain, u = made(name), made(name), signal(name)
    config = peft.LoraConfig(target_modules="all-linear", r=2, lora_dropout=0.1, init_lora_weights=False)
    adapted = peft.get_peft_model(module, config)
    adapted(u).pow(2).sum().backward()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad.abs().max() > 0 for p in trained)
    T.save(adapted, tmp_path / "while training")  # without dropout
    adapted.eval()
    wanted = merged(module)
    assert not torch.allclose(wanted(u), plain(u))
    torch.testing.assert_close(T.load(tmp_path / "while training").eval()(u), wanted(u), rtol=1e-4, atol=1e-5)
    assert_same(module, wanted, name, tmp_path / "weights")
    for other in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        torch.testing.assert_close(other(u), adapted(u))
    whole = adapted.merge_and_unload()
    assert_same(whole, wanted, name, tmp_path / "weights")
    assert whole.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented the batching rule")
@pytest.mark.parametrize("name", OTHERS)
def test_tools_and_every_layer(name: str):
    """Adapters of every map, replicas of DataParallel, and stacks of layers."""
    peft = pytest.importorskip("peft")
    u, others = signal(name), [made(name, seed) for seed in range(2)]
    adapted = peft.get_peft_model(
        made(name), peft.LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False)
    )
    adapted(u).pow(2).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in adapted.parameters() if p.requires_grad)
    torch.testing.assert_close(adapted(u), merged(adapted.base_model.model)(u), rtol=1e-4, atol=1e-5)
    replica = others[0]._replicate_for_data_parallel()
    for parameter, p in others[0].named_parameters():
        setattr(replica, parameter, p.view_as(p))
    torch.testing.assert_close(replica(u), others[0](u))
    params, _ = torch.func.stack_module_state(others)
    stacked = torch.func.vmap(lambda p: torch.func.functional_call(others[0], p, (u,)))(params)
    torch.testing.assert_close(stacked, torch.stack([one(u) for one in others]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_of_an_embedding(tied: bool, tmp_path: Path):
    """The names that transformers' Mamba has; a tied head is the embedding with its adapter."""
    peft = pytest.importorskip("peft")
    module = T.MambaLM(11, d_model=8, n_layers=1, tied=tied)
    names = ["embeddings", "in_proj", "x_proj", "dt_proj", "out_proj"]
    adapted = peft.get_peft_model(module, peft.LoraConfig(target_modules=names, r=2, init_lora_weights=False)).eval()
    assert_same(module, merged(module), "MambaLM", tmp_path / "weights")
    assert {n for n in names if any(f".{n}.lora_" in key for key in adapted.state_dict())} == set(names)


def test_maps_are_the_layers_own():
    """Linear maps have no parameters and no names in files; layers stay alone in memory."""
    import weakref

    layer = made("Mamba")
    assert layer.in_proj.weight is layer.in_proj_weight
    torch.testing.assert_close(layer.in_proj(torch.ones(4)), layer.in_proj_weight.sum(1))
    other = copy.deepcopy(layer)
    assert other.in_proj.weight is other.in_proj_weight
    assert [name for name, _ in layer.in_proj.named_parameters()] == ["weight"]
    layer.in_proj.requires_grad_(False)
    assert [name for name, p in layer.named_parameters() if not p.requires_grad] == ["in_proj_weight"]
    layer.out_proj.weight = torch.nn.Parameter(torch.zeros(4, 8))
    assert not layer(signal("Mamba")).any()
    assert {name for name, _ in layer.named_parameters()} == set(layer.state_dict()) == set(layer.arrays())
    gone = weakref.ref(layer)
    del layer
    assert gone() is None


def test_maps_in_place_of_a_layers():
    layer, other, u = made("Mamba"), made("Mamba", seed=1), signal("Mamba")
    layer.in_proj = torch.nn.Linear(4, 16)
    with pytest.raises(OptionError, match=r"Mamba\.in_proj: Linear adds a bias, but the layer has none"):
        layer(u)
    layer.in_proj = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.GELU())
    with pytest.raises(OptionError, match=r"Mamba\.in_proj: .* Sequential"):
        layer(u)
    layer.in_proj = other.in_proj  # shared
    torch.testing.assert_close(layer.arrays()["in_proj_weight"], other.in_proj_weight)
    layer(u).sum().backward()
    assert other.in_proj_weight.grad.abs().max() > 0


@pytest.mark.filterwarnings(
    "ignore:torch.(ao.)?quanti:DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning"
)
def test_quantized_models(tmp_path: Path):
    model, u = made("SequenceModel"), signal("SequenceModel")
    small = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    torch.testing.assert_close(small(u), model(u), rtol=0.1, atol=0.05)
    y, _ = small.step(u[:, 0], small.initial_state(2))
    torch.testing.assert_close(y, small(u[:, :1]), rtol=0.1, atol=0.05)
    T.save(small, tmp_path / "weights")
    torch.testing.assert_close(T.load(tmp_path / "weights").eval()(u), small(u), rtol=0.1, atol=0.05)


@pytest.mark.filterwarnings(
    "ignore:torch.(ao.)?quanti:DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning"
)
def test_quantized_heads(tmp_path: Path):
    """Quantization looks for nn.Linear itself, and the head of language models only draws in another way."""
    model = T.MambaLM(11, d_model=8, n_layers=1, tied=False)
    model.lm_head.__class__ = torch.nn.Linear
    small = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert "quantized" in type(small.lm_head).__module__
    torch.testing.assert_close(small(signal("MambaLM")), model(signal("MambaLM")), rtol=0.1, atol=0.05)
    T.save(small, tmp_path / "weights")
    loaded = T.load(tmp_path / "weights")
    torch.testing.assert_close(loaded(signal("MambaLM")), small(signal("MambaLM")), rtol=0.1, atol=0.05)


def test_parts_of_ones_own(tmp_path: Path):
    """An encoder says which inputs there are; what the definition does not describe is saved by PyTorch."""
    model, u = made("SequenceModel"), signal("SequenceModel")
    plain = model.encoder
    model.encoder = torch.nn.Sequential(plain, torch.nn.Identity())
    torch.testing.assert_close(model(u), made("SequenceModel")(u))
    model.encoder = torch.nn.Embedding(7, 4)
    model.blocks[0].norm = torch.nn.Sequential(model.blocks[0].norm)
    ids = torch.tensor([[1, 2, 3]])
    y, state = model(ids, return_state=True)
    stepped = model.initial_state(1)
    for k in range(3):
        z, stepped = model.step(ids[:, k], stepped)
    torch.testing.assert_close(z, y)
    assert len(state) == len(stepped)
    with pytest.raises(OptionError, match=r"SequenceModel\.encoder: .* Embedding.*torch\.save"):
        T.save(model, tmp_path / "weights")


@pytest.fixture
def alone(tmp_path: Path) -> Any:
    """A group of one process."""
    dist = torch.distributed
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.FileStore(str(tmp_path / "store"), 1))
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_fully_shard(name: str, alone: Any, tmp_path: Path):
    from torch.distributed.fsdp import fully_shard

    module = made(name)
    for block in module.ends()[1] if name in MODELS else ():
        fully_shard(block, mesh=alone)
    fully_shard(module, mesh=alone)
    assert_same(module, made(name), name, tmp_path / "weights")
    module(signal(name)).pow(2).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
@pytest.mark.parametrize("original", [False, True])
def test_fsdp_of_one_process(name: str, original: bool, alone: Any, tmp_path: Path):
    fsdp = fsdp_of_torch()
    module = made(name)
    sharded = fsdp(module, device_id=torch.device("cpu"), use_orig_params=original)
    torch.testing.assert_close(sharded(signal(name)), made(name)(signal(name)))
    sharded(signal(name)).pow(2).sum().backward()
    with fsdp.summon_full_params(sharded):
        assert_same(module, made(name), name, tmp_path / "weights")


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
@pytest.mark.parametrize("tool", ["fully_shard", "FullyShardedDataParallel"])
def test_a_sharded_backbone(tool: str, alone: Any, tmp_path: Path):
    """A part that is wrapped as a whole, though its own forward says nothing of what the model does with it."""
    module, name = made("MambaLM"), "MambaLM"
    if tool == "fully_shard":
        torch.distributed.fsdp.fully_shard(module.backbone, mesh=alone)
        assert_same(module, made(name), name, tmp_path / "weights")
    else:
        module.backbone = fsdp_of_torch()(module.backbone, device_id=torch.device("cpu"))
    torch.testing.assert_close(module(signal(name)), made(name)(signal(name)))
    module(signal(name)).pow(2).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def fsdp_of_torch() -> Any:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel


def of_two(rank: int, folder: str) -> None:
    """Between forwards a process has a part of every parameter alone."""
    dist = torch.distributed
    dist.init_process_group("gloo", rank=rank, world_size=2, store=dist.FileStore(f"{folder}/store", 2))
    fsdp, mesh = fsdp_of_torch(), dist.device_mesh.init_device_mesh("cpu", (2,))
    path = Path(folder) / f"weights {rank}"
    for name in ("S4D", "GatedDeltaNet", "RWKV7", "MambaLM"):
        module, wanted = made(name), made(name)
        dist.fsdp.fully_shard(module, mesh=mesh)
        assert_same(module, wanted, name, path)
        module = made(name)
        sharded = fsdp(module, device_id=torch.device("cpu"))
        sharded(signal(name)).pow(2).sum().backward()
        with pytest.raises(OptionError, match="summon_full_params"):
            module.step(signal(name)[:, 0], wanted.initial_state(2))
        with fsdp.summon_full_params(sharded):
            assert_same(module, wanted, name, path)
    layer, plain = made("S4D"), made("S4D")
    dist.fsdp.fully_shard(layer, mesh=mesh)
    (layer.kernel(5).pow(2).sum() * (1 + rank)).backward()
    (plain.kernel(5).pow(2).sum() * 1.5).backward()  # the mean of both
    torch.testing.assert_close(layer.log_dt.grad.full_tensor(), plain.log_dt.grad)
    dist.destroy_process_group()


def test_shards_of_two_processes(tmp_path: Path):
    torch.multiprocessing.spawn(of_two, args=(str(tmp_path),), nprocs=2)


@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
@pytest.mark.parametrize("tool", ["weight_norm", "orthogonal", "spectral_norm"])
def test_parametrizations(name: str, tool: str, tmp_path: Path):
    module = made(name)
    owner = {"SequenceModel": "blocks.0.layer", "MambaLM": "backbone.layers.0.mixer"}.get(name, "")
    layer = module.get_submodule(owner)
    getattr(torch.nn.utils.parametrizations, tool)(layer, f"{layer.maps[0]}_weight")
    module.eval()
    assert_same(module, merged(module), name, tmp_path / "weights")


def linear_maps(module: Any) -> list[Any]:
    return [part for part in module.modules() if isinstance(part, torch.nn.Linear)]


def pruning() -> Any:
    return importlib.import_module("torch.nn.utils.prune")


UNDONE = {
    "prune": lambda part: pruning().remove(part, "weight"),
    "weight_norm": lambda part: torch.nn.utils.parametrize.remove_parametrizations(part, "weight"),
    "spectral_norm": lambda part: torch.nn.utils.parametrize.remove_parametrizations(part, "weight"),
    "hooks": lambda part: torch.nn.utils.remove_weight_norm(part),
}


def change(tool: str, part: Any) -> None:
    if tool == "prune":
        pruning().l1_unstructured(part, "weight", 0.5)
    elif tool == "hooks":
        torch.nn.utils.weight_norm(part)
    else:
        getattr(torch.nn.utils.parametrizations, tool)(part, "weight")


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("tool", UNDONE)
@pytest.mark.parametrize("name", ["Mamba", "GatedDeltaNet", "H3", "MambaLM", "SequenceModel"])
def test_tools_that_walk_over_linear_maps(name: str, tool: str, tmp_path: Path):
    """Those of layers hold their weights to themselves while a tool has them, and give them back."""
    module, plain = made(name), made(name)
    for part in linear_maps(module):
        change(tool, part)
    module.eval()
    assert_same(module, merged(module), name, tmp_path / "weights")
    module(signal(name)).pow(2).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert not {f"{owner}.weight" for owner, part in module.named_modules() if part in linear_maps(module)} & {
        parameter for parameter, _ in module.named_parameters()
    }
    if tool in ("weight_norm", "spectral_norm"):
        torch.testing.assert_close(copy.deepcopy(module)(signal(name)), module(signal(name)))
    module.zero_grad()
    with torch.no_grad():
        wanted = merged(module)
    for part in linear_maps(module):
        UNDONE[tool](part)
    torch.testing.assert_close(module(signal(name)), wanted(signal(name)), rtol=1e-4, atol=1e-5)
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert {n for n, _ in module.named_parameters()} == {n for n, _ in plain.named_parameters()}


def test_a_map_alone_is_a_linear_map():
    layer = made("Mamba")
    alone = copy.deepcopy(layer.in_proj)
    torch.testing.assert_close(alone(torch.ones(4)), layer.in_proj(torch.ones(4)))
    assert alone.weight is not layer.in_proj_weight
    layer.in_proj = alone
    torch.testing.assert_close(layer(signal("Mamba")), made("Mamba")(signal("Mamba")))


@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_what_has_a_weight_has_a_tensor(name: str):
    """Tools look for `weight` and `bias` in all modules, and take what they find for tensors."""
    for part in made(name).modules():
        assert all(
            getattr(part, leaf, None) is None or torch.is_tensor(getattr(part, leaf)) for leaf in ("weight", "bias")
        )


@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")
def test_parts_that_are_trained_beside_adapters(tmp_path: Path):
    """Whole norms and heads, scales of norms, rows of the embedding: a file has them as they are used."""
    peft = pytest.importorskip("peft")
    untied, options = T.MambaLM(11, d_model=8, n_layers=1, tied=False), {"r": 2, "init_lora_weights": False}
    for module, config in (
        (untied, peft.LoraConfig(target_modules=["in_proj"], modules_to_save=["lm_head", "norm_f"], **options)),
        (made("MambaLM"), peft.LoraConfig(target_modules=["in_proj"], modules_to_save=["out_proj"], **options)),
        (made("MambaLM"), peft.LNTuningConfig(target_modules=["norm", "norm_f"])),
        (made("MambaLM"), peft.LoraConfig(target_modules=["x_proj"], trainable_token_indices={"embeddings": [1, 2]})),
        (made("SequenceModel"), peft.LoraConfig(target_modules=["up"], modules_to_save=["head"], **options)),
    ):
        adapted = peft.get_peft_model(module, config)
        with torch.no_grad():
            for p in adapted.parameters():
                p.mul_(1.5 if p.requires_grad else 1.0)
        adapted.eval()
        assert_same(module, merged(module), type(module).__name__, tmp_path / "weights")


def test_resized_embeddings(tmp_path: Path):
    """There are as many tokens as the embedding has rows, in prompts, in what is drawn and in files."""
    model = made("MambaLM")
    old = model.backbone.embeddings
    model.backbone.embeddings = torch.nn.Embedding(13, 8)
    with torch.no_grad():
        model.backbone.embeddings.weight[:11] = old.weight
    ids = torch.tensor([[12, 3]])
    assert model(ids).shape == (1, 2, 13)
    assert model.generate(ids, 2, eos=12).shape[0] == 1
    assert model.definition.vocab_size == 13
    T.save(model, tmp_path / "weights")
    torch.testing.assert_close(T.load(tmp_path / "weights")(ids), model(ids))
