"""Prompts of any length and padding, and states that are kept: read in pieces, gone on from, and gone back to."""

from __future__ import annotations

import copy
import tracemalloc
from itertools import islice
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import DomainError, adapters
from ssm_core.models import LanguageModel, Mamba2LM, MambaLM, RecurrentGemmaLM, prompts

V = 13
MODELS: dict[str, LanguageModel] = {
    "Mamba": MambaLM(V, 8, 2, {"d_state": 4}),
    "Mamba2": Mamba2LM(V, 8, 2, {"d_state": 4, "head_dim": 4, "chunk": 4}),
    "S4D": LanguageModel(V, 8, 2, "S4D", {"d_state": 4}, channel_mix="mlp"),
    "RWKV7": LanguageModel(V, 8, 2, "RWKV7", {"head_dim": 4}),
    # Attention that sees less than a piece of the prompt: what is behind its window is forgotten, not refused.
    "Griffin": RecurrentGemmaLM(V, 8, 3, {"heads": 2}, attention_options={"heads": 2, "window": 5}),
}
each_model = pytest.mark.parametrize("name", MODELS)
LENGTHS = np.asarray([9, 23, 1, 12])
IDS = np.random.default_rng(1).integers(0, V, (4, 23))
LEFT = np.stack([np.concatenate([np.full(23 - n, 99), row[:n]]) for n, row in zip(LENGTHS, IDS, strict=True)])
RIGHT = np.stack([np.concatenate([row[:n], np.full(23 - n, -100)]) for n, row in zip(LENGTHS, IDS, strict=True)])


def weights(model: LanguageModel) -> dict[str, np.ndarray]:
    """As if after some training, so that tokens differ."""
    rng = np.random.default_rng(2)
    return {n: p + rng.uniform(-0.5, 0.5, p.shape) for n, p in model.initial_parameters().items()}


def leaves(state: Any) -> list[np.ndarray]:
    return [x for part in state for x in leaves(part)] if isinstance(state, tuple | list) else [np.asarray(state)]


