"""Language models in the directories of Hugging Face: config.json and weights in safetensors files.

A directory holds model.safetensors, or several files that model.safetensors.index.json lists. Pickled weights are
never opened: they run what their author wrote.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..._arrays.errors import DTypeError, OptionError, ShapeError, SSMError
from ..._arrays.library import computable, namespace, resolve, to_numpy
from ...layers import Parameters
from ...models import LanguageModel
from ...models.language_model import HEAD, TABLE
from ..stored import Stored, load_safetensors, stored
from ..weights import check_parameters
from . import rwkv_original
from .architecture import Architecture, Config, architectures
from .state_spaces import is_original, translated

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
GENERATION = "generation_config.json"
OURS = "ssm_core"  # the entry of config.json for what the format has none for
BLOCKS = ("num_hidden_layers", "num_blocks")  # the entries that count them
_OF_THE_FILE = ("dtype", "torch_dtype", OURS)  # entries that say what was in the old file
Made = TypeVar("Made")


def from_pretrained(
    directory: str | os.PathLike[str], *, xp: Any = None, dtype: Any = None
) -> tuple[LanguageModel, Parameters]:
    """The language model of a Hugging Face directory and its parameters, as arrays of xp.

    directory  config.json and weights in one safetensors file or in several. Model types are those that have a file
               here: mamba, mamba2, falcon_mamba, rwkv, xlstm and recurrent_gemma as transformers has them, and retnet,
               gla, delta_net, gated_deltanet, hgrn2, kda and rwkv7 as flash-linear-attention has them. Directories of
               state-spaces (Mamba, Mamba-2, Mamba-3), whose config.json is their own, are read too, and RWKV-4 and
               RWKV-7 by their first names (blocks.0.att...), which need no config.json
    xp         namespace of the parameters or its name; numpy if None
    dtype      of the parameters, float32 if None. They are read one at a time: loading takes the memory of the result
    returns    the definition and its parameters. What config.json says beyond it, such as the ids of tokens, and
               generation_config.json are kept in `definition.origin`, and `save_pretrained` writes them again

    A head of its own counts, whatever tie_word_embeddings says. Raises OptionError for a directory of another kind or
    a file that is broken, missing or surplus tensors, entries of config.json that are unknown; ShapeError where a shape
    contradicts config.json; DTypeError for tensors that are not floating; DomainError for numbers that are not finite;
    MissingPackageError without safetensors.

    >>> import numpy, ssm_core, tempfile
    >>> model = ssm_core.models.MambaLM(vocab_size=10, d_model=8, n_layers=1)
    >>> directory = tempfile.mkdtemp()
    >>> ssm_core.save_pretrained(model, model.initial_parameters(), directory)
    >>> loaded, params = ssm_core.from_pretrained(directory)
    >>> loaded.generate(params, numpy.asarray([[1, 2]]), n_tokens=3).shape
    (1, 3)
    """
    library = resolve(xp, "from_pretrained")
    definition, tensors = opened(directory)
    dtype = library.float32 if dtype is None else dtype
    return definition, {name: x.array(library, dtype) for name, x in tensors.items()}


def save_pretrained(definition: LanguageModel, params: Parameters, directory: str | os.PathLike[str]) -> None:
    """Write a directory that `from_pretrained`, and transformers, load: config.json and model.safetensors (float32).

    A definition that was loaded has what else its directory said (`definition.origin`), which is written again. For an
    example see `from_pretrained`. Raises OptionError for a model that the format cannot describe.
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
    unsaid = _unsaid(architecture, definition, config)
    config |= {OURS: unsaid} if unsaid else {}
    config |= {name: x for name, x in definition.origin.get(CONFIG, {}).items() if name not in config}
    check_parameters("save_pretrained", definition, params)
    xp = namespace("save_pretrained", **params)
    tensors = {}
    for name, p in params.items():
        x = np.ascontiguousarray(to_numpy(computable(p, xp)), dtype=np.float32)
        theirs = architecture.their_name(name)
        x = x.T if architecture.transposed(theirs) else x
        tensors[theirs] = np.ascontiguousarray(x.reshape(architecture.their_shape(theirs, x.shape)))
    config, tensors = architecture.written(config, tensors)
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"save_pretrained: {os.fspath(folder)!r} is no directory.")
    library = load_safetensors("save_pretrained")
    files: dict[str, Callable[[Path], Any]] = {
        WEIGHTS: lambda path: library.numpy.save_file(tensors, os.fspath(path), metadata={"format": "pt"}),
        **{name: partial(_write, entries) for name, entries in {CONFIG: config, **_beside(definition)}.items()},
    }
    try:
        _write_all(folder, files)
    except (OSError, library.SafetensorError) as error:
        raise OptionError(f"save_pretrained: {os.fspath(folder)!r} cannot be written ({error}).") from error


