"""Blocks and patterns: channel mixes, definitions that can be hashed, models around any layer, packed sequences."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import OptionError, adapters, layers, models
from ssm_core.layers.options import Options
from ssm_core.layers.real_steps import real_state, real_stepper
from ssm_core.models import Block, LanguageModel, Mamba2LM, MambaLM, SequenceModel
from ssm_core.models.pooling import pooled

B, L, H, V = 2, 9, 4, 11
HEADS = {"d_state": 4, "head_dim": 4}
DEFINITIONS: dict[str, models.Model] = {
    "S4D": SequenceModel(4, 3, H, 2, layer_options={"d_state": 4}),
    "S4D mlp": SequenceModel(4, 3, H, 2, layer_options={"d_state": 4}, pool=None, channel_mix="mlp", mix_width=5),
    "Mamba2 gated": SequenceModel(4, 3, H, 2, "Mamba2", HEADS, pool="last", channel_mix="gated_mlp"),
    "LM of S4D": LanguageModel(V, H, 2, layer="S4D", layer_options={"d_state": 4}),
    "LM of S5 mlp": LanguageModel(V, H, 2, "S5", {"d_state": 4}, tied=False, channel_mix="mlp"),
    "Mamba3LM gated": models.Mamba3LM(V, H, 2, HEADS, channel_mix="gated_mlp", mix_width=6),
}
each_definition = pytest.mark.parametrize("name", DEFINITIONS)


def parameters(definition: layers.Layer, xp: Any = np) -> dict[str, Any]:
    """As if after some training."""
    rng = np.random.default_rng(1)
    found = definition.initial_parameters()
    return {n: xp.asarray(p.astype(np.float64) + rng.uniform(-0.2, 0.2, p.shape)) for n, p in found.items()}


def inputs(definition: Any, length: int = L, batch: int = B) -> np.ndarray:
    rng = np.random.default_rng(2)
    if isinstance(definition, LanguageModel):
        return rng.integers(0, V, (batch, length))
    return rng.normal(size=(batch, length, definition.d_input))


def close(x: Any, y: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


def leaves(state: Any) -> list[Any]:
    return [x for part in state for x in leaves(part)] if isinstance(state, tuple) else [state]


# Channel mixes -------------------------------------------------------------------------------------------------------


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("kind", ["mlp", "gated_mlp"])
def test_a_channel_mix_is_its_formula(kind: str):
    mix = models.ChannelMix(kind, H, 6)
    p = parameters(SequenceModel(1, 1, H, 1, channel_mix=kind, mix_width=6))
    p = {n.removeprefix("blocks.0.channel_mix."): x for n, x in p.items() if ".channel_mix." in n}
    assert p.keys() == {q.name for q in mix.parameters()}
    x = inputs(DEFINITIONS["S4D"])
    if kind == "mlp":
        wanted = gelu(x @ p["up.weight"].T + p["up.bias"]) @ p["down.weight"].T + p["down.bias"]
    else:
        gate = x @ p["gate.weight"].T
        wanted = (gate / (1 + np.exp(-gate)) * (x @ p["up.weight"].T)) @ p["down.weight"].T
    close(mix.function(p)(x), wanted)


def test_widths_of_channel_mixes():
    """A gated one has as many weights."""
    assert models.ChannelMix("mlp", 6).maps() == {"up": (6, 24), "down": (24, 6)}
    assert models.ChannelMix("gated_mlp", 6).maps() == {"gate": (6, 16), "up": (6, 16), "down": (16, 6)}


@each_definition
def test_runs_pieces_and_steps_are_one_function(name: str, xp: Any):
    definition = DEFINITIONS[name]
    params, u = parameters(definition, xp), xp.asarray(inputs(definition))
    wanted, last = definition.apply(params, u, return_state=True)
    _, state = definition.apply(params, u[:, :4, ...], return_state=True)
    y, state = definition.apply(params, u[:, 4:, ...], state=state, return_state=True)
    whole = getattr(definition, "pool", None) is not None
    close(y, wanted if whole else wanted[:, 4:, :])
    step, real = definition.stepper(params), real_stepper(definition, params)
    after, mine = definition.initial_state(params, B), real_state(definition.initial_state(params, B))
    for k in range(L):
        y, after = step(u[:, k, ...], after)
        z, mine = real(u[:, k, ...], mine)
        close(z, y)
    close(y, wanted if whole else wanted[:, -1, :])
    for found in (state, after):
        for x, z in zip(leaves(found), leaves(last), strict=True):
            close(x, z)


def test_blocks_that_cannot_be():
    for options, message in (
        ({"channel_mix": "conv"}, "unknown channel_mix 'conv'. Known: 'mlp', 'gated_mlp', None"),
        ({"channel_mix": "mlp", "mix_width": 0}, "mix_width = 0 must be a whole number"),
        ({"mix_width": 8}, "mix_width = 8 needs a channel_mix"),
    ):
        for make, what in ((SequenceModel, (1, 1)), (MambaLM, (V,))):
            with pytest.raises(OptionError, match=rf"^{make.__name__}: {message}"):
                make(*what, 8, **options)
    with pytest.raises(OptionError, match=r"^Block: unknown norm 'batch'"):
        Block(8, "S4D", {}, norm="batch").check("Block")


# Definitions ---------------------------------------------------------------------------------------------------------


@each_definition
def test_definitions_are_hashable_and_their_options_plain(name: str):
    definition = DEFINITIONS[name]
    options = definition.options()
    again = layers.make(definition.name, json.loads(json.dumps(options)))
    assert again == definition
    assert hash(again) == hash(definition)
    assert type(options["layer_options"]) is dict
    assert eval(repr(definition), vars(models)) == definition
    for copied in (copy.deepcopy(definition), pickle.loads(pickle.dumps(definition))):
        assert copied == definition
        assert hash(copied) == hash(definition)
    assert replace(definition, n_layers=3) != definition


def test_options_in_any_order_of_any_kind():
    first = Mamba2LM(V, 8, 2, {"head_dim": 4, "d_state": np.int64(4), "dt_limit": [0.1, np.float64(0.5)]})
    second = Mamba2LM(np.int32(V), 8, 2, {"dt_limit": (0.1, 0.5), "d_state": 4, "head_dim": 4})
    assert first == second
    assert hash(first) == hash(second)
    assert type(first.layer_options["d_state"]) is int
    assert type(second.vocab_size) is int
    assert json.loads(json.dumps(first.options()))["layer_options"]["dt_limit"] == [0.1, 0.5]
    assert dict(first.layer_options) == {"d_state": 4, "dt_limit": (0.1, 0.5), "head_dim": 4}
    assert repr(first.layer_options) == "{'d_state': 4, 'dt_limit': (0.1, 0.5), 'head_dim': 4}"
    assert first.layer_options == dict(first.layer_options)
    assert {**first.layer_options}["head_dim"] == 4
    with pytest.raises(TypeError):
        first.layer_options["d_state"] = 8  # type: ignore[index]
    assert Options({"a": {"b": [1]}}) == {"a": {"b": (1,)}}


def test_a_dict_that_changes_later_changes_no_definition():
    given = {"d_state": 4}
    definition = SequenceModel(4, 3, layer_options=given)
    before = hash(definition)
    given["d_state"] = 8
    assert definition.layer_options["d_state"] == 4
    assert hash(definition) == before


def test_definitions_are_static_arguments_of_jit():
    jax = pytest.importorskip("jax")
    run = jax.jit(lambda definition, params, ids: definition.apply(params, ids), static_argnums=0)
    for _ in range(2):
        definition = LanguageModel(V, H, 1, layer_options={"d_state": 4})
        run(definition, definition.initial_parameters(xp="jax"), jax.numpy.asarray(inputs(definition)))
    assert run._cache_size() == 1


# Any layer -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Smoothed(layers.Layer):
    """x_k = a x_{k-1} + (1 - a) u_k, as a user may write it: a layer of the contract's least options."""

    d_model: int
    most: float = 0.9

    def parameters(self) -> tuple[layers.Parameter, ...]:
        shape = (self.d_model,)
        return (layers.Parameter("a", shape, lambda random: random.uniform(shape, 0.1, self.most)),)

    def apply(self, params: Any, u: Any, *, state: Any = None, return_state: bool = False, **options: Any) -> Any:
        a = params["a"][None, None, :]
        x = ssm_core.linear_scan(a, (1 - a) * u, axis=1, initial=state)
        return (x, x[:, -1, :]) if return_state else x

    def initial_state(self, params: Any, batch: int) -> Any:
        xp = ssm_core._arrays.library.namespace("Smoothed", **params)
        return xp.zeros((batch, self.d_model), dtype=params["a"].dtype)

    def stepper(self, params: Any, *, rate: Any = 1.0) -> Any:
        def step(u_t: Any, state: Any) -> Any:
            state = params["a"] * state + (1 - params["a"]) * u_t
            return state, state

        return step


