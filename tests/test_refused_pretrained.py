"""Hugging Face directories that lack files or hold broken or foreign ones; models that the format cannot describe."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import DTypeError, OptionError, ShapeError, SSMError, adapters, layers, models
from ssm_core.models import Mamba2LM, MambaLM

pytest.importorskip("safetensors")

import safetensors.numpy
from directories import MAMBA, MODELS, refused, same, saved, sharded, weights, write_raw, write_tensors

TABLE, TAPS = "backbone.embeddings.weight", "backbone.layers.1.mixer.conv1d.weight"
FIRST = "model-00001-of-00003.safetensors"


class Payload:
    """What a pickle runs when it is opened."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("opened"),))


@pytest.mark.parametrize("name", ["state-spaces/mamba-130m-hf", "mamba-130m"])
def test_names_of_the_hub(name: str, folder: Path):
    refused(
        Path(name), OptionError, rf"is no directory\. Nothing is down.*huggingface_hub\.snapshot_download\('{name}'\)"
    )


def test_no_directory(folder: Path):
    refused(folder, OptionError, "model' is no directory")
    saved(folder)
    refused(folder / "config.json", OptionError, r"config\.json' is no directory")


@pytest.mark.parametrize("given", [None, 3, b"model"])
def test_paths_of_another_type(given: Any):
    with pytest.raises(TypeError):
        ssm_core.from_pretrained(given)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_files(missing: str, folder: Path):
    saved(folder)
    (folder / missing).unlink()
    refused(folder, OptionError, missing)


@pytest.mark.parametrize("kept", [0, 4, 100, 800, -1])
def test_truncated_files(kept: int, folder: Path):
    saved(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refused(folder, OptionError, r"model\.safetensors' is no readable safetensors file \(")


def test_a_pickle_by_another_name_is_not_run(folder: Path):
    saved(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    refused(folder, OptionError, r"model\.safetensors' is no readable safetensors file \(")
    assert not Path("opened").exists()


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "model.pth"])
def test_pickles_are_not_opened(file: str, folder: Path):
    saved(folder)
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(pickle.dumps(Payload()))
    refused(folder, OptionError, rf"neither .*'{file}' is pickled and is not opened: convert it .*weights_only=True")
    assert not Path("opened").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda listed: None, "has no weight_map"),
        (lambda listed: list(listed), "has no weight_map"),
        (lambda listed: dict.fromkeys(listed, 3), "has no weight_map"),
        (lambda listed: dict.fromkeys(listed), "has no weight_map"),
        (lambda listed: {}, "there are 0 tensors"),
        (lambda listed: listed | {TABLE: f"../{FIRST}"}, rf"lists '\.\./{FIRST}', which is no file of the directory"),
        (lambda listed: listed | {TABLE: f"/etc/{FIRST}"}, "lists '/etc/.*', which is no file of the directory"),
        (lambda listed: listed | {TABLE: f"within/{FIRST}"}, "lists 'within/.*', which is no file of the directory"),
        (lambda listed: listed | {TABLE: ".."}, "is no readable safetensors file|no file of the directory"),
        (lambda listed: listed | {TABLE: ""}, "is no readable safetensors file|no file of the directory"),
        (lambda listed: listed | {TABLE: "\0"}, "is no readable safetensors file|no file of the directory"),
        (lambda listed: listed | {TABLE: "absent.safetensors"}, r"absent\.safetensors' is no readable .*No such file"),
        (lambda listed: listed | {TABLE: "config.json"}, r"config\.json' is no readable safetensors file"),
        (lambda listed: listed | {"more": FIRST}, r"lists tensors that its files do not hold: \[more\] \(1\)"),
        (lambda listed: {n: f for n, f in listed.items() if f != FIRST}, r"missing \[backbone"),
    ],
)
def test_indices(change: Any, message: str, folder: Path):
    saved(folder)
    sharded(folder, change)
    (folder.parent / FIRST).write_bytes((folder / FIRST).read_bytes())
    refused(folder, OptionError, message)


def test_an_index_without_entries(folder: Path):
    saved(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    refused(folder, OptionError, "has no weight_map")


def test_a_broken_part(folder: Path):
    saved(folder)
    sharded(folder)
    (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-1])
    refused(folder, OptionError, f"{FIRST}' is no readable safetensors file")


def test_parts_that_hold_the_same(folder: Path):
    saved(folder)
    sharded(folder)
    listed = json.loads((folder / "model.safetensors.index.json").read_text())
    (folder / "copy.safetensors").write_bytes((folder / FIRST).read_bytes())
    listed["weight_map"][TABLE] = "copy.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))
    refused(folder, OptionError, rf"several files hold \[{TABLE}, ")


