"""Language models as modules of PyTorch and Flax: the functions of the definitions, and the frameworks' own habits."""

from __future__ import annotations

import copy
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import adapters
from ssm_core.files.pretrained.mamba import their_name

V, L = 13, 10
OPTIONS: dict[str, dict[str, Any]] = {
    "MambaLM": {"layer_options": {"d_state": 4}},
    "Mamba2LM": {"layer_options": {"d_state": 4, "head_dim": 4, "n_groups": 2}, "tied": False, "epsilon": 1e-6},
    "Mamba3LM": {"layer_options": {"d_state": 4, "head_dim": 4}},
}
each_model = pytest.mark.parametrize("name", OPTIONS)
IDS = np.random.default_rng(1).integers(0, V, (3, L))
LENGTHS = np.asarray([5, 10, 1])
SPECIAL = {"A_log", "D", "dt_bias", "dt_proj_bias", "B_bias", "C_bias"}

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Torch:
    name = "torch"

    def __init__(self) -> None:
        self.xp = pytest.importorskip("torch")
        self.adapter: Any = adapters.torch

    def make(self, kind: str, n_layers: int = 1, **more: Any) -> Any:
        """A module whose weights are as if after some training."""
        self.xp.manual_seed(0)
        module = getattr(self.adapter, kind)(V, 8, n_layers, **OPTIONS[kind], **more)
        rng = np.random.default_rng(2)
        with self.xp.no_grad():
            for p in module.parameters():
                p.add_(self.xp.from_numpy(rng.uniform(-0.5, 0.5, tuple(p.shape))))
        return module

    def host(self, module: Any) -> dict[str, np.ndarray]:
        return {name: x.detach().numpy() for name, x in module.arrays().items()}

    def run(self, f: Any, module: Any, *args: Any) -> Any:
        with self.xp.no_grad():
            return f(module, *map(self.xp.as_tensor, args))


class Flax(Torch):
    name = "flax"

    def __init__(self) -> None:
        self.xp, self.nnx = pytest.importorskip("jax.numpy"), pytest.importorskip("flax.nnx")
        self.adapter = adapters.flax

    def make(self, kind: str, n_layers: int = 1, **more: Any) -> Any:
        """The weights of PyTorch's, by way of a file's names."""
        from ssm_core.adapters.flax.file_names import load_arrays

        module = getattr(self.adapter, kind)(V, 8, n_layers, **OPTIONS[kind], rngs=self.nnx.Rngs(0), **more)
        definition = module.definition
        rng = np.random.default_rng(2)
        params = {n: p + rng.uniform(-0.5, 0.5, p.shape) for n, p in definition.initial_parameters().items()}
        load_arrays(module, params, self.xp.float32)
        return module

    def host(self, module: Any) -> dict[str, np.ndarray]:
        return {name: np.asarray(x) for name, x in module.arrays().items()}

    def run(self, f: Any, module: Any, *args: Any) -> Any:
        return self.nnx.jit(f)(module, *map(self.xp.asarray, args))


@pytest.fixture(scope="module", params=[Torch, Flax], ids=["torch", "flax"])
def framework(request: pytest.FixtureRequest) -> Torch:
    return request.param()