@pytest.fixture
def smoothed(monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setitem(layers.LAYERS, "Smoothed", Smoothed)
    return LanguageModel(V, H, 2, layer="Smoothed", layer_options={"most": 0.8}, channel_mix="gated_mlp")


def test_a_layer_of_ones_own_writes_texts(smoothed: LanguageModel, xp: Any):
    params, ids = parameters(smoothed, xp), xp.asarray(inputs(smoothed))
    tokens = np.asarray(smoothed.generate(params, ids, 4))
    text = inputs(smoothed)
    for k in range(4):
        y = np.asarray(smoothed.apply(params, xp.asarray(text)))
        np.testing.assert_array_equal(tokens[:, k], y[:, -1].argmax(-1))
        text = np.concatenate([text, tokens[:, k : k + 1]], axis=1)


def test_a_layer_of_ones_own_in_modules(smoothed: LanguageModel, tmp_path: Path, quick_compilation: None):
    """Without a class of its own, and of a model that has one."""
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    nnx = pytest.importorskip("flax.nnx")
    module = adapters.torch.module(smoothed)
    adapters.torch.save(module, tmp_path / "weights.safetensors")
    definition, params = ssm_core.load(tmp_path / "weights.safetensors")
    assert definition == smoothed
    twin = adapters.flax.load(tmp_path / "weights.safetensors")
    ids = inputs(smoothed)
    wanted = smoothed.apply(params, ids)
    close(module(torch.from_numpy(ids)).detach(), wanted, 1e-5)
    close(nnx.jit(lambda m, ids: m(ids))(twin, jnp.asarray(ids)), wanted, 1e-5)
    text = smoothed.generate(params, ids, 5)
    np.testing.assert_array_equal(module.generate(torch.from_numpy(ids), 5), text)
    np.testing.assert_array_equal(twin.generate(jnp.asarray(ids), 5), text)


@each_definition
def test_modules_are_their_definitions(name: str, tmp_path: Path, quick_compilation: None):
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    nnx = pytest.importorskip("flax.nnx")
    definition = DEFINITIONS[name]
    torch.manual_seed(0)
    module = adapters.torch.module(definition)
    assert list(module.state_dict()) == [p.name for p in definition.parameters()]
    adapters.torch.save(module, tmp_path / "weights.safetensors")
    twin = adapters.flax.load(tmp_path / "weights.safetensors")
    assert twin.definition == module.definition == definition
    params = {n: x.detach().numpy() for n, x in module.arrays().items()}
    assert params.keys() == twin.arrays().keys()
    u = inputs(definition)
    u = u if u.dtype.kind == "i" else u.astype(np.float32)
    wanted, last = definition.apply(params, u, return_state=True)
    for y, state in (
        module(torch.from_numpy(u), return_state=True),
        nnx.jit(lambda m, u: m(u, return_state=True))(twin, jnp.asarray(u)),
    ):
        close(y.detach() if hasattr(y, "detach") else y, wanted, 1e-4)
        for x, z in zip(leaves(state), leaves(last), strict=True):
            close(x.detach() if hasattr(x, "detach") else x, z, 1e-4)
    y, _ = module.step(torch.from_numpy(u[:, 0]), module.initial_state(B))
    wanted, _ = definition.step(params, u[:, 0], definition.initial_state(params, B))
    close(y.detach(), wanted, 1e-4)


def test_torch_reads_parameters_as_they_are_used():
    """Shared ones, and normalized ones, whose stored parameters have other names."""
    torch, prune = pytest.importorskip("torch"), pytest.importorskip("torch.nn.utils.prune")
    module = adapters.torch.module(DEFINITIONS["LM of S5 mlp"])
    first, second = module.backbone.layers
    second.mixer = first.mixer
    second.norm.weight = first.norm.weight
    torch.nn.utils.parametrizations.weight_norm(first.channel_mix.up)
    prune.l1_unstructured(module.lm_head, "weight", 0.5)
    ids = inputs(module.definition)
    params = {n: x.detach().numpy() for n, x in module.arrays().items()}
    assert params.keys() == {p.name for p in module.definition.parameters()}
    close(module(torch.from_numpy(ids)).detach(), module.definition.apply(params, ids), 1e-5)
    assert module.generate(torch.from_numpy(ids), 3).shape == (B, 3)


# Time ----------------------------------------------------------------------------------------------------------------

CUTS = np.asarray([0, 3, 3, 4, 9])


@pytest.mark.parametrize("pool", ["mean", "last", None])
def test_packed_sequences(pool: str | None, xp: Any):
    """A pool gives a row for every sequence; one without steps keeps what was before."""
    definition = SequenceModel(4, 3, H, 2, "Mamba2", HEADS, pool=pool)
    params, u = parameters(definition, xp), xp.asarray(inputs(definition, batch=1))
    cuts = xp.asarray(CUTS)
    before = definition.apply(params, xp.asarray(inputs(definition, 2, 4)), return_state=True)[1]
    for first in (None, before):
        y, state = definition.apply(params, u, cu_seqlens=cuts, state=first, return_state=True)
        close(definition.apply(params, u, cu_seqlens=cuts, state=first), y)
        assert y.shape == ((1, L, 3) if pool is None else (4, 3))
        for i, (a, b) in enumerate(itertools.pairwise(CUTS)):
            if a == b and first is None:
                continue
            mine = None if first is None else tuple(tuple(x[i : i + 1, ...] for x in part) for part in first)
            one, last = definition.apply(params, u[:, int(a) : int(b), :], state=mine, return_state=True)
            close(y[:, int(a) : int(b), :] if pool is None else y[i : i + 1, ...], one)
            for x, z in zip(leaves(state), leaves(last), strict=True):
                close(x[i : i + 1, ...], z)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_pool_keeps_what_is_not_finite_to_its_own_sequence(pool: str, xp: Any):
    x = inputs(DEFINITIONS["S4D"], batch=1)
    x[:, 3] = np.nan
    x[:, 4, 0] = np.inf
    y, _ = pooled("pool", pool, xp.asarray(x), None, cu_seqlens=xp.asarray(CUTS))
    wanted = {"mean": lambda row: row.mean(0), "last": lambda row: row[-1]}[pool]
    close(y[0, :], wanted(x[0, :3]))
    close(y[1, :], np.zeros(4))
    assert np.isnan(np.asarray(y)[2]).all()
    close(y[3, 1:], wanted(x[0, 4:])[1:])


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("layer", ["S4D", "Mamba"])
def test_what_lies_beyond_the_length_is_not_there(layer: str, pool: str):
    """NaN too, in the gradients of the encoder as well."""
    torch = pytest.importorskip("torch")
    definition = SequenceModel(4, 3, H, 1, layer, {"d_state": 4}, pool=pool)
    params = {n: torch.from_numpy(p).requires_grad_() for n, p in parameters(definition).items()}
    u, lengths = inputs(definition), torch.asarray([4, L])
    gradients = []
    for beyond in (0.0, np.nan):
        u[0, 4:] = beyond
        y = definition.apply(params, torch.from_numpy(u), lengths=lengths)
        gradients.append((y, *torch.autograd.grad(y.square().sum(), list(params.values()))))
    for x, z in zip(*gradients, strict=True):
        close(x.detach(), z.detach())


def test_tokens_beyond_the_length_are_none():
    definition = DEFINITIONS["LM of S4D"]
    params, ids = parameters(definition), inputs(definition)
    wanted = definition.apply(params, ids, lengths=np.asarray([4, L]))
    ids[0, 4:] = -100  # what marks padding elsewhere
    close(definition.apply(params, ids, lengths=np.asarray([4, L]))[0, :4], wanted[0, :4])
