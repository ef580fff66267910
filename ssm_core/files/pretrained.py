"""Language models in the directories of Hugging Face: config.json and weights in safetensors files.

A directory holds model.safetensors, or several files that model.safetensors.index.json lists. Pickled weights are
never opened: they run what their author wrote.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.errors import DTypeError, MissingPackageError, OptionError, ShapeError, SSMError
from .._arrays.library import computable, convert, namespace, resolve, to_numpy
from ..layers import Parameters
from ..models import LanguageModel, Mamba2LM, MambaLM
from .weights import check_parameters

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"

# Ours within a block, and theirs; "weight" and "bias" follow.
_RENAMED = {"in_proj_": "in_proj.", "out_proj_": "out_proj.", "x_proj_": "x_proj.", "dt_proj_": "dt_proj.",
            "conv_": "conv1d.", "norm_weight": "norm.weight"}  # fmt: skip
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BLOCK, _HEAD, _TABLE = ".mixer.", "lm_head.weight", "backbone.embeddings.weight"
_OLD_TABLE = "backbone.embedding.weight"  # in the first published checkpoints
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "state_size", "conv_kernel", "expand", "intermediate_size",
          "head_dim", "num_heads", "n_groups")  # fmt: skip
_NUMBERS = ("layer_norm_epsilon", "mixer_rms_eps", "time_step_min", "time_step_max", "time_step_floor")
_FLAGS = ("use_bias", "use_conv_bias", "tie_word_embeddings")


def from_pretrained(directory: str | os.PathLike[str], *, xp: Any = None) -> tuple[LanguageModel, Parameters]:
    """The language model of a Hugging Face directory and its parameters, as float32 arrays of xp (NumPy if None).

    Model types mamba, mamba2 and falcon_mamba; weights in one safetensors file or in several. Raises OptionError for a
    directory of another kind or a file that is broken, missing or surplus tensors; ShapeError where a shape
    contradicts config.json; DTypeError for tensors that are not floating; MissingPackageError without safetensors.

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
    config = _config_of(definition)
    check_parameters("save_pretrained", definition, params)
    xp = namespace("save_pretrained", **params)
    tensors = {}
    for name, p in params.items():
        x = np.ascontiguousarray(to_numpy(computable(p, xp)), dtype=np.float32)
        theirs = their_name(name)
        tensors[theirs] = x[:, None, :] if theirs.endswith("conv1d.weight") else x
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
    config = _json(folder / CONFIG)
    given = _tensors(folder)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _MODELS:
        raise OptionError(
            f"from_pretrained: config.json of {os.fspath(folder)!r} has model_type {kind!r}. Known: "
            f"{', '.join(map(repr, _MODELS))}."
        )
    try:
        _check_entries(config)
        definition = _MODELS[kind](config, _is_tied(config, given))
    except KeyError as error:
        raise OptionError(f"from_pretrained: config.json of {os.fspath(folder)!r} lacks {error}.") from error
    except SSMError as error:
        raise OptionError(f"from_pretrained: config.json of {os.fspath(folder)!r}: {error}") from error
    if definition.n_layers > len(given):
        raise OptionError(
            f"from_pretrained: config.json of {os.fspath(folder)!r} has num_hidden_layers = {definition.n_layers}, but "
            f"there are {len(given)} tensors."
        )
    if definition.tied:
        given.pop(_HEAD, None)
    wanted = {p.name: (their_name(p.name), p.shape) for p in definition.parameters()}
    missing = sorted({theirs for theirs, _ in wanted.values()} - given.keys())
    surplus = sorted(given.keys() - {theirs for theirs, _ in wanted.values()})
    if missing or surplus:
        raise OptionError(
            f"from_pretrained: the tensors of {os.fspath(folder)!r} are not those of config.json: missing "
            f"{_some(missing)}, surplus {_some(surplus)}."
        )
    tensors = {}
    for name, (theirs, shape) in wanted.items():
        x = given[theirs]
        there = (shape[0], 1, *shape[1:]) if theirs.endswith("conv1d.weight") else shape
        if x.shape != there:
            raise ShapeError(
                f"from_pretrained: {theirs} is {x.shape}, but config.json makes it {there} "
                f"(vocab_size: {definition.vocab_size}, hidden_size: {definition.d_model})."
            )
        tensors[name] = np.ascontiguousarray(x.reshape(shape), dtype=np.float32)
    return definition, tensors


def _mamba(c: dict[str, Any], tied: bool) -> LanguageModel:
    hidden, rank = c["hidden_size"], c.get("time_step_rank", "auto")
    options = _common(c) | {"dt_rank": None if rank == "auto" else rank}
    inner = c.get("intermediate_size", options["expand"] * hidden)
    options["expand"], rest = divmod(inner, hidden)  # published files contradict themselves: this is what they mean
    if rest:
        raise OptionError(f"intermediate_size = {inner} is no multiple of hidden_size = {hidden}.")
    if c["model_type"] == "falcon_mamba":
        options["norm_epsilon"] = c.get("mixer_rms_eps", 1e-6)
    return MambaLM(c["vocab_size"], hidden, c["num_hidden_layers"], options, tied, c.get("layer_norm_epsilon", 1e-5))