def _write(entries: Config, path: Path) -> None:
    path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def _write_all(folder: Path, files: Mapping[str, Callable[[Path], Any]]) -> None:
    """All files or, where one cannot be written, none: a reader never sees half of it.

    Weights go first and come last, so that what is ended in between has none.
    """
    made = next((path for path in (*reversed(folder.parents), folder) if not path.exists()), None)
    folder.mkdir(parents=True, exist_ok=True)
    new, old = ({name: folder / f"{name}.{age}" for name in (INDEX, *files)} for age in ("new", "old"))
    placed: list[Path] = []
    try:
        for name, write in files.items():
            write(new[name])
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{name} is a directory")
        for name, path in old.items():
            if (folder / name).is_file():
                os.replace(folder / name, path)
        for name in reversed([*files]):
            placed.append(folder / name)
            os.replace(new[name], folder / name)
    except BaseException:
        for path in (*placed, *new.values()):
            path.unlink(missing_ok=True)
        for name, path in old.items():
            if path.exists() and not (folder / name).exists():
                os.replace(path, folder / name)
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise
    for path in old.values():
        path.unlink(missing_ok=True)


def opened(directory: str | os.PathLike[str]) -> tuple[LanguageModel, dict[str, Stored]]:
    """The model, and where its parameters lie, by our names and in our shapes, all checked."""
    folder = Path(directory)
    if not folder.is_dir():
        raise OptionError(f"from_pretrained: {os.fspath(folder)!r} is no directory.{_of_the_hub(folder)}")
    given = _stored(folder)
    of_rwkv = rwkv_original.version(given)
    config = {} if of_rwkv and not (folder / CONFIG).exists() else _json(folder / CONFIG)
    if of_rwkv:
        config, given = _of_config(folder, lambda: rwkv_original.translated(config, given))
    elif is_original(config):
        config = _of_config(folder, lambda: translated(config))
    kind, known = config.get("model_type"), architectures()
    if not isinstance(kind, str) or kind not in known:
        raise OptionError(
            f"from_pretrained: config.json of {os.fspath(folder)!r} has model_type {kind!r}. Known: "
            f"{', '.join(map(repr, known))}, and those of state-spaces, which have d_model and n_layer. What "
            "transformers itself runs, it runs with the operators of this package after "
            "adapters.transformers.accelerate()."
        )
    architecture = known[kind]
    _of_config(folder, lambda: architecture.check(config))
    config, given = _of_config(folder, lambda: architecture.prepared(config, given))
    for old, new in architecture.other_names.items():
        if old in given and new not in given:
            given[new] = given.pop(old)
    for entry in BLOCKS:  # before a model of so many is made
        if isinstance(count := config.get(entry), int) and count > len(given):
            raise OptionError(
                f"from_pretrained: config.json of {os.fspath(folder)!r} has {entry} = {count}, but there are "
                f"{len(given)} tensors."
            )
    definition = _of_config(folder, lambda: _definition(architecture, config, given))
    if definition.tied:
        given.pop(architecture.their_name(HEAD), None)
    wanted = {p.name: (architecture.their_name(p.name), p.shape) for p in definition.parameters()}
    _check_names(folder, {theirs for theirs, _ in wanted.values()}, given)
    tensors = {}
    for name, (theirs, shape) in wanted.items():
        turned = architecture.transposed(theirs)
        x, there = given[theirs], architecture.their_shape(theirs, shape[::-1] if turned else shape)
        if x.shape != there:
            raise ShapeError(
                f"from_pretrained: {theirs} is {x.shape}, but config.json makes it {there} "
                f"(vocab_size: {definition.vocab_size}, hidden_size: {definition.d_model})."
            )
        x = x.T if turned else x.reshaped(shape)
        tensors[name] = replace(x, operation="from_pretrained")
    object.__setattr__(definition, "origin", _origin(folder, architecture, config, definition))
    return definition, tensors


def _of_the_hub(folder: Path) -> str:
    """What to do with a name of the hub."""
    name = folder.as_posix()
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        return ""
    return (
        " Nothing is downloaded here. If that is a name on the Hugging Face hub, download it first: "
        f"from_pretrained(huggingface_hub.snapshot_download({name!r}))."
    )


