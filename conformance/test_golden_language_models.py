"""Language models against numbers of Hugging Face's transformers, read from the directories that it wrote.

Each file `*mamba*_lm_*.npz` has a directory of its own name beside it.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import adapters, models

from .backends import Backend, Jax
from .examples import as_arrays
from .golden_files import Numbers, files, read
from .tolerances import GOLDEN, assert_close, tolerance

pytest.importorskip("safetensors", reason="safetensors is not installed")

pytestmark = pytest.mark.dtypes("float32", "float64")

each_model = files("*mamba*_lm_*", where=lambda numbers: "input_ids" in numbers)


def loaded(path: Path) -> tuple[models.LanguageModel, dict[str, np.ndarray]]:
    """The model of the directory beside a file."""
    return ssm_core.from_pretrained(path.with_suffix(""))


def budget(model: models.LanguageModel, numbers: Numbers, dtype: str) -> float:
    """Roundings add up along the sequence, over the states and from block to block."""
    if dtype == "float64":
        return GOLDEN["float64"]
    block: Any = model.block()
    return tolerance(dtype, terms=numbers["input_ids"].shape[1] * model.n_layers * block.inner * block.d_state)


def hidden_states(model: models.LanguageModel, params: dict[str, Any], ids: Any, xp: Any) -> Any:
    """The output of every block, then that of the last norm (layers + 1, B, L, H)."""

    def norm(x: Any, name: str) -> Any:
        return ssm_core.rms_norm(x, params[f"backbone.{name}.weight"], epsilon=model.epsilon)

    rows = xp.take(params["backbone.embeddings.weight"], xp.reshape(ids, (-1,)), axis=0)
    x, found = xp.reshape(rows, (*ids.shape, model.d_model)), []
    for i in range(model.n_layers):
        x = x + model.block().apply(model.block_parameters(params, i), norm(x, f"layers.{i}.norm"))
        found.append(x)
    return xp.stack([*found, norm(x, "norm_f")], axis=0)


def stepped(prompt: Any, step: Any, ids: Any, xp: Any) -> Any:
    """Logits of the first half at once and of the rest token by token, as a cached model gives them."""
    half = ids.shape[1] // 2
    logits, state = prompt(ids[:, :half])
    found = [logits[:, k, :] for k in range(half)]
    for k in range(half, ids.shape[1]):
        y, state = step(ids[:, k], state)
        found.append(y)
    return xp.stack(found, axis=1)


def compiled(backend: Backend, f: Any) -> Any:
    """A function of arrays as users of JAX run it: op by op it compiles every one of them."""
    return backend.jit(f) if isinstance(backend, Jax) else f


@each_model
def test_logits_and_hidden_states(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    model, params = loaded(path)

    def run(v: SimpleNamespace) -> tuple[Any, Any]:
        given = {name: getattr(v, name) for name in params}
        return model.apply(given, v.input_ids), hidden_states(model, given, v.input_ids, v.xp)

    found = backend.run(run, as_arrays(backend, dtype, params | {"input_ids": numbers["input_ids"]}))
    for actual, name in zip(found, ("logits", "hidden_states"), strict=True):
        allowed, function = budget(model, numbers, dtype), f"models.{model.name}"
        assert_close(actual, numbers[name], backend, dtype, function=function, allowed=allowed)


@each_model
def test_logits_with_a_state(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    model, params = loaded(path)
    given = {name: backend.asarray(x, dtype) for name, x in params.items()}
    prompt = compiled(backend, lambda ids: model.apply(given, ids, return_state=True))
    step = compiled(backend, model.stepper(given))
    actual = stepped(prompt, step, backend.asarray(numbers["input_ids"]), backend.xp)
    allowed, function = budget(model, numbers, dtype), f"models.{model.name}"
    assert_close(actual, numbers["logits_cached"], backend, dtype, function=function, allowed=allowed)


@each_model
def test_the_likeliest_tokens(path: Path, backend: Backend, dtype: str):
    numbers = read(path)
    model, params = loaded(path)
    wanted = numbers["greedy_next"]

    def run(v: SimpleNamespace) -> Any:
        return model.generate({name: getattr(v, name) for name in params}, v.input_ids, wanted.shape[1])

    tokens = backend.run(run, as_arrays(backend, dtype, params | {"input_ids": numbers["input_ids"]}))
    assert backend.owns(tokens)
    assert backend.on_device(tokens)
    np.testing.assert_array_equal(backend.to_numpy(tokens), wanted)


@pytest.mark.backends("torch", "jax")
@each_model
def test_modules(path: Path, backend: Backend, dtype: str):
    """The modules of PyTorch and Flax read the same directories."""
    numbers, folder = read(path), path.with_suffix("")
    model, _ = loaded(path)
    if backend.family == "torch":
        cls = getattr(adapters.torch, model.name)
        module = cls.from_pretrained(folder, device=backend.device, dtype=backend.dtype(dtype))
    else:
        pytest.importorskip("flax", reason="flax is not installed")
        module = getattr(adapters.flax, model.name).from_pretrained(folder, param_dtype=backend.dtype(dtype))
    assert module.definition == model
    ids, allowed = backend.asarray(numbers["input_ids"]), budget(model, numbers, dtype)
    prompt = compiled(backend, lambda ids: module(ids, return_state=True))
    found = {
        "logits": compiled(backend, module)(ids),
        "logits_cached": stepped(prompt, compiled(backend, module.stepper()), ids, backend.xp),
    }
    for name, actual in found.items():
        assert_close(actual, numbers[name], backend, dtype, function=f"models.{model.name}", allowed=allowed)
    wanted = numbers["greedy_next"]
    np.testing.assert_array_equal(backend.to_numpy(module.generate(ids, wanted.shape[1])), wanted)