def close(x: Any, y: Any, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


# One function --------------------------------------------------------------------------------------------------------


@each_model
def test_modules_are_their_definitions(name: str, framework: Torch):
    module = framework.make(name, 2)
    params, definition = framework.host(module), module.definition
    assert {n: x.shape for n, x in params.items()} == {p.name: p.shape for p in definition.parameters()}
    reset = np.zeros((3, L), bool)
    reset[1, 4] = True

    def calls(m: Any, ids: Any, reset: Any, lengths: Any) -> Any:
        _, state = m(ids[:, :4], return_state=True, lengths=lengths)
        second, state = m(ids[:, 4:], state=state, return_state=True)
        step, after = m.stepper(), m.initial_state(3)
        for k in range(2):
            y, after = step(ids[:, k], after)
        return m(ids), m(ids, reset=reset), second, y, m.step(ids[:, 0], m.initial_state(3))[0], state

    found = framework.run(calls, module, IDS, reset, np.minimum(LENGTHS, 4))
    close(found[0], definition.apply(params, IDS))
    close(found[1], definition.apply(params, IDS, reset=reset))
    _, state = definition.apply(params, IDS[:, :4], return_state=True, lengths=np.minimum(LENGTHS, 4))
    wanted, state = definition.apply(params, IDS[:, 4:], state=state, return_state=True)
    close(found[2], wanted)
    close(found[3], definition.apply(params, IDS[:, :2])[:, 1])
    close(found[4], definition.apply(params, IDS[:, :1])[:, 0])
    for x, y in zip(found[5], state, strict=True):
        for one, other in zip(x, y, strict=True):
            close(one, other)


def test_packed_sequences(framework: Torch):
    module, ends = framework.make("Mamba2LM"), np.asarray([0, 3, 7, 10])
    cu_seqlens = framework.xp.asarray(ends)

    def packed(m: Any, ids: Any) -> Any:
        return m(ids, cu_seqlens=cu_seqlens), m(ids, cu_seqlens=cu_seqlens, return_state=True)

    y, (z, state) = framework.run(packed, module, IDS[:1])
    definition, params = module.definition, framework.host(module)
    wanted, last = definition.apply(params, IDS[:1], cu_seqlens=ends, return_state=True)
    close(y, wanted)
    close(z, wanted)
    close(state[0][1], last[0][1])


@each_model
def test_generation_is_that_of_the_definition(name: str, framework: Torch):
    """Greedy, drawn, padded on either side, in two calls, with an end."""
    module = framework.make(name)
    definition, params = module.definition, framework.host(module)
    ids, lengths = framework.xp.asarray(IDS), framework.xp.asarray(LENGTHS)
    drawn: dict[str, Any] = {"temperature": 1.2, "top_k": 9, "top_p": 0.95, "seed": 5}
    left = np.stack([np.concatenate([np.zeros(L - n, int), row[:n]]) for row, n in zip(IDS, LENGTHS, strict=True)])
    for options in ({}, drawn, {**drawn, "eos": [3, 5], "min_p": 0.05, "repetition_penalty": 1.3}):
        wanted = definition.generate(params, IDS, 8, **options)
        np.testing.assert_array_equal(np.asarray(module.generate(ids, 8, **options)), wanted)
        streamed = np.stack([np.asarray(token) for token in islice(module.stream(ids, **options), 8)], axis=1)
        np.testing.assert_array_equal(streamed, wanted)
    wanted = definition.generate(params, IDS, 6, lengths=LENGTHS)
    np.testing.assert_array_equal(np.asarray(module.generate(ids, 6, lengths=lengths)), wanted)
    found = module.generate(framework.xp.asarray(left), 6, lengths=lengths, padding="left")
    np.testing.assert_array_equal(np.asarray(found), wanted)
    first, state = module.generate(ids, 2, lengths=lengths, return_state=True)
    second = module.generate(first[:, -1:], 4, state=state)
    np.testing.assert_array_equal(np.concatenate([np.asarray(first), np.asarray(second)], axis=1), wanted)
    assert module.generate(ids, 0).shape == (3, 0)
    assert not getattr(found, "requires_grad", False)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int16", "uint16", "uint32"])
def test_integers_of_every_kind(dtype: str, framework: Torch):
    module = framework.make("MambaLM")
    ids = framework.xp.asarray(IDS.astype(dtype))
    close(framework.run(lambda m, ids: m(ids), module, ids), framework.run(lambda m, ids: m(ids), module, IDS))
    wanted = module.generate(framework.xp.asarray(IDS), 3)
    np.testing.assert_array_equal(np.asarray(module.generate(ids, 3)), np.asarray(wanted))
    lengths = framework.xp.asarray(LENGTHS)
    wanted = module.generate(framework.xp.asarray(IDS), 3, lengths=lengths, padding="left")
    found = module.generate(ids, 3, lengths=lengths, padding="left")
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


@each_model
def test_weights_travel(name: str, framework: Torch, tmp_path: Path):
    """Through a weight file, into every framework."""
    pytest.importorskip("safetensors")
    module, path = framework.make(name), tmp_path / "weights.safetensors"
    framework.adapter.save(module, path)
    definition, params = ssm_core.load(path)
    assert definition == module.definition
    for other in (Torch(), Flax()):
        loaded = other.adapter.load(path)
        assert type(loaded) is getattr(other.adapter, name)
        assert loaded.definition == definition
        for n, x in other.host(loaded).items():
            np.testing.assert_array_equal(x, params[n])


@each_model
def test_first_weights(name: str, framework: Torch):
    more = {} if framework.name == "torch" else {"rngs": framework.nnx.Rngs(0)}  # type: ignore[attr-defined]
    module = getattr(framework.adapter, name)(5000, 8, 1, **OPTIONS[name], **more)
    params = framework.host(module)
    for table in ("backbone.embeddings.weight", *(() if module.definition.tied else ("lm_head.weight",))):
        assert abs(params[table].std() - 0.02) < 1e-3
        assert abs(params[table].mean()) < 1e-3
    assert (params["backbone.norm_f.weight"] == 1).all()


# ------------------------------------------------------------------------------------------------------------- PyTorch


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("family", ["mamba", "mamba2"])
def test_torch_names_are_the_published_ones(family: str, torch: Any):
    """Within a block `in_proj_weight` is the published `in_proj.weight`, and so on."""
    load_file = pytest.importorskip("safetensors.numpy").load_file
    folder = Path(__file__).parents[1] / "conformance" / "golden" / f"{family}_lm_tiny"
    module = getattr(adapters.torch, f"{family.capitalize()}LM").from_pretrained(folder)
    assert {their_name(n) for n in module.state_dict()} == load_file(folder / "model.safetensors").keys()


@each_model
def test_torch_names_are_those_of_the_definition(name: str, torch: Any):
    module = Torch().make(name)
    assert list(module.state_dict()) == [p.name for p in module.definition.parameters()]
    other = getattr(adapters.torch, name)(V, 8, 1, **OPTIONS[name])
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(torch.from_numpy(IDS)), module(torch.from_numpy(IDS)))


