"""Language models of other families against numbers of the original code, read from the directories that it wrote.

Each file `*_lm_tiny.npz` has a directory of its own name beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import adapters, models

from .backends import Backend
from .golden_files import FOLDER, Numbers, files, read
from .test_golden_language_models import compiled
from .tolerances import GOLDEN, assert_close

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

pytestmark = pytest.mark.dtypes("float64")

each_model = files("*_lm_tiny", where=lambda numbers: "prefill_length" in numbers)


def of_fla(state: Any, numbers: Numbers) -> Iterator[tuple[Any, np.ndarray]]:
    """The memories, of RWKV-7 beside the state of the channel mix."""
    turned = str(numbers["recurrent_state_layout"]) == "vk"
    for own, wanted in zip(state, numbers["recurrent_state_final"], strict=True):
        memory = own[0] if isinstance(own[0], tuple) else own
        yield memory[-1], np.swapaxes(wanted, -1, -2) if turned else wanted


def of_rwkv4(state: Any, numbers: Numbers) -> Iterator[tuple[Any, np.ndarray]]:
    for i, ((before, *_), (mixed,)) in enumerate(state):
        yield before, numbers["state_att_x"][i]
        yield mixed, numbers["state_ffn_x"][i]


def of_xlstm(state: Any, numbers: Numbers) -> Iterator[tuple[Any, np.ndarray]]:
    for i, own in enumerate(state):
        for actual, name in zip(own, "cnm", strict=True):
            wanted = numbers[f"state_{name}"][i]
            yield actual, wanted[..., 0] if name == "m" else wanted


def of_recurrent_gemma(state: Any, numbers: Numbers) -> Iterator[tuple[Any, np.ndarray]]:
    for i, (inputs, h, _) in enumerate(state):
        yield inputs, numbers["state_conv"][i]
        yield h, numbers["state_h"][i]


STATES: dict[str, Callable[[Any, Numbers], Iterator[tuple[Any, np.ndarray]]]] = {
    "fla": of_fla,
    "rwkv4": of_rwkv4,
    "xlstm": of_xlstm,
    "recurrent": of_recurrent_gemma,
}


def loaded(path: Path, backend: Backend, dtype: str) -> tuple[models.LanguageModel, dict[str, Any]]:
    model, params = ssm_core.from_pretrained(path.with_suffix(""))
    return model, {name: backend.asarray(p, dtype) for name, p in params.items()}


def stepped(prompt: Any, step: Any, ids: Any, first: int, xp: Any) -> tuple[Any, Any]:
    """Logits of the first tokens at once and of the rest one by one, and the last state."""
    logits, state = prompt(ids[:, :first])
    found = [logits[:, k, :] for k in range(first)]
    for k in range(first, ids.shape[1]):
        y, state = step(ids[:, k], state)
        found.append(y)
    return xp.stack(found, axis=1), state


@each_model
def test_logits_states_and_tokens(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    model, params = loaded(path, backend, dtype)
    ids, first = backend.asarray(numbers["input_ids"]), int(numbers["prefill_length"])
    options = {"function": f"models.{model.name}", "allowed": GOLDEN["float64"]}
    prompt = compiled(backend, lambda ids: model.apply(params, ids, return_state=True))
    logits, state = prompt(ids)
    assert_close(logits, numbers["logits"], backend, dtype, **options)
    cached, after = stepped(prompt, compiled(backend, model.stepper(params)), ids, first, backend.xp)
    assert_close(cached, numbers["logits_cached"], backend, dtype, **options)
    for last in (state, after):
        for actual, wanted in STATES[path.stem.split("_")[0]](last, numbers):
            assert_close(actual, wanted, backend, dtype, **options)
    tokens = model.generate(params, ids, numbers["greedy_next"].shape[1])
    np.testing.assert_array_equal(backend.to_numpy(tokens), numbers["greedy_next"])


@pytest.mark.backends("torch", "jax")
@each_model
def test_modules(path: Path, backend: Backend, dtype: str):
    """The modules of PyTorch and Flax read the same directories."""
    numbers, folder, torch = read(path), path.with_suffix(""), backend.family == "torch"
    if not torch:
        pytest.importorskip("flax", reason="flax is not installed")
    load = getattr(adapters, "torch" if torch else "flax").from_pretrained
    placed = (
        {"device": backend.device, "dtype": backend.dtype(dtype)} if torch else {"param_dtype": backend.dtype(dtype)}
    )
    module = load(folder, **placed)
    ids, first = backend.asarray(numbers["input_ids"]), int(numbers["prefill_length"])
    prompt = compiled(backend, lambda ids: module(ids, return_state=True))
    cached, _ = stepped(prompt, compiled(backend, module.stepper()), ids, first, backend.xp)
    options = {"function": f"models.{module.definition.name}", "allowed": GOLDEN["float64"]}
    assert_close(cached, numbers["logits_cached"], backend, dtype, **options)
    wanted = numbers["greedy_next"]
    np.testing.assert_array_equal(backend.to_numpy(module.generate(ids, wanted.shape[1])), wanted)


@pytest.mark.backends("jax")
@files("fla_hgrn2_lm_tiny", "recurrent_gemma_lm_tiny")
def test_modules_of_equinox(path: Path, backend: Backend, dtype: str):
    """Which run the definitions: models whose blocks share parameters, or are of two kinds."""
    eqx, numbers = pytest.importorskip("equinox", reason="equinox is not installed"), read(path)
    module = adapters.equinox.from_pretrained(path.with_suffix(""), dtype=backend.dtype(dtype))
    ids, options = backend.asarray(numbers["input_ids"]), {"function": f"models.{module.definition.name}"}
    logits, state = eqx.filter_jit(module)(ids, return_state=True)
    assert_close(logits, numbers["logits"], backend, dtype, allowed=GOLDEN["float64"], **options)
    for actual, wanted in STATES[path.stem.split("_")[0]](state, numbers):
        assert_close(actual, wanted, backend, dtype, allowed=GOLDEN["float64"], **options)
    tokens = module.generate(ids, numbers["greedy_next"].shape[1])
    np.testing.assert_array_equal(backend.to_numpy(tokens), numbers["greedy_next"])


@each_model
@pytest.mark.backends("numpy")
def test_hidden_states_and_what_is_saved(path: Path, backend: Backend, dtype: str, tmp_path: Path):
    """Behind every block; saved again, every tensor and every entry is what it was."""
    numbers, folder = read(path), path.with_suffix("")
    model, params = loaded(path, backend, dtype)
    parts = model.parts(params, np)
    x = parts.enter(numbers["input_ids"])
    for i, block in enumerate(parts.blocks):
        if parts.beside is not None:
            x = x[..., : model.d_model]
            x = np.concatenate([x, np.broadcast_to(parts.beside[i], x.shape)], axis=-1)
        x = block(x)
        wanted, options = numbers["hidden_states"][i + 1], {"function": f"models.{model.name}", "allowed": 1e-9}
        assert_close(x[..., : model.d_model], wanted, backend, dtype, **options)
    ssm_core.save_pretrained(model, params, tmp_path)
    found, wanted = (safetensors.load_file(p / "model.safetensors") for p in (tmp_path, folder))
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)
    config, before = (json.loads((p / "config.json").read_text()) for p in (tmp_path, folder))
    assert {n: config.get(n) for n in before if n != "dtype"} == {n: x for n, x in before.items() if n != "dtype"}


@pytest.mark.backends("numpy")
@files("fla_options_*")
def test_options_of_flash_linear_attention(path: Path, backend: Backend, dtype: str, tmp_path: Path):
    """At once and step by step, and saved again, to the roundings of its float32."""
    numbers = read(path)
    tensors = {n.removeprefix("w."): x for n, x in numbers.items() if n.startswith("w.")}
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(str(numbers["config_json"]))
    model, params = ssm_core.from_pretrained(tmp_path, dtype=np.float64)
    ids, options = numbers["input_ids"], {"function": f"models.{model.name}", "allowed": 1e-5}
    assert_close(model.apply(params, ids), numbers["logits"], backend, dtype, **options)
    step, state = model.stepper(params), model.initial_state(params, len(ids))
    for k in range(ids.shape[1]):
        logits, state = step(ids[:, k], state)
        assert_close(logits, numbers["logits"][:, k], backend, dtype, **options)
    ssm_core.save_pretrained(model, params, tmp_path / "again")
    assert ssm_core.from_pretrained(tmp_path / "again")[0] == model


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("path", [FOLDER / "rwkv7_lm_L2_C16_N8.npz"], ids=lambda path: path.stem)
def test_the_first_names_of_rwkv7(path: Path, backend: Backend, dtype: str, tmp_path: Path):
    """A directory of tensors by BlinkDL's names and one entry, and what is saved of it in the other layout."""
    numbers = read(path)
    tensors = {n.removeprefix("w."): x for n, x in numbers.items() if n.startswith("w.")}
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"head_dim": 8}')
    model, params = ssm_core.from_pretrained(tmp_path, dtype=np.float64)
    options = {"function": "models.RWKV7LM", "allowed": GOLDEN["float64"]}
    logits, state = model.apply(params, numbers["tokens"][None], return_state=True)
    assert_close(logits[0], numbers["logits"], backend, dtype, **options)
    for i, ((before, S), (mixed,)) in enumerate(state):
        assert_close(np.swapaxes(S[0], -1, -2), numbers["final_S"][i], backend, dtype, **options)
        for actual, wanted in zip((before, mixed), numbers["final_shift"][i], strict=True):
            assert_close(actual[0], wanted, backend, dtype, **options)
    ssm_core.save_pretrained(model, params, tmp_path / "again")
    again, found = ssm_core.from_pretrained(tmp_path / "again")
    assert again == model
    assert found.keys() == params.keys()
