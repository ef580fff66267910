"""Weight files: what is written is read again, and files of others are refused with their cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssm_core
from ssm_core import layers, models

pytest.importorskip("safetensors")

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

LAYER = layers.S4D(d_model=4, d_state=8)
MODEL = models.SequenceModel(d_input=3, d_output=2, d_model=4, n_layers=2, layer_options={"d_state": 8})
PARAMS = LAYER.initial_parameters(0)
METADATA = {"ssm_core": json.dumps({"layer": "S4D", "options": LAYER.options()})}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def write(path: Path, tensors: dict[str, np.ndarray] = PARAMS, metadata: Any = METADATA) -> Path:
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path, metadata=metadata)
    return path


def without(name: str) -> dict[str, np.ndarray]:
    return {n: x for n, x in PARAMS.items() if n != name}


@pytest.mark.parametrize("definition", [LAYER, MODEL, layers.S4D(6, n_ssm=2, channels=3, real=True, init="real")])
def test_what_is_saved_is_loaded(definition: layers.Layer, path: Path):
    params = definition.initial_parameters(1)
    ssm_core.save(definition, params, path)
    found, tensors = ssm_core.load(path)
    assert found == definition
    assert list(tensors.keys() ^ params.keys()) == []
    for name, x in params.items():
        np.testing.assert_array_equal(tensors[name], x)
        assert tensors[name].dtype == np.float32


def test_paths_may_be_text(path: Path):
    ssm_core.save(LAYER, PARAMS, str(path))
    assert ssm_core.load(str(path))[0] == LAYER


def test_any_array_library(xp: Any, path: Path):
    params = LAYER.initial_parameters(0, xp=xp)
    ssm_core.save(LAYER, params, path)
    _, tensors = ssm_core.load(path, xp=xp)
    for name, x in params.items():
        assert tensors[name].dtype == xp.float32
        np.testing.assert_array_equal(np.asarray(tensors[name]), np.asarray(x))


def test_between_libraries_by_name(path: Path):
    torch = pytest.importorskip("torch")
    params = {name: torch.tensor(x, requires_grad=True) for name, x in PARAMS.items()}
    ssm_core.save(LAYER, params, path)
    for name, x in ssm_core.load(path)[1].items():
        assert isinstance(x, np.ndarray)
        np.testing.assert_array_equal(x, PARAMS[name])
    assert all(isinstance(x, torch.Tensor) for x in ssm_core.load(path, xp="torch")[1].values())


def test_views_are_written_in_their_own_order(path: Path):
    weight = PARAMS["output_weight"]
    ssm_core.save(LAYER, {**PARAMS, "output_weight": weight.T.copy().T, "log_dt": PARAMS["log_dt"][::-1]}, path)
    _, tensors = ssm_core.load(path)
    np.testing.assert_array_equal(tensors["output_weight"], weight)
    np.testing.assert_array_equal(tensors["log_dt"], PARAMS["log_dt"][::-1])


@pytest.mark.parametrize(("given", "stored"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_precision(given: str, stored: str, path: Path):
    ssm_core.save(LAYER, {name: x.astype(given) for name, x in PARAMS.items()}, path)
    assert {x.dtype.name for x in ssm_core.load(path)[1].values()} == {stored}


def test_the_file_is_readable_without_this_library(path: Path):
    ssm_core.save(LAYER, PARAMS, path)
    assert load_file(path).keys() == PARAMS.keys()
    with safe_open(path, framework="numpy") as file:
        stored = json.loads(file.metadata()["ssm_core"])
    assert stored == {"layer": "S4D", "options": LAYER.options()}


def test_nothing_depends_on_the_length(path: Path):
    ssm_core.save(LAYER, PARAMS, path)
    definition, params = ssm_core.load(path)
    for length in (5, 50):
        u = np.random.default_rng(0).normal(size=(1, length, 4)).astype(np.float32)
        np.testing.assert_array_equal(definition.apply(params, u), LAYER.apply(PARAMS, u))


def test_a_refused_save_leaves_the_old_file(path: Path):
    ssm_core.save(LAYER, PARAMS, path)
    before = path.read_bytes()
    with pytest.raises(ssm_core.SSMError):
        ssm_core.save(LAYER, without("D"), path)
    assert path.read_bytes() == before


PARAMETER_ERRORS = [
    (without("D"), ssm_core.OptionError, r"S4D: missing \['D'\], surplus \[\]"),
    ({**PARAMS, "E": PARAMS["D"]}, ssm_core.OptionError, r"S4D: missing \[\], surplus \['E'\]"),
    ({}, ssm_core.OptionError, r"missing \['A_im', .*'output_weight'\]"),
    ({**PARAMS, "D": np.ones((1, 2), np.float32)}, ssm_core.ShapeError, r"D of S4D is \(1, 2\), but must be \(1, 4\)"),
    ({**PARAMS, "D": np.ones((1, 4), np.int64)}, ssm_core.DTypeError, "D has dtype int64"),
    ({**PARAMS, "D": np.ones((1, 4), np.bool_)}, ssm_core.DTypeError, "D has dtype bool"),
]


@pytest.mark.parametrize(("params", "error", "message"), PARAMETER_ERRORS)
def test_wrong_parameters_are_not_saved(params: Any, error: type, message: str, path: Path):
    with pytest.raises(error, match=f"^save: .*{message}"):
        ssm_core.save(LAYER, params, path)
    assert not path.exists()


@pytest.mark.parametrize(("params", "error", "message"), PARAMETER_ERRORS)
def test_wrong_parameters_are_not_loaded(params: Any, error: type, message: str, path: Path):
    write(path, params)
    with pytest.raises(error, match=f"^load: .*{message}"):
        ssm_core.load(path)


@pytest.mark.parametrize(
    ("D", "message"),
    [
        (np.ones((1, 4), np.complex64), "D has dtype complex64, but must be real"),
        (np.asarray([["a"] * 4]), "D has dtype"),
        ([[1.0] * 4], "D is a list, not an array"),
        (1.0, "D is a float, not an array"),
        (None, "D is a NoneType, not an array"),
    ],
)
def test_parameters_that_are_no_real_arrays_are_not_saved(D: Any, message: str, path: Path):
    with pytest.raises(ssm_core.DTypeError, match=f"^save: {message}"):
        ssm_core.save(LAYER, {**PARAMS, "D": D}, path)
    assert not path.exists()


def test_mixed_libraries_are_not_saved(path: Path):
    torch = pytest.importorskip("torch")
    with pytest.raises(ssm_core.MixedArraysError, match=r"^save: arrays of several libraries .*D: torch\.Tensor"):
        ssm_core.save(LAYER, {**PARAMS, "D": torch.ones(1, 4)}, path)


@pytest.mark.parametrize("given", [None, "S4D", {"d_model": 4}, layers.S4D])
def test_only_layers_are_saved(given: Any, path: Path):
    with pytest.raises(ssm_core.SSMError, match=r"^save: .* (layer|S4D)"):
        ssm_core.save(given, PARAMS, path)


def test_a_missing_file(path: Path):
    with pytest.raises(FileNotFoundError, match="weights"):
        ssm_core.load(path)


@pytest.mark.parametrize("content", [b"", b"weights", b"hello world, this is no safetensors file", b"\x00" * 64])
def test_files_that_are_no_safetensors(content: bytes, path: Path):
    path.write_bytes(content)
    with pytest.raises(ssm_core.OptionError, match=r"^load: '.*weights\.safetensors' is no safetensors file \("):
        ssm_core.load(path)


@pytest.mark.parametrize("kept", [4, 100, 800, -1])
def test_truncated_files(kept: int, path: Path):
    write(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ssm_core.OptionError, match=r"^load: '.*weights\.safetensors' is no safetensors file"):
        ssm_core.load(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_files_of_other_programs(metadata: Any, path: Path):
    write(path, metadata=metadata)
    with pytest.raises(ssm_core.OptionError, match=r"^load: '.*' has no 'ssm_core' entry .* ssm_core\.save writes"):
        ssm_core.load(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", ""),
        ("{no json", ""),
        ("[1]", ""),
        ('"S4D"', ""),
        ("null", ""),
        ("{}", "layer"),
        ('{"layer": "S4D"}', "options"),
        ('{"layer": "S4D", "options": []}', "options"),
        ('{"layer": "S4D", "options": {}}', "d_model"),
        ('{"layer": "S4D", "options": {"d_model": 4, "invented": 1}}', "invented"),
        ('{"layer": "S4D", "options": {"d_model": -4}}', "d_model = -4"),
        ('{"layer": ["S4D"], "options": {}}', "S4D"),
        ('{"layer": "S9", "options": {}}', r"unknown layer 'S9'\. Known: 'DLinOSS'"),
    ],
)
def test_foreign_metadata(entry: str, message: str, path: Path):
    write(path, metadata={"ssm_core": entry})
    with pytest.raises(ssm_core.OptionError, match=f"weights.*{message}|{message}.*weights" if message else "weights"):
        ssm_core.load(path)


def test_an_absent_library(path: Path):
    with pytest.raises(ssm_core.MissingPackageError, match="no_such_library"):
        ssm_core.load(write(path), xp="no_such_library")


def test_without_safetensors(path: Path, monkeypatch: pytest.MonkeyPatch):
    write(path)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    monkeypatch.delattr("safetensors.numpy")
    for call in (lambda: ssm_core.save(LAYER, PARAMS, path), lambda: ssm_core.load(path)):
        with pytest.raises(ssm_core.MissingPackageError, match=r"safetensors is not installed.* pip install "):
            call()


def test_options_of_blocks_come_back_as_they_were(tmp_path: Path):
    """A tuple among them too, which JSON makes a list."""
    options = {"d_state": 4, "head_dim": 4, "dt_limit": (0.01, 0.5)}
    model = ssm_core.models.Mamba2LM(vocab_size=5, d_model=4, n_layers=1, layer_options=options)
    ssm_core.save(model, model.initial_parameters(), tmp_path / "model.safetensors")
    assert ssm_core.load(tmp_path / "model.safetensors")[0] == model
