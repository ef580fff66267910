"""Language models: their parts, every way to run them, padded and packed batches, and generation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core.models import LanguageModel, Mamba2LM, Mamba3LM, MambaLM

V, L = 13, 12
MODELS: dict[str, LanguageModel] = {
    "MambaLM": MambaLM(V, 8, 2, {"d_state": 4}),
    "MambaLM_untied": MambaLM(V, 8, 2, {"d_state": 4, "norm_epsilon": 1e-5}, tied=False),
    "Mamba2LM": Mamba2LM(V, 8, 2, {"d_state": 4, "head_dim": 4, "chunk": 4}),
    "Mamba2LM_untied": Mamba2LM(V, 8, 1, {"d_state": 4, "head_dim": 4, "n_groups": 2, "bias": True}, tied=False),
    "Mamba3LM": Mamba3LM(V, 8, 2, {"d_state": 4, "head_dim": 4, "chunk": 4}),
}
each_model = pytest.mark.parametrize("name", MODELS)
IDS = np.random.default_rng(1).integers(0, V, (3, L))
LENGTHS = np.asarray([5, 12, 1])


def made(name: str, xp: Any = np) -> tuple[LanguageModel, dict[str, Any]]:
    """A model and its parameters, as if after some training, so that logits differ."""
    rng = np.random.default_rng(2)
    model = MODELS[name]
    params = model.initial_parameters()
    return model, {n: xp.asarray(p + rng.uniform(-0.5, 0.5, p.shape)) for n, p in params.items()}


def close(x: Any, y: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


def close_states(x: Any, y: Any) -> None:
    """Of every block, and of every array of a block."""
    assert len(x) == len(y)
    for one, other in zip(x, y, strict=True):
        for a, b in zip(one, other, strict=True):
            close(a, b)


def rows_of(state: Any, rows: Any) -> Any:
    return tuple(tuple(x[rows] for x in block) for block in state)


# The function --------------------------------------------------------------------------------------------------------


@each_model
def test_a_model_is_the_sum_of_its_parts(name: str):
    model, params = made(name)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * params[f"backbone.{name}.weight"]

    x = params["backbone.embeddings.weight"][IDS]
    for i in range(model.n_layers):
        x = x + model.block().apply(model.block_parameters(params, i), norm(x, f"layers.{i}.norm"))
    head = params["backbone.embeddings.weight" if model.tied else "lm_head.weight"]
    close(model.apply(params, IDS), norm(x, "norm_f") @ head.T)


@each_model
def test_names_of_parameters(name: str):
    """Those of published checkpoints, whose blocks are `test_pretrained`'s."""
    model, params = made(name)
    assert list(params)[:2] == ["backbone.embeddings.weight", "backbone.layers.0.norm.weight"]
    assert ("lm_head.weight" in params) == (not model.tied)
    assert params["backbone.norm_f.weight"].shape == (8,)
    special = {p.name.rpartition(".")[2] for p in model.parameters() if p.no_weight_decay}
    assert special >= ({"D", "dt_bias"} if name == "Mamba3LM" else {"A_log", "D"})
    assert all(".mixer." in p.name for p in model.parameters() if p.no_weight_decay)


def test_the_future_is_not_seen():
    model, params = made("Mamba2LM")
    changed = IDS.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % V
    y, z = model.apply(params, IDS), model.apply(params, changed)
    close(y[:, :7], z[:, :7])
    assert (np.abs(y[:, 7:] - z[:, 7:]).max((0, 2)) > 1e-6).all()


@each_model
def test_at_once_chunk_by_chunk_and_step_by_step(name: str, xp: Any):
    model, params = made(name, xp)
    ids = xp.asarray(IDS)
    wanted, last = model.apply(params, ids, return_state=True)
    for mode in model.block().modes:
        close(model.apply(params, ids, mode=mode), wanted)
    parts, state = [], None
    for a, b in ((0, 5), (5, 5), (5, 6), (6, L)):
        y, state = model.apply(params, ids[:, a:b], state=state, return_state=True)
        parts.append(np.asarray(y))
    close(np.concatenate(parts, axis=1), wanted)
    close_states(state, last)
    step, state = model.stepper(params), model.initial_state(params, 3)
    for k in range(L):
        y, state = step(ids[:, k], state)
        close(y, wanted[:, k, :])
    close_states(state, last)


@each_model
def test_resets_begin_anew(name: str):
    model, params = made(name)
    reset = np.zeros((3, L), bool)
    reset[0, 4] = reset[1, 0] = reset[2, 4] = reset[2, 9] = True
    y, state = model.apply(params, IDS, reset=reset, return_state=True)
    close(y[0, :4], model.apply(params, IDS[:1, :4])[0])
    close(y[0, 4:], model.apply(params, IDS[:1, 4:])[0])
    close(y[1], model.apply(params, IDS[1:2])[0])
    close(y[2, 4:9], model.apply(params, IDS[2:, 4:9])[0])
    tail, last = model.apply(params, IDS[2:, 9:], return_state=True)
    close(y[2, 9:], tail[0])
    close_states(rows_of(state, slice(2, 3)), last)