def test_tensors_that_are_missing(folder: Path):
    saved(folder)
    write_tensors(folder, lambda t: {n: x for n, x in t.items() if n != TAPS})
    refused(folder, OptionError, rf"missing \[{TAPS}\] \(1\), surplus \[\] \(0\)")


def test_tensors_that_are_too_many(folder: Path):
    saved(folder)
    write_tensors(folder, lambda t: t | {"model.score.weight": np.ones((2, 2), np.float32)})
    refused(folder, OptionError, r"missing \[\] \(0\), surplus \[model\.score\.weight\] \(1\)")


@pytest.mark.parametrize(("layers", "message"), [(1, "surplus"), (3, "missing"), (10**9, "there are 22 tensors")])
def test_another_number_of_blocks(layers: int, message: str, folder: Path):
    saved(folder, num_hidden_layers=layers)
    refused(folder, OptionError, message)


@pytest.mark.parametrize("file", [{}, {"": ("F32", (1,), bytes(4))}])
def test_files_of_no_tensors(file: Any, folder: Path):
    saved(folder)
    write_raw(folder, file)
    refused(folder, OptionError, "tensors")


def test_a_head_that_is_missing(folder: Path):
    saved(folder, tie_word_embeddings=False)
    refused(folder, OptionError, r"missing \[lm_head\.weight\] \(1\), surplus \[\] \(0\)")


def test_biases_against_the_config(folder: Path):
    saved(folder, "mamba_biases", use_bias=False)
    refused(folder, OptionError, r"surplus \[.*in_proj\.bias, .*out_proj\.bias\] \(2\)")
    saved(folder, use_conv_bias=False)
    refused(folder, OptionError, r"surplus \[.*conv1d\.bias, .*conv1d\.bias\] \(2\)")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"vocab_size": 10}, rf"{TABLE} is \(11, 8\), but config.json makes it \(10, 8\) \(vocab_size: 10, hidden_siz"),
        ({"vocab_size": 50280}, r"is \(11, 8\), but config.json makes it \(50280, 8\)"),
        ({"hidden_size": 16, "intermediate_size": 32}, r"\(11, 8\), but config.json makes it \(11, 16\)"),
        ({"state_size": 5}, r"x_proj\.weight is \(9, 16\), but config.json makes it \(11, 16\)"),
        ({"conv_kernel": 3}, r"conv1d\.weight is \(16, 1, 4\), but config.json makes it \(16, 1, 3\)"),
        ({"time_step_rank": 2}, "x_proj"),
        ({"intermediate_size": 24}, r"in_proj\.weight is \(32, 8\), but config.json makes it \(48, 8\)"),
    ],
)
def test_sizes_that_the_tensors_contradict(entries: Any, message: str, folder: Path):
    saved(folder, **entries)
    refused(folder, ShapeError, message)


@pytest.mark.parametrize("shape", [(16, 4), (16, 4, 1), (1, 16, 4), (16, 1, 4, 1), (64,), (), (0,)])
def test_taps_of_another_shape(shape: tuple[int, ...], folder: Path):
    saved(folder)
    write_tensors(folder, lambda t: t | {TAPS: np.ones(shape, np.float32)})
    refused(folder, ShapeError, rf"{TAPS} is \(.*\), but config.json makes it \(16, 1, 4\)")


@pytest.mark.parametrize(("dtype", "size"), [("I64", 8), ("I8", 1), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1), ("C64", 8)])
def test_tensors_of_another_dtype(dtype: str, size: int, folder: Path):
    saved(folder)
    write_raw(folder, {TABLE: (dtype, (11, 8), bytes(88 * size))})
    refused(folder, DTypeError, rf"{TABLE} of model\.safetensors has dtype {dtype}, but must be floating")


# Modules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_modules_refuse_alike(framework: str, folder: Path):
    pytest.importorskip(framework)
    adapter = getattr(adapters, framework)
    saved(folder, vocab_size=12)
    refused(folder, ShapeError, r"is \(11, 8\), but", adapter.MambaLM.from_pretrained)
    saved(folder, "mamba2")
    for cls in (adapter.MambaLM, adapter.Mamba3LM):
        with pytest.raises(OptionError, match=rf"^{cls.__name__}\.from_pretrained: '.*model' holds a Mamba2LM\. Use "):
            cls.from_pretrained(folder)