@each_model
def test_torch_copies_and_pickles(name: str, torch: Any):
    module, ids = Torch().make(name), torch.from_numpy(IDS)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(ids), module(ids))
        assert torch.equal(other.generate(ids, 4), module.generate(ids, 4))
        assert other.definition == module.definition
        with torch.no_grad():
            other.backbone.embeddings.weight.add_(1.0)
        assert not torch.equal(other(ids), module(ids))


@each_model
def test_torch_gradients_reach_every_parameter(name: str, torch: Any):
    module = Torch().make(name)
    logits = module(torch.from_numpy(IDS))
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), torch.from_numpy(IDS[:, 1:]).flatten()).backward()
    for n, p in module.named_parameters():
        assert p.grad is not None, n
        assert torch.isfinite(p.grad).all(), n
        assert p.grad.abs().sum() > 0, n


@each_model
def test_torch_parameter_groups(name: str, torch: Any):
    module = Torch().make(name)
    regular, special = adapters.torch.param_groups(module, lr=0.1, weight_decay=0.5, ssm_lr=0.01)
    names = {id(p): n for n, p in module.named_parameters()}
    found = {names[id(p)] for p in special["params"]}
    wanted = {p.name for p in module.definition.parameters() if p.no_weight_decay}
    assert found == wanted
    assert {n.rpartition(".")[2] for n in found} <= SPECIAL
    assert "backbone.layers.0.mixer.D" in found
    assert len(regular["params"]) + len(special["params"]) == len(names)
    assert special["weight_decay"] == 0.0