def _of_config(folder: Path, made: Callable[[], Made]) -> Made:
    """What is made of config.json, and errors that say so."""
    try:
        return made()
    except KeyError as error:
        raise OptionError(f"from_pretrained: config.json of {os.fspath(folder)!r} lacks {error}.") from error
    except SSMError as error:
        raise OptionError(f"from_pretrained: config.json of {os.fspath(folder)!r}: {error}") from error


def _definition(architecture: Architecture, config: Config, given: dict[str, Stored]) -> LanguageModel:
    """The model that config.json describes."""
    definition = architecture.definition(config, _is_tied(architecture, config, given))
    ours = config.get(OURS, {})
    if not isinstance(ours, dict) or not ours.keys() <= set(architecture.unsaid):
        raise OptionError(f"{OURS} = {ours!r} must be an object of {', '.join(architecture.unsaid) or 'no entries'}.")
    return replace(definition, layer_options={**definition.layer_options, **ours}) if ours else definition


def _unsaid(architecture: Architecture, model: LanguageModel, config: Config) -> Config:
    """Options of the blocks that the format has no entry for, where its entries alone would make others."""
    block, read = model.block(), architecture.definition(config, model.tied).block()
    found = {name: getattr(block, name) for name in architecture.unsaid}
    return {name: x for name, x in found.items() if x != getattr(read, name)}


def _origin(folder: Path, architecture: Architecture, config: Config, model: LanguageModel) -> Mapping[str, Config]:
    """The entries of config.json that the model does not say, and generation_config.json."""
    said = _config_of(model) | architecture.config(model)
    dropped = {*said, *_OF_THE_FILE, "model_type"}
    found = {CONFIG: {name: x for name, x in config.items() if name not in dropped}}
    return found | ({GENERATION: _json(folder / GENERATION)} if (folder / GENERATION).exists() else {})


def _beside(model: LanguageModel) -> dict[str, Config]:
    """The files beside config.json that a directory had."""
    return {name: dict(entries) for name, entries in model.origin.items() if name != CONFIG}


def _check_names(folder: Path, wanted: set[str], given: dict[str, Stored]) -> None:
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


def _is_tied(architecture: Architecture, config: Config, given: dict[str, Stored]) -> bool:
    """Whether there is no head but the embedding: a head of its own is kept, as transformers does."""
    if config.get("tie_word_embeddings") is False:
        return False
    head, table = (given.get(architecture.their_name(name)) for name in (HEAD, TABLE))
    return head is None or (table is not None and head.equals(table))


def _stored(folder: Path) -> dict[str, Stored]:
    """All tensors of a directory by their names there."""
    if (folder / INDEX).is_file():
        listed = _json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
            raise OptionError(f"from_pretrained: {INDEX} of {os.fspath(folder)!r} has no weight_map.")
        found: dict[str, Stored] = {}
        for file in sorted(set(listed.values())):
            if Path(file).name != file:
                raise OptionError(f"from_pretrained: {INDEX} lists {file!r}, which is no file of the directory.")
            part = stored("from_pretrained", folder / file)
            if found.keys() & part.keys():
                raise OptionError(f"from_pretrained: several files hold {_some(sorted(found.keys() & part.keys()))}.")
            found |= part
        absent = sorted(listed.keys() - found.keys())
        if absent:
            raise OptionError(f"from_pretrained: {INDEX} lists tensors that its files do not hold: {_some(absent)}.")
        return found
    if (folder / WEIGHTS).is_file():
        return stored("from_pretrained", folder / WEIGHTS)
    pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
    hint = _of_pickles(pickled) if pickled else ""
    if any(folder.glob("*.old")) or any(folder.glob("*.new")):
        hint = " A save ended too early there: files whose names end in .old are those from before it." + hint
    raise OptionError(f"from_pretrained: {os.fspath(folder)!r} has neither {WEIGHTS} nor {INDEX}.{hint}")


def _of_pickles(names: list[str]) -> str:
    """How to convert the pickled weights among these files: one, or the parts of one."""
    parts = [name for name in names if re.search(r"-\d+-of-\d+\.", name)] or names[:1]
    one = len(parts) == 1
    which, them = (f"{parts[0]!r} is", "it") if one else (f"{parts[0]!r} and {len(parts) - 1} more are", "them")
    return (
        f" {which} pickled and {'is' if one else 'are'} not opened: convert {them} once, where you trust {them}, with "
        "safetensors.torch.save_file("
        f"{{name: x.contiguous().clone() for file in {parts} for name, x in "
        "torch.load(file, map_location='cpu', weights_only=True).items()}, 'model.safetensors')."
    )


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