# Models that the format cannot describe ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.LanguageModel(11, 8, 1, "S4D"), "transformers has no LanguageModel. Use save, which every model has"),
        (MambaLM(11, 8, 1, {"discretization": "zoh"}), "the format knows no discretization 'zoh'"),
        (Mamba2LM(11, 8, 1, {"head_dim": 4, "epsilon": 1e-4}), "one epsilon for all norms, .* has 1e-05 and .* 0.0001"),
        (layers.S4D(4), r"S4D\(.* is no language model"),
        (layers.Mamba(4), r"Mamba\(.* is no language model"),
        (models.SequenceModel(3, 2), "is no language model"),
        (MambaLM, "is no language model, such as models.MambaLM"),
        (None, "None is no language model"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_what_is_not_saved(model: Any, message: str, folder: Path):
    params = model.initial_parameters() if isinstance(model, layers.Layer) else {}
    with pytest.raises(SSMError, match=rf"^save_pretrained: .*{message}.*\.$"):
        ssm_core.save_pretrained(model, params, folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: {}, OptionError, r"missing \['backbone.embeddings.weight', .*surplus \[\]"),
        (lambda p: p | {"lm_head.weight": p[TABLE]}, OptionError, r"missing \[\], surplus \['lm_head.weight'\]"),
        (lambda p: p | {TABLE: p[TABLE][:5]}, ShapeError, rf"{TABLE} of MambaLM is \(5, 8\), but must be \(11, 8\)"),
        (lambda p: p | {TABLE: p[TABLE].astype(int)}, DTypeError, f"{TABLE} has dtype int64"),
        (lambda p: p | {TABLE: p[TABLE].tolist()}, DTypeError, f"{TABLE} is a list, not an array"),
    ],
)
def test_wrong_parameters_are_not_saved(change: Any, error: type, message: str, folder: Path):
    with pytest.raises(error, match=f"^save_pretrained: .*{message}"):
        ssm_core.save_pretrained(MAMBA, change(weights(MAMBA)), folder)
    assert not folder.exists()


def test_a_file_where_the_directory_should_be(folder: Path):
    folder.write_text("here already")
    with pytest.raises(OptionError, match=r"^save_pretrained: '.*model' is no directory\.$"):
        ssm_core.save_pretrained(MAMBA, weights(MAMBA), folder)
    assert folder.read_text() == "here already"


def test_a_model_of_another_size_is_not_saved(folder: Path):
    with pytest.raises(ShapeError, match=r"^save_pretrained: "):
        ssm_core.save_pretrained(replace(MODELS["mamba"], d_model=16), weights(MAMBA), folder)
    assert not folder.exists()


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("file", ["model.safetensors.new", "config.json.new"])
def test_nothing_is_half_saved(file: str, there: bool, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Where a disk is full: what was there stays, and nothing is added."""
    before = saved(folder)[1] if there else {}

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((safetensors.numpy, "save_file") if "safetensors" in file else (Path, "write_text")), full)
    with pytest.raises(OptionError, match=r"^save_pretrained: '.*model' cannot be written \(.*No space left"):
        ssm_core.save_pretrained(MODELS["mamba_untied"], weights(MODELS["mamba_untied"]), folder)
    assert folder.exists() == there
    if there:
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
        same(ssm_core.from_pretrained(folder)[1], before)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize(("end", "error"), [(2, OSError("No more")), (3, KeyboardInterrupt()), (4, OSError("No more"))])
def test_nothing_is_half_replaced(
    parts: bool, end: int, error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Wherever it ends: what was there is there again, and what is read in between has no weights."""
    before = saved(folder)[1]
    if parts:
        sharded(folder)
    names, replaced, calls = sorted(folder.iterdir()), os.replace, []

    def ending(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == end:
            refused(folder, OptionError, "A save ended too early there")
            raise error
        replaced(*paths)

    monkeypatch.setattr(os, "replace", ending)
    with pytest.raises((OptionError, KeyboardInterrupt)):
        ssm_core.save_pretrained(MODELS["mamba_untied"], weights(MODELS["mamba_untied"]), folder)
    assert sorted(folder.iterdir()) == names
    same(ssm_core.from_pretrained(folder)[1], before)
    ssm_core.save_pretrained(MODELS["mamba_untied"], weights(MODELS["mamba_untied"]), folder)
    same(ssm_core.from_pretrained(folder)[1], weights(MODELS["mamba_untied"]))


def test_a_directory_where_a_file_should_be(folder: Path):
    saved(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    weights_before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(OptionError, match=r"^save_pretrained: .* cannot be written \(config\.json is a directory\)"):
        ssm_core.save_pretrained(MODELS["mamba_untied"], weights(MODELS["mamba_untied"]), folder)
    assert (folder / "model.safetensors").read_bytes() == weights_before
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("kind", ["qwen3_next", "llama"])
def test_models_of_transformers_alone(kind: str, folder: Path):
    saved(folder, model_type=kind)
    refused(folder, OptionError, rf"model_type '{kind}'\. Known: 'delta_net', .*transformers\.accelerate\(\)")