@each_model
def test_torch_meta_device(name: str, torch: Any):
    """Shapes without memory; then materialized and drawn like one that was built at once."""
    module = getattr(adapters.torch, name)(5000, 8, 2, **OPTIONS[name], device="meta")
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert module(torch.zeros(2, 6, dtype=torch.int64, device="meta")).shape == (2, 6, 5000)
    module.to_empty(device="cpu")
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert torch.isfinite(module(torch.from_numpy(IDS))).all()
    for table in (module.backbone.embeddings, *(() if module.lm_head is None else (module.lm_head,))):
        assert abs(table.weight.std().item() - 0.02) < 1e-3


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_torch_dtypes(dtype: str, torch: Any):
    module = Torch().make("Mamba2LM", dtype=getattr(torch, dtype))
    y = module(torch.from_numpy(IDS))
    assert y.dtype == getattr(torch, dtype)
    params = {n: p.detach().double().numpy() for n, p in module.named_parameters()}
    close(y.detach().double(), module.definition.apply(params, IDS), 1e-9 if dtype == "float64" else 0.2)
    assert module.generate(torch.from_numpy(IDS), 3, temperature=1.0).shape == (3, 3)


def test_torch_autocast(torch: Any):
    module, ids = Torch().make("MambaLM"), torch.from_numpy(IDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, tokens = module(ids), module.generate(ids, 3)
    close(y.float().detach(), module(ids).detach(), 0.2)
    assert tokens.shape == (3, 3)


def test_torch_optimizers_learn_a_text(torch: Any):
    """The next token of a cycle, and then greedy generation goes on with it."""
    torch.manual_seed(0)
    module = adapters.torch.Mamba2LM(5, 16, 1, layer_options={"d_state": 8, "head_dim": 8})
    optimizer = torch.optim.AdamW(adapters.torch.param_groups(module, lr=2e-2, ssm_lr=1e-2))
    text = torch.arange(40).reshape(1, -1) % 5
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(text)[0, :-1], text[0, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    assert module.generate(text[:, :13], 6).tolist() == [[3, 4, 0, 1, 2, 3]]


# ---------------------------------------------------------------------------------------------------------------- Flax


@each_model
def test_flax_splits_and_merges(name: str):
    flax = Flax()
    module = flax.make(name)
    merged = flax.nnx.merge(*flax.nnx.split(module))
    assert merged.definition == module.definition
    for n, x in flax.host(module).items():
        np.testing.assert_array_equal(flax.host(merged)[n], x)


@each_model
def test_flax_gradients_and_labels(name: str):
    flax = Flax()
    module, ids = flax.make(name), flax.xp.asarray(IDS)
    slopes = flax.nnx.jit(flax.nnx.grad(lambda m: (m(ids) ** 2).sum()))(module)
    for path, slope in flax.nnx.to_flat_state(slopes):
        assert np.isfinite(np.asarray(slope[...])).all(), path
        assert np.abs(np.asarray(slope[...])).sum() > 0, path
    labels = dict(flax.nnx.to_flat_state(adapters.flax.param_labels(module)))
    found = {".".join(map(str, path)) for path, label in labels.items() if label == "ssm"}
    assert found == {p.name for p in module.definition.parameters() if p.no_weight_decay}


def test_flax_compiles_a_step_once():
    """However many tokens are asked for, of equal definitions too."""
    from ssm_core.adapters import jax_streams

    flax = Flax()
    module, other = flax.make("MambaLM"), flax.make("MambaLM")
    ids = flax.xp.asarray(IDS)
    module.generate(ids, 3)
    before = jax_streams._step_at._cache_size()
    module.generate(ids, 20)
    other.generate(ids, 5)
    assert jax_streams._step_at._cache_size() == before
