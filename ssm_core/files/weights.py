"""Weights in safetensors files: the same file for every framework, with the layer's options in its metadata."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from .._arrays.errors import DTypeError, MissingFileError, MissingPackageError, OptionError, ShapeError
from .._arrays.library import computable, convert, is_array, namespace, real_floating, resolve, to_numpy
from ..layers import Layer, Parameters, make

KEY = "ssm_core"  # of the metadata


def save(layer: Layer, params: Parameters, path: str | os.PathLike[str]) -> None:
    """Write a layer or model: its parameters (at least float32, torch's names and layouts) and its options.

    Raises OptionError for missing or surplus parameters, ShapeError for a wrong shape, MissingPackageError without
    safetensors.

    >>> import numpy, ssm_core, tempfile, pathlib
    >>> layer = ssm_core.layers.S4D(d_model=2, d_state=4)
    >>> path = pathlib.Path(tempfile.mkdtemp(), "s4d.safetensors")
    >>> ssm_core.save(layer, layer.initial_parameters(), path)
    >>> ssm_core.load(path)[0] == layer
    True
    """
    if not isinstance(layer, Layer):
        raise DTypeError(f"save: {layer!r} is no layer. Pass a definition, such as ssm_core.layers.S4D(d_model=4).")
    check_parameters("save", layer, params)
    xp = namespace("save", **params)
    # A transposed view would be written with the wrong layout.
    tensors = {name: np.ascontiguousarray(to_numpy(computable(p, xp))) for name, p in params.items()}
    metadata = {KEY: json.dumps({"layer": layer.name, "options": layer.options()}), "format": "pt"}
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise MissingFileError(f"save: the folder {folder!r} is not there. Make it first: os.makedirs({folder!r}).")
    _safetensors().save_file(tensors, os.fspath(path), metadata=metadata)


def load(path: str | os.PathLike[str], *, xp: Any = None) -> tuple[Layer, Parameters]:
    """The layer and the parameters of a file, as arrays of xp (a namespace or its name; NumPy if None).

    Raises OptionError where the file is not one of `save`, or holds missing or surplus parameters; ShapeError for a
    wrong shape; MissingFileError for no file; MissingPackageError without safetensors. For an example see `save`.
    """
    library = resolve(xp, "load")
    layer, tensors = read(path)
    return layer, {name: convert(x, library) for name, x in tensors.items()}


def read(path: str | os.PathLike[str]) -> tuple[Layer, dict[str, np.ndarray]]:
    """The layer and its checked parameters, in NumPy, at least float32."""
    safetensors = _safetensors()
    if not os.path.isfile(path):
        found = "is a folder, which from_pretrained reads" if os.path.isdir(path) else "is not there"
        raise MissingFileError(f"load: the file {os.fspath(path)!r} {found} (looked in {os.getcwd()!r}).")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise OptionError(f"load: {os.fspath(path)!r} is no safetensors file ({error}).") from error
    if KEY not in metadata:
        raise OptionError(
            f"load: {os.fspath(path)!r} has no {KEY!r} entry in its metadata, so its layer is unknown. "
            "Files that ssm_core.save writes have one."
        )
    layer = _stored_layer(os.fspath(path), metadata[KEY])
    tensors = safetensors.load_file(os.fspath(path))
    check_parameters("load", layer, tensors)
    return layer, {name: x if x.dtype == np.float64 else np.asarray(x, np.float32) for name, x in tensors.items()}


def _stored_layer(path: str, entry: str) -> Layer:
    """The layer that a metadata entry describes; it may be of a foreign hand."""
    try:
        stored = json.loads(entry)
        return make(stored["layer"], _with_tuples(dict(stored["options"])))
    except (json.JSONDecodeError, TypeError, KeyError, ValueError) as error:
        raise OptionError(f"load: the {KEY!r} entry of {path!r} describes no layer: {error} ({entry}).") from error


def _with_tuples(option: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(option, dict):
        return {name: _with_tuples(x) for name, x in option.items()}
    return tuple(map(_with_tuples, option)) if isinstance(option, list) else option


def check_parameters(operation: str, layer: Layer, params: Parameters) -> None:
    """Raise unless params are exactly the parameters of the layer, in their shapes."""
    wanted = {p.name: p.shape for p in layer.parameters()}
    missing, surplus = sorted(wanted.keys() - params.keys()), sorted(params.keys() - wanted.keys())
    if missing or surplus:
        raise OptionError(f"{operation}: parameters of {layer.name}: missing {missing}, surplus {surplus}.")
    for name, shape in wanted.items():
        if not is_array(params[name]):
            raise DTypeError(f"{operation}: {name} is a {type(params[name]).__name__}, not an array.")
        real_floating(operation, **{name: params[name]})
        if tuple(params[name].shape) != shape:
            raise ShapeError(
                f"{operation}: {name} of {layer.name} is {tuple(params[name].shape)}, but must be {shape}."
            )


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackageError(
            "save, load: safetensors is not installed. Install it: pip install safetensors."
        ) from error
    return safetensors.numpy
