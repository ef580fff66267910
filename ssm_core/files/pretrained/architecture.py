"""What an architecture is in the directories of Hugging Face: its entries of config.json, and its names of tensors.

Every other file of this folder but `directory` describes architectures and enters them with `registered`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..._arrays.errors import OptionError
from ...models import LanguageModel

Config = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """Both ways between a directory and a definition.

    model_type    in config.json
    definition    (config, whether the head is the embedding) -> the model; raises KeyError for an entry that lacks
    describes     whether a model is one of this architecture
    config        model -> its own entries of config.json; raises OptionError for what they cannot say
    their_name    our name of a parameter -> that of the tensor
    their_shape   (name of the tensor, our shape) -> its shape there, of as many numbers in the same order
    sizes         entries that are whole numbers of at least 1, where they are given
    numbers       entries that are positive numbers
    flags         entries that are true or false
    unsaid        options of the blocks that the format has no entry for; an entry of our own holds them
    other_names   tensors that have had another name: that name, and the one of today
    """

    model_type: str
    definition: Callable[[Config, bool], LanguageModel]
    describes: Callable[[LanguageModel], bool]
    config: Callable[[LanguageModel], Config]
    their_name: Callable[[str], str]
    their_shape: Callable[[str, tuple[int, ...]], tuple[int, ...]] = lambda name, shape: shape
    sizes: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    other_names: Mapping[str, str] = field(default_factory=dict)

    def check(self, config: Config) -> None:
        """Raise for entries that are of the wrong type, or that no model can have."""
        for name in (*_SIZES, *self.sizes):
            if name in config and not is_size(config[name]):
                raise OptionError(f"{name} = {config[name]!r} must be a whole number of at least 1.")
        for name in self.numbers:
            if name in config and not (_is_number(config[name], int, float) and 0 < config[name] < 1e6):
                raise OptionError(f"{name} = {config[name]!r} must be a positive number.")
        for name in (*_FLAGS, *self.flags):
            if name in config and not isinstance(config[name], bool):
                raise OptionError(f"{name} = {config[name]!r} must be true or false.")


_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers")  # of all architectures
_FLAGS = ("tie_word_embeddings",)

_ARCHITECTURES: dict[str, Architecture] = {}


def registered(architecture: Architecture) -> Architecture:
    """Enter an architecture, so that its directories are read and written."""
    _ARCHITECTURES[architecture.model_type] = architecture
    return architecture


def architectures() -> dict[str, Architecture]:
    """All by their model types: those that the files of this folder describe, and those entered elsewhere."""
    package = importlib.import_module(__package__ or "")
    for file in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(file.name)
    return dict(sorted(_ARCHITECTURES.items()))


def is_size(x: Any) -> bool:
    """Whether an entry can be a size."""
    return _is_number(x, int) and 1 <= x < 2**31


def _is_number(x: Any, *kinds: type) -> bool:
    return isinstance(x, kinds) and not isinstance(x, bool)
