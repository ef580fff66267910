"""Language models in the directories of Hugging Face: config.json and weights in safetensors files.

A directory holds model.safetensors, or several files that model.safetensors.index.json lists. Pickled weights are
never opened: they run what their author wrote.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..._arrays.errors import DTypeError, MissingPackageError, OptionError, ShapeError, SSMError
from ..._arrays.library import computable, convert, namespace, resolve, to_numpy
from ...layers import Parameters
from ...models import LanguageModel
from ...models.language_model import HEAD, TABLE
from ..weights import check_parameters
from .architecture import Architecture, Config, architectures

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def from_pretrained(directory: str | os.PathLike[str], *, xp: Any = None) -> tuple[LanguageModel, Parameters]:
    """The language model of a Hugging Face directory and its parameters, as float32 arrays of xp (NumPy if None).

    Model types are those that have a file here: mamba, mamba2, falcon_mamba. Weights are in one safetensors file or in
    several. Raises OptionError for a directory of another kind or a file that is broken, missing or surplus tensors;
    ShapeError where a shape contradicts config.json; DTypeError for tensors that are not floating; MissingPackageError
    without safetensors.

    >>> import numpy, ssm_core, tempfile
    >>> model = ssm_core.models.MambaLM(vocab_size=10, d_model=8, n_layers=1)
    >>> directory = tempfile.mkdtemp()
    >>> ssm_core.save_pretrained(model, model.initial_parameters(), directory)
    >>> loaded, params = ssm_core.from_pretrained(directory)
    >>> loaded.generate(params, numpy.asarray([[1, 2]]), n_tokens=3).shape
    (1, 3)
    """
    library = resolve(xp, "from_pretrained")
    definition, tensors = read(directory)
    return definition, {name: convert(x, library) for name, x in tensors.items()}


def save_pretrained(definition: LanguageModel, params: Parameters, directory: str | os.PathLike[str]) -> None:
    """Write a directory that `from_pretrained`, and transformers, load: config.json and model.safetensors (float32).

    For an example see `from_pretrained`. Raises OptionError for a model that the format cannot describe.
    """
    if not isinstance(definition, LanguageModel):
        raise DTypeError(f"save_pretrained: {definition!r} is no language model, such as models.MambaLM(256).")
    architecture = next((a for a in architectures().values() if a.describes(definition)), None)
    if architecture is None:
        raise OptionError(f"save_pretrained: transformers has no {definition.name}. Use save, which every model has.")
    try:
        config = _config_of(definition) | architecture.config(definition) | {"model_type": architecture.model_type}
    except SSMError as error:
        raise OptionError(f"save_pretrained: {error}") from error
    check_parameters("save_pretrained", definition, params)
    xp = namespace("save_pretrained", **params)
    tensors = {}
    for name, p in params.items():
        x = np.ascontiguousarray(to_numpy(computable(p, xp)), dtype=np.float32)
        theirs = architecture.their_name(name)
        tensors[theirs] = x.reshape(architecture.their_shape(theirs, x.shape))
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"save_pretrained: {os.fspath(folder)!r} is no directory.")
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{WEIGHTS}.new"  # a reader never sees half of a file
    _safetensors().numpy.save_file(tensors, os.fspath(new), metadata={"format": "pt"})
    os.replace(new, folder / WEIGHTS)
    (folder / INDEX).unlink(missing_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read(directory: str | os.PathLike[str]) -> tuple[LanguageModel, dict[str, np.ndarray]]:
    """The model and its parameters by our names, in NumPy float32, all checked."""
    folder = Path(directory)
    if not folder.is_dir():
        raise OptionError(f"from_pretrained: {os.fspath(folder)!r} is no directory.")
    config, given = _json(folder / CONFIG), _stored(folder)
    kind, known = config.get("model_type"), architectures()
    if not isinstance(kind, str) or kind not in known:
        raise OptionError(
            f"from_pretrained: config.json of {os.fspath(folder)!r} has model_type {kind!r}. Known: "
            f"{', '.join(map(repr, known))}."
        )
    architecture = known[kind]
    for old, new in architecture.other_names.items():
        if old in given and new not in given:
            given[new] = given.pop(old)
    definition = _definition(folder, architecture, config, given)
    if definition.tied:
        given.pop(architecture.their_name(HEAD), None)
    wanted = {p.name: (architecture.their_name(p.name), p.shape) for p in definition.parameters()}
    _check_names(folder, {theirs for theirs, _ in wanted.values()}, given)
    tensors = {}
    for name, (theirs, shape) in wanted.items():
        x, there = given[theirs], architecture.their_shape(theirs, shape)
        if x.shape != there:
            raise ShapeError(
                f"from_pretrained: {theirs} is {x.shape}, but config.json makes it {there} "
                f"(vocab_size: {definition.vocab_size}, hidden_size: {definition.d_model})."
            )
        tensors[name] = np.ascontiguousarray(x.reshape(shape), dtype=np.float32)
    return definition, tensors


def _definition(
    folder: Path, architecture: Architecture, config: Config, given: dict[str, np.ndarray]
) -> LanguageModel:
    """The model that config.json describes, if the tensors can be its."""
    try:
        architecture.check(config)
        definition = architecture.definition(config, _is_tied(architecture, config, given))
    except KeyError as error:
        raise OptionError(f"from_pretrained: config.json of {os.fspath(folder)!r} lacks {error}.") from error
    except SSMError as error:
        raise OptionError(f"from_pretrained: config.json of {os.fspath(folder)!r}: {error}") from error
    if definition.n_layers > len(given):
        raise OptionError(
            f"from_pretrained: config.json of {os.fspath(folder)!r} has num_hidden_layers = {definition.n_layers}, but "
            f"there are {len(given)} tensors."
        )
    return definition


def _check_names(folder: Path, wanted: set[str], given: dict[str, np.ndarray]) -> None:
    missing, surplus = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
    if missing or surplus:
        raise OptionError(
            f"from_pretrained: the tensors of {os.fspath(folder)!r} are not those of config.json: missing "
            f"{_some(missing)}, surplus {_some(surplus)}."
        )


def _config_of(model: LanguageModel) -> Config:
    """The entries of config.json that every architecture has."""
    return {
        "vocab_size": model.vocab_size,
        "hidden_size": model.d_model,
        "num_hidden_layers": model.n_layers,
        "tie_word_embeddings": model.tied,
        "torch_dtype": "float32",
    }


def _is_tied(architecture: Architecture, config: Config, given: dict[str, np.ndarray]) -> bool:
    """What config.json says; where it is silent, whether the head is missing or is the embedding."""
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    head, table = (given.get(architecture.their_name(name)) for name in (HEAD, TABLE))
    return head is None or (table is not None and np.array_equal(head, table))


def _stored(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a directory by their names there."""
    if (folder / INDEX).is_file():
        listed = _json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
            raise OptionError(f"from_pretrained: {INDEX} of {os.fspath(folder)!r} has no weight_map.")
        found: dict[str, np.ndarray] = {}
        for file in sorted(set(listed.values())):
            if Path(file).name != file:
                raise OptionError(f"from_pretrained: {INDEX} lists {file!r}, which is no file of the directory.")
            part = _tensors_of(folder / file)
            if found.keys() & part.keys():
                raise OptionError(f"from_pretrained: several files hold {_some(sorted(found.keys() & part.keys()))}.")
            found |= part
        absent = sorted(listed.keys() - found.keys())
        if absent:
            raise OptionError(f"from_pretrained: {INDEX} lists tensors that its files do not hold: {_some(absent)}.")
        return found
    if (folder / WEIGHTS).is_file():
        return _tensors_of(folder / WEIGHTS)
    pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
    hint = (
        f" {pickled[0]!r} is pickled and is not opened: convert it once, where you trust it, with "
        "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')."
        if pickled
        else ""
    )
    raise OptionError(f"from_pretrained: {os.fspath(folder)!r} has neither {WEIGHTS} nor {INDEX}.{hint}")


def _tensors_of(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one safetensors file; half precision becomes float32."""
    safetensors = _safetensors()
    try:
        parts = safetensors.deserialize(path.read_bytes())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise OptionError(f"from_pretrained: {os.fspath(path)!r} is no readable safetensors file ({error}).") from error
    found = {}
    for name, part in parts:
        if part["dtype"] not in _DTYPES:
            raise DTypeError(f"from_pretrained: {name} of {path.name} has dtype {part['dtype']}, but must be floating.")
        x = np.frombuffer(part["data"], dtype=_DTYPES[part["dtype"]])
        if part["dtype"] == "BF16":
            x = (x.astype(np.uint32) << 16).view(np.float32)
        found[name] = x.reshape(part["shape"])
    return found


def _json(path: Path) -> Config:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"from_pretrained: {os.fspath(path)!r} cannot be read ({error}).") from error
    if not isinstance(found, dict):
        raise OptionError(f"from_pretrained: {os.fspath(path)!r} holds no object.")
    return found


def _some(names: list[str]) -> str:
    return f"[{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}] ({len(names)})"


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackageError(
            "from_pretrained, save_pretrained: safetensors is not installed. Install it: pip install safetensors."
        ) from error
    return safetensors
