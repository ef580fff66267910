"""Tensors by the names of another implementation: those of one layer, as NumPy arrays, in the shapes that they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ... import layers
from ..._arrays.errors import DTypeError, OptionError, ShapeError
from ..._arrays.library import computable, is_array, is_half, namespace, to_numpy
from ..weights import check_parameters

Imported = tuple[layers.Layer, dict[str, np.ndarray]]
Tensors = dict[str, Any]


class Original:
    """The tensors of one layer of another implementation.

    axes   how many axes a tensor of that name may have
    inner  a part that may stand before the names, but before those of `outer`
    outer  names beside a layer's inner part
    added  names that may have been written by hand, with or without the inner part
    """

    def __init__(
        self,
        operation: str,
        tensors: Any,
        axes: Mapping[str, tuple[int, ...]],
        *,
        inner: str = "",
        outer: tuple[str, ...] = (),
        added: tuple[str, ...] = (),
    ) -> None:
        if not isinstance(tensors, dict):
            raise DTypeError(f"{operation}: tensors is a {type(tensors).__name__}, not a dict of arrays by name.")
        self.operation = operation
        self.found: dict[str, np.ndarray] = {}
        prefixes: dict[tuple[bool, bool], str] = {}
        unknown = []
        for name, x in tensors.items():
            if not is_array(x):
                raise DTypeError(f"{operation}: {name} is a {type(x).__name__}, not an array.")
            prefix, plain = split(str(name), axes)
            place = (plain in outer, plain in added)
            if not plain:
                unknown.append(str(name))
            elif prefix != prefixes.setdefault(place, prefix):
                raise several(operation, prefixes[place], prefix)
            else:
                self.found[plain] = _plain(operation, str(name), x, axes[plain])
        within = prefixes.get((False, False), "")
        for (beside, by_hand), prefix in prefixes.items():
            whole = prefix if not beside and not by_hand else prefix + inner
            if within not in (prefix, whole):
                raise several(operation, within, prefix)
        self.unknown = [name.removeprefix(within) for name in unknown]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.found[name]

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def check_names(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raise unless the tensors are these."""
        required = set(required)
        missing = sorted(required - self.found.keys())
        surplus = sorted([*self.unknown, *(self.found.keys() - required - set(optional))])
        if missing or surplus:
            raise OptionError(f"{self.operation}: tensors of another layer: missing {missing}, surplus {surplus}.")

    def layer(self, kind: type[Any], *sizes: int, **options: Any) -> Any:
        """The definition that the tensors need; raises for sizes that no layer has."""
        try:
            return kind(*sizes, **options)
        except OptionError as error:
            shapes = ", ".join(f"{name}: {x.shape}" for name, x in self.found.items())
            raise OptionError(f"{self.operation}: no layer has such tensors ({shapes}): {error}") from error

    def imported(self, layer: layers.Layer, params: dict[str, np.ndarray]) -> Imported:
        """The parameters in the order of the layer, contiguous; raises where one has another shape."""
        check_parameters(self.operation, layer, params)
        return layer, {p.name: np.ascontiguousarray(params[p.name]) for p in layer.parameters()}

    def wrong(self, name: str, wanted: str) -> ShapeError:
        """The error for a tensor whose shape does not fit the others."""
        return ShapeError(f"{self.operation}: {name} is {self[name].shape}, but must be {wanted}.")

    def copied(self, name: str, x: np.ndarray, copies: int) -> np.ndarray:
        """x (S, ...) repeated to (copies, ...)."""
        if len(x) == 0 or copies % len(x):
            raise self.wrong(name, f"of a number of systems that divides {copies}")
        return np.tile(x, (copies // len(x), *(1,) * (x.ndim - 1)))

    def in_two(self, name: str, x: np.ndarray, ours: str) -> dict[str, np.ndarray]:
        """<ours>_re and <ours>_im of complex numbers, which have a last axis of 2."""
        if x.shape[-1] != 2:
            raise self.wrong(name, "of real and imaginary parts (..., 2)")
        return {f"{ours}_re": x[..., 0], f"{ours}_im": x[..., 1]}


def split(name: str, known: Iterable[str]) -> tuple[str, str]:
    """What stands before a known name, and the longest known name; an empty one where it ends in none."""
    ends = [plain for plain in known if f".{name}".endswith(f".{plain}")]
    plain = max(ends, key=len, default="")
    return name[: len(name) - len(plain)], plain


def several(operation: str, first: str, second: str) -> OptionError:
    one = first or second
    return OptionError(
        f"{operation}: tensors of several layers, by the prefixes {first!r} and {second!r}. Pass those of one: "
        f"{{name: x for name, x in tensors.items() if name.startswith({one!r})}}."
    )


def wide(x: Any) -> np.ndarray:
    """x in NumPy, half precision as float32."""
    if not is_array(x):
        return np.asarray(x)
    return np.asarray(to_numpy(computable(x, namespace("importers", x=x)) if is_half(x) else x))


def _plain(operation: str, name: str, x: Any, axes: tuple[int, ...]) -> np.ndarray:
    """x in NumPy, half precision as float32; raises for another number of axes, or none in one."""
    found = wide(x)
    if found.ndim not in axes or found.size == 0:
        raise ShapeError(f"{operation}: {name} is {found.shape}, but must have {' or '.join(map(str, axes))} axes.")
    return found
