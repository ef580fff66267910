"""The options of definitions as values that do not change: hashable, equal to what a weight file gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from .._arrays.errors import OptionError
from .._arrays.library import is_array
from .._arrays.numbers import flag, plain


class Options(Mapping[str, Any]):
    """Options by name, in the order of their names: equal to the dict that they were made of, and hashable.

    >>> from ssm_core.layers.options import Options
    >>> options = Options({"head_dim": 4, "dt_limit": [0.01, 0.5]})
    >>> options
    {'dt_limit': (0.01, 0.5), 'head_dim': 4}
    >>> options == {"head_dim": 4, "dt_limit": (0.01, 0.5)}, hash(options) == hash(Options(options))
    (True, True)
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._items = tuple((name, frozen(given[name])) for name in sorted(given, key=str))

    def __getitem__(self, name: str) -> Any:
        return dict(self._items)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return repr(dict(self._items))


def frozen(x: Any) -> Any:
    """The same value for ever: mappings as Options, lists as tuples, numbers of arrays' libraries as Python's.

    JSON has one kind of sequence and of number, so a definition equals what a weight file gives back.
    """
    if isinstance(x, Mapping):
        return Options(x)
    if isinstance(x, list | tuple):
        return tuple(map(frozen, x))
    return plain(x)


def thawed(x: Any) -> Any:
    """The inverse: dicts, which JSON can write."""
    if isinstance(x, Options):
        return {name: thawed(value) for name, value in x._items}
    return tuple(map(thawed, x)) if isinstance(x, tuple) else x


def settle(definition: Any) -> None:
    """Freeze every option of a definition, a frozen dataclass; raise OptionError for what its annotation rules out.

    Those declared `bool` must be flags, those declared `int` or `float` none. What numbers are good is the
    definition's own to check.
    """
    name = type(definition).__name__
    for f in fields(definition):
        given = getattr(definition, f.name)
        value, declared = frozen(given), f.type if isinstance(f.type, str) else getattr(f.type, "__name__", "")
        if is_array(value):
            raise OptionError(f"{name}: {f.name} is an array {tuple(value.shape)}, but options are plain values.")
        if declared == "bool":
            flag(name, **{f.name: value})
        elif declared.partition(" ")[0] in ("int", "float") and isinstance(value, bool):
            wanted = "a whole number" if declared.startswith("int") else "a number"
            raise OptionError(f"{name}: {f.name} = {value!r} must be {wanted}, not a flag.")
        object.__setattr__(definition, f.name, value)