def close(found: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    """Logits or states."""
    for x, y in zip(leaves(found), leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve steps."""
    monkeypatch.setattr(prompts, "TOKENS", 12)
    monkeypatch.setattr(prompts, "STEPS", 12)


# In pieces -----------------------------------------------------------------------------------------------------------


@each_model
def test_a_prompt_in_pieces_is_the_prompt(name: str, pieces: None, xp: Any):
    """Of several lengths, some of which end with a piece; padded with what is no token."""
    model = MODELS[name]
    params = {n: xp.asarray(p) for n, p in weights(model).items()}
    y, last = model.apply(params, xp.asarray(IDS), return_state=True)
    close(model.prefill(params, xp.asarray(IDS)), (y[:, -1, :], last))
    for ids, padding in ((RIGHT, "right"), (LEFT, "left")):
        logits, state = model.prefill(params, xp.asarray(ids), lengths=xp.asarray(LENGTHS), padding=padding)
        y, last = model.apply(params, xp.asarray(IDS), lengths=xp.asarray(LENGTHS), return_state=True)
        close(logits, np.asarray(y)[np.arange(4), LENGTHS - 1])
        close(state, last)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64"])
def test_lengths_of_every_kind(dtype: str, pieces: None):
    model = MODELS["Mamba2"]
    wanted = model.prefill(weights(model), LEFT, lengths=LENGTHS, padding="left")
    close(model.prefill(weights(model), LEFT, lengths=LENGTHS.astype(dtype), padding="left"), wanted)


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_modules_read_in_pieces(framework: str, pieces: None, quick_compilation: None):
    model = Mamba2LM(V, 8, 1, {"d_state": 4, "head_dim": 4})
    params = {n: p.astype(np.float32) for n, p in weights(model).items()}
    module, xp = module_of(framework, model, params)
    wanted = model.generate(params, IDS, 5, lengths=LENGTHS)
    for ids, padding in ((RIGHT, "right"), (LEFT, "left")):
        found = module.generate(xp.asarray(ids), 5, lengths=xp.asarray(LENGTHS), padding=padding)
        np.testing.assert_array_equal(np.asarray(found), wanted)
    with pytest.raises(DomainError, match=r"tokens must lie in \[0, 13\)"):
        module.generate(xp.asarray(RIGHT), 5, repetition_penalty=2.0)


def module_of(framework: str, model: LanguageModel, params: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """A module with these weights, and the library of its arrays."""
    if framework == "torch":
        torch = pytest.importorskip("torch")
        module = adapters.torch.Mamba2LM(V, 8, 1, layer_options=model.options()["layer_options"])
        module.load_state_dict({n: torch.from_numpy(p) for n, p in params.items()})
        return module, torch
    nnx, jnp = pytest.importorskip("flax.nnx"), pytest.importorskip("jax.numpy")
    from ssm_core.adapters.flax.file_names import load_arrays

    module = adapters.flax.Mamba2LM(V, 8, 1, layer_options=model.options()["layer_options"], rngs=nnx.Rngs(0))
    load_arrays(module, params, jnp.float32)
    return module, jnp


def test_memory_does_not_grow_with_the_prompt(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prompts, "TOKENS", 512)
    model = Mamba2LM(V, 8, 1, {"d_state": 4, "head_dim": 4})
    params, peaks = weights(model), []
    model.prefill(params, IDS)
    for L in (1024, 4096):
        ids = np.random.default_rng(0).integers(0, V, (1, L))
        tracemalloc.start()
        model.prefill(params, ids)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 8 * 4096  # and a mask of the tokens


# States that are kept ------------------------------------------------------------------------------------------------


@each_model
def test_states_are_kept_and_gone_back_to(name: str):
    """Every state of a stream is as it was when later ones are made, and a text goes on from it as it did."""
    model = MODELS[name]
    params = weights(model)
    stream, tokens, states, then = model.stream(params, IDS, lengths=LENGTHS, temperature=1.0), [], [], []
    for token in islice(stream, 8):
        tokens.append(token)
        states.append(stream.state)
        then.append(copy.deepcopy(stream.state))
    close(states, then, 0.0)
    text = np.stack(tokens, axis=1)
    greedy = [model.generate(params, text[:, k : k + 1], 3, state=states[k]) for k in range(8)]
    for k in (0, 3, 7):
        for b, n in enumerate(LENGTHS):
            before = np.concatenate([IDS[b, :n], text[b, : k + 1]])[None]
            np.testing.assert_array_equal(greedy[k][b], model.generate(params, before, 3)[0])


@pytest.mark.parametrize("duplicate", [lambda stream: stream.copy(), copy.copy])
def test_a_copy_of_a_stream_goes_on_as_the_stream(duplicate: Any):
    """With its draws, its repetitions and its ends; neither notices the other."""
    model = MODELS["Mamba2"]
    params, options = weights(model), {"temperature": 1.5, "repetition_penalty": 1.6, "eos": 3, "seed": 8}
    wanted = model.generate(params, IDS, 12, **options)
    stream = model.stream(params, IDS, **options)
    first = stream.take(4)
    kept = duplicate(stream)
    np.testing.assert_array_equal(np.concatenate([first, stream.take(8)], axis=1), wanted)
    again = duplicate(kept)
    for other in (kept, again):
        np.testing.assert_array_equal(np.concatenate([first, other.take(8)], axis=1), wanted)


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padded_prompts_go_on_from_a_state(padding: str, pieces: None):
    model = MODELS["Mamba"]
    params = weights(model)
    _, state = model.prefill(params, IDS[:, :11])
    ids = RIGHT if padding == "right" else LEFT
    found = model.generate(params, ids, 4, lengths=LENGTHS, padding=padding, state=state)
    for b, n in enumerate(LENGTHS):
        whole = np.concatenate([IDS[b, :11], IDS[b, :n]])[None]
        np.testing.assert_array_equal(found[b], model.generate(params, whole, 4)[0])


def test_guesses_of_a_smaller_model():
    """Speculative decoding: what the model would have written, from the states where its guesses end to be right."""
    model, guesser = MODELS["Mamba2"], MODELS["Mamba"]
    params, small = weights(model), weights(guesser)
    wanted = model.generate(params, IDS[:1], 20)[0]
    _, state = model.prefill(params, IDS[:1, :-1])
    text, guesses, right = IDS[0].tolist(), guesser.stream(small, IDS[:1]), 0
    while len(text) < IDS.shape[1] + 20:
        guess = guesses.take(3)[0].tolist()
        found = model.apply(params, np.asarray([[text[-1], *guess]]), state=state)[0].argmax(-1).tolist()
        n = next((k for k in range(3) if guess[k] != found[k]), 3)
        _, state = model.prefill(params, np.asarray([[text[-1], *guess[:n]]]), state=state)
        text, right = text + found[: n + 1], right + n
        guesses = guesser.stream(small, np.asarray([text]))
    np.testing.assert_array_equal(text[IDS.shape[1] :][:20], wanted)
    assert right < 20


# What is not finite --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"repetition_penalty": 2.0}])
def test_logits_that_are_no_numbers(options: dict[str, Any], xp: Any):
    """By the weights, by a state, and by a state that breaks on the way."""
    model = MODELS["Mamba"]
    params = {n: xp.asarray(p) for n, p in weights(model).items()}
    ids = xp.asarray(IDS)
    name = "backbone.norm_f.weight"
    with pytest.raises(DomainError, match=r"generate: the logits of sequences \[0, 1, 2, 3\] hold NaN or inf"):
        model.stream(params | {name: params[name] * np.nan}, ids, **options)
    with pytest.raises(DomainError, match="weights or the state are not finite"):
        model.generate(params, ids, 2, state=tuple((a, b * np.nan) for a, b in model.initial_state(params, 4)))

    def step(tokens: Any, state: int) -> tuple[Any, int]:
        return xp.zeros((2, V)) * (np.nan if state == 2 else 1.0), state + 1

    with pytest.raises(DomainError, match=r"the logits of sequences \[0, 1\]"):
        ssm_core.models.generation.generate(xp.zeros((2, V)), 0, step, 4, **options)
