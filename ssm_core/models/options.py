"""Options of parts inside a definition: a mapping that does not change, so that the definition can be hashed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np


class Options(Mapping[str, Any]):
    """Options by name, in the order of their names: equal to the dict that they were made of, and hashable.

    >>> from ssm_core.models.options import Options
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
    """The same value for ever: mappings as Options, lists as tuples, NumPy's numbers as Python's.

    JSON has one kind of sequence and of number, so a definition equals what a weight file gives back.
    """
    if isinstance(x, Mapping):
        return Options(x)
    if isinstance(x, list | tuple):
        return tuple(map(frozen, x))
    return x.item() if isinstance(x, np.generic) else x


def plain(x: Any) -> Any:
    """The inverse: dicts, which JSON can write."""
    if isinstance(x, Options):
        return {name: plain(value) for name, value in x._items}
    return tuple(map(plain, x)) if isinstance(x, tuple) else x


def freeze(definition: Any) -> None:
    """Make every field of a frozen dataclass one that can be hashed."""
    for f in fields(definition):
        object.__setattr__(definition, f.name, frozen(getattr(definition, f.name)))