def _mamba2(c: dict[str, Any], tied: bool) -> LanguageModel:
    hidden, epsilon = c["hidden_size"], c.get("layer_norm_epsilon", 1e-5)
    limit = c.get("time_step_limit", (0.0, math.inf))
    options = _common(c, d_state=128) | {
        "head_dim": c["head_dim"], "n_groups": c.get("n_groups", 8), "epsilon": epsilon,
        "dt_limit": [_number(d) for d in limit] if isinstance(limit, list) else limit,
    }  # fmt: skip
    inner = options["expand"] * hidden
    if c.get("num_heads", inner // options["head_dim"]) * options["head_dim"] != inner:
        raise OptionError(
            f"num_heads * head_dim = {c['num_heads']} * {options['head_dim']} is not expand * hidden_size = {inner}."
        )
    return Mamba2LM(c["vocab_size"], hidden, c["num_hidden_layers"], options, tied, epsilon)


_MODELS: dict[Any, Callable[[dict[str, Any], bool], LanguageModel]] = {
    "mamba": _mamba, "mamba2": _mamba2, "falcon_mamba": _mamba
}  # fmt: skip


def _check_entries(c: dict[str, Any]) -> None:
    """Raise for entries that are of the wrong type, or that no model can have."""

    def number(x: Any, *kinds: type) -> bool:
        return isinstance(x, kinds) and not isinstance(x, bool)

    for name in _SIZES:
        if name in c and not (number(c[name], int) and 1 <= c[name] < 2**31):
            raise OptionError(f"{name} = {c[name]!r} must be a whole number of at least 1.")
    for name in _NUMBERS:
        if name in c and not (number(c[name], int, float) and 0 < c[name] < 1e6):
            raise OptionError(f"{name} = {c[name]!r} must be a positive number.")
    for name in _FLAGS:
        if name in c and not isinstance(c[name], bool):
            raise OptionError(f"{name} = {c[name]!r} must be true or false.")
    rank = c.get("time_step_rank", "auto")
    if rank != "auto" and not (number(rank, int) and 1 <= rank < 2**31):
        raise OptionError(f"time_step_rank = {rank!r} must be 'auto' or a whole number of at least 1.")
    if c.get("hidden_act", "silu") not in ("silu", "swish"):
        raise OptionError(f"hidden_act = {c['hidden_act']!r} must be 'silu'.")


def _common(c: dict[str, Any], d_state: int = 16) -> dict[str, Any]:
    return {
        "d_state": c.get("state_size", d_state), "d_conv": c.get("conv_kernel", 4), "expand": c.get("expand", 2),
        "dt_min": c.get("time_step_min", 1e-3), "dt_max": c.get("time_step_max", 1e-1),
        "dt_floor": c.get("time_step_floor", 1e-4), "conv_bias": c.get("use_conv_bias", True),
        "bias": c.get("use_bias", False),
    }  # fmt: skip


def _config_of(model: LanguageModel) -> dict[str, Any]:
    """config.json of a model."""
    block: Any = model.block()
    config = {
        "vocab_size": model.vocab_size, "hidden_size": model.d_model, "num_hidden_layers": model.n_layers,
        "tie_word_embeddings": model.tied, "layer_norm_epsilon": model.epsilon, "hidden_act": "silu",
        "torch_dtype": "float32",
    }  # fmt: skip
    if not isinstance(model, MambaLM | Mamba2LM):
        raise OptionError(f"save_pretrained: transformers has no {model.name}. Use save, which every model has.")
    config |= {
        "state_size": block.d_state, "conv_kernel": block.d_conv, "expand": block.expand, "use_bias": block.bias,
        "use_conv_bias": block.conv_bias, "time_step_min": block.dt_min, "time_step_max": block.dt_max,
        "time_step_floor": block.dt_floor,
    }  # fmt: skip
    if isinstance(model, Mamba2LM):
        if block.epsilon != model.epsilon:
            raise OptionError(
                f"save_pretrained: the format has one epsilon for all norms, but the model has {model.epsilon} and its "
                f"blocks have {block.epsilon}."
            )
        config |= {
            "model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "num_heads": block.heads,
            "head_dim": block.head_dim, "n_groups": block.n_groups, "chunk_size": block.chunk,
            "time_step_rank": math.ceil(model.d_model / 16),
        }  # fmt: skip
        return config if block.dt_limit == (0.0, math.inf) else config | {"time_step_limit": list(block.dt_limit)}
    if block.discretization != "mamba":
        raise OptionError(f"save_pretrained: the format knows no discretization {block.discretization!r}.")
    config |= {"time_step_rank": block.rank, "intermediate_size": block.inner}
    if block.norm_epsilon is None:
        return config | {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    return config | {
        "model_type": "falcon_mamba", "architectures": ["FalconMambaForCausalLM"], "mixer_rms_eps": block.norm_epsilon
    }  # fmt: skip


def their_name(name: str) -> str:
    """The name of one of our parameters in a checkpoint."""
    model, block, own = name.rpartition(_BLOCK)
    for ours, theirs in _RENAMED.items():
        if block and own.startswith(ours):
            return f"{model}{block}{theirs}{own[len(ours) :]}"
    return name


def _is_tied(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> bool:
    """What config.json says; where it is silent, whether the head is missing or is the embedding."""
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    head, table = tensors.get(_HEAD), tensors.get(_TABLE)
    return head is None or (table is not None and np.array_equal(head, table))


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a directory by their names in newer checkpoints."""
    found = _stored(folder)
    if _OLD_TABLE in found and _TABLE not in found:
        found[_TABLE] = found.pop(_OLD_TABLE)
    return found


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


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"from_pretrained: {os.fspath(path)!r} cannot be read ({error}).") from error
    if not isinstance(found, dict):
        raise OptionError(f"from_pretrained: {os.fspath(path)!r} holds no object.")
    return found


def _number(x: Any) -> Any:
    """A number of config.json; newer versions write infinity as {"__float__": "Infinity"}."""
    return math.inf if x == {"__float__": "Infinity"} or (isinstance(x, int) and x > 2**53) else x


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