@each_model
def test_padding_on_the_right(name: str, xp: Any):
    model, params = made(name, xp)
    ids, lengths = xp.asarray(IDS), xp.asarray(LENGTHS)
    y, state = model.apply(params, ids, lengths=lengths, return_state=True)
    for b, n in enumerate(LENGTHS):
        alone, last = model.apply(params, ids[b : b + 1, : int(n)], return_state=True)
        close(np.asarray(y)[b, :n], alone[0, ...])
        close_states(tuple(tuple(np.asarray(x)[b : b + 1] for x in block) for block in state), last)


@each_model
def test_packed_sequences(name: str, xp: Any):
    """One after another, without states, and with states in and out."""
    model, params = made(name, xp)
    ends = np.asarray([0, 5, 5, 6, 12])
    flat, cu_seqlens = xp.asarray(IDS[:1]), xp.asarray(ends)
    before = model.apply(params, xp.asarray(IDS[[0, 1, 2, 0]]), return_state=True)[1]
    without = model.apply(params, flat, cu_seqlens=cu_seqlens)
    y, state = model.apply(params, flat, cu_seqlens=cu_seqlens, return_state=True)
    z, after = model.apply(params, flat, cu_seqlens=cu_seqlens, state=before, return_state=True)
    close(y, without)
    close(model.apply(params, flat, cu_seqlens=cu_seqlens, state=before), z)
    for i, (a, b) in enumerate(itertools.pairwise(ends)):
        for found, states, first in ((y, state, None), (z, after, before)):
            mine = None if first is None else tuple(tuple(x[i : i + 1, ...] for x in block) for block in first)
            alone, last = model.apply(params, flat[:, int(a) : int(b)], state=mine, return_state=True)
            close(np.asarray(found)[:, a:b], alone)
            close_states(tuple(tuple(x[i : i + 1, ...] for x in block) for block in states), last)


@each_model
def test_empty_batches_and_sequences(name: str, xp: Any):
    model, params = made(name, xp)
    assert model.apply(params, xp.asarray(IDS[:0])).shape == (0, L, V)
    y, state = model.apply(params, xp.asarray(IDS[:, :0]), return_state=True)
    assert y.shape == (3, 0, V)
    close_states(state, model.initial_state(params, 3))
    y, state = model.step(params, xp.asarray(IDS[:0, 0]), model.initial_state(params, 0))
    assert y.shape == (0, V)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_of_every_kind(dtype: str, xp: Any):
    model, params = made("MambaLM", xp)
    ids = xp.asarray(IDS, dtype=getattr(xp, dtype))
    close(model.apply(params, ids), model.apply(params, xp.asarray(IDS)))
    close(model.step(params, ids[:, 0], model.initial_state(params, 3))[0], model.apply(params, ids[:, :1])[:, 0, :])
    np.testing.assert_array_equal(
        np.asarray(model.generate(params, ids, 3)), np.asarray(model.generate(params, xp.asarray(IDS), 3))
    )


def test_parameters_of_half_precision():
    """Are computed with in float32."""
    model, params = made("Mamba2LM")
    half = {n: p.astype(np.float16) for n, p in params.items()}
    y = model.apply(half, IDS)
    assert y.dtype == np.float32
    close(y, model.apply({n: p.astype(np.float32) for n, p in half.items()}, IDS), 1e-5)
    assert model.generate(half, IDS, 2).shape == (3, 2)


# Prompts -------------------------------------------------------------------------------------------------------------


def left_padded(lengths: np.ndarray, ids: np.ndarray = IDS) -> np.ndarray:
    """Zeros, then the first tokens of every row."""
    found = np.zeros_like(ids)
    for b, n in enumerate(lengths):
        found[b, L - n :] = ids[b, :n]
    return found


@each_model
def test_a_prompt_at_once(name: str, xp: Any):
    model, params = made(name, xp)
    y, last = model.apply(params, xp.asarray(IDS), return_state=True)
    logits, state = model.prefill(params, xp.asarray(IDS))
    close(logits, y[:, -1, :])
    close_states(state, last)


@each_model
@pytest.mark.parametrize("padding", ["right", "left"])
def test_padded_prompts_are_prompts_alone(padding: str, name: str, xp: Any):
    model, params = made(name, xp)
    ids = IDS if padding == "right" else left_padded(LENGTHS)
    logits, state = model.prefill(params, xp.asarray(ids), lengths=xp.asarray(LENGTHS), padding=padding)
    tokens = model.generate(params, xp.asarray(ids), 4, lengths=xp.asarray(LENGTHS), padding=padding)
    for b, n in enumerate(LENGTHS):
        alone = xp.asarray(IDS[b : b + 1, :n])
        wanted, last = model.prefill(params, alone)
        close(np.asarray(logits)[b], wanted[0, ...])
        close_states(tuple(tuple(np.asarray(x)[b : b + 1] for x in block) for block in state), last)
        np.testing.assert_array_equal(np.asarray(tokens)[b], np.asarray(model.generate(params, alone, 4))[0])


def test_a_prompt_in_two_parts():
    model, params = made("Mamba3LM")
    wanted, last = model.prefill(params, IDS)
    _, state = model.prefill(params, IDS[:, :7])
    logits, state = model.prefill(params, IDS[:, 7:], state=state)
    close(logits, wanted)
    close_states(state, last)
    _, state = model.prefill(params, IDS, lengths=np.asarray([4, 12, 3]))
    logits, _ = model.prefill(params, IDS[:, :2], lengths=np.asarray([2, 1, 2]), state=state)
    row = np.concatenate([IDS[0, :4], IDS[0, :2]])[None]
    close(logits[:1], model.prefill(params, row)[0])


# Generation ----------------------------------------------------------------------------------------------------------


@each_model
def test_greedy_is_the_argmax_of_everything_before(name: str, xp: Any):
    model, params = made(name, xp)
    tokens = np.asarray(model.generate(params, xp.asarray(IDS), 5))
    text = IDS
    for k in range(5):
        y = np.asarray(model.apply(params, xp.asarray(text)))
        np.testing.assert_array_equal(tokens[:, k], y[:, -1].argmax(-1))
        text = np.concatenate([text, tokens[:, k : k + 1]], axis=1)
    assert len(np.unique(tokens)) > 1


@each_model
@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "top_k": 9, "top_p": 0.95}])
def test_two_calls_are_one(options: dict[str, Any], name: str):
    """The last token of a call has not entered its state: it begins the next one."""
    model, params = made(name)
    whole, end = model.generate(params, IDS, 8, return_state=True, seed=3, **options)
    rng = np.random.default_rng(3)
    first, state = model.generate(params, IDS, 3, return_state=True, seed=rng, **options)
    second, state = model.generate(params, first[:, -1:], 5, state=state, return_state=True, seed=rng, **options)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
    close_states(state, end)


@each_model
def test_memory_does_not_grow(name: str):
    model, params = made(name)

    def sizes(n: int) -> list[tuple[int, ...]]:
        return [x.shape for block in model.generate(params, IDS, n, return_state=True)[1] for x in block]

    assert sizes(0) == sizes(1) == sizes(20) == [x.shape for b in model.initial_state(params, 3) for x in b]


def test_no_tokens():
    model, params = made("MambaLM")
    tokens, state = model.generate(params, IDS, 0, return_state=True)
    assert tokens.shape == (3, 0)
    close_states(state, model.prefill(params, IDS)[1])
    assert model.generate(params, IDS[:0], 4).shape == (0, 4)


def test_eos_fills_the_rows_that_have_ended():
    model, params = made("MambaLM")
    free = model.generate(params, IDS, 30, temperature=1.0, seed=2)
    tokens = model.generate(params, IDS, 30, temperature=1.0, seed=2, eos=4)
    ends = [list(row).index(4) if 4 in row else len(row) for row in free]
    assert tokens.shape[1] == min(30, max(ends) + 1)
    for row, plain, end in zip(tokens, free, ends, strict=True):
        np.testing.assert_array_equal(row[:end], plain[:end])
        assert (row[end:] == 4).all()


def test_every_library_draws_the_same(xp: Any):
    options: Any = {"temperature": 1.0, "top_k": 8, "top_p": 0.9, "seed": 11}
    found = [m.generate(p, x.asarray(IDS), 12, **options) for x in (xp, np) for m, p in (made("Mamba2LM", x),)]
    np.testing.assert_array_equal(np.asarray(found[0]), found[1])
    assert len(np.unique(found[1])) > 4


def test_the_rate_of_the_blocks_reaches_the_steps():
    model, params = made("MambaLM")
    step, state = model.stepper(params, rate=0.5), model.initial_state(params, 3)
    y, _ = step(IDS[:, 0], state)
    assert np.abs(y - model.apply(params, IDS[:, :1])[:, 0]).max() > 1e-6


def test_models_are_among_the_layers(tmp_path: Any):
    pytest.importorskip("safetensors")
    for name, model in MODELS.items():
        assert ssm_core.layers.make(model.name, model.options()) == model
        ssm_core.save(model, model.initial_parameters(), tmp_path / name)
        assert ssm_core.load(tmp_path / name)[0] == model
