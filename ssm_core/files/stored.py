"""Tensors of safetensors files, read one at a time and in pieces: the result and a piece of it are all that is held."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.errors import DomainError, DTypeError, MissingPackageError, OptionError
from .._arrays.library import Array, Namespace

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_PIECE = 2**18  # numbers


@dataclass(frozen=True)
class Stored:
    """A tensor where it lies in its file; `turned` is the transpose of what lies there, put together as a whole.

    Numbers that are not finite are refused where they are read by an operation with a name.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    turned: bool = False
    operation: str = ""

    def pieces(self) -> Iterator[np.ndarray]:
        """Its numbers in their order, some at a time; bfloat16, which NumPy has not, as the same float32."""
        for x in self._lying():
            if self.operation and not np.isfinite(x).all():
                raise DomainError(
                    f"{self.operation}: {self.name} of {self.path.name} holds numbers that are not finite: "
                    f"{int((~np.isfinite(x)).sum())} of {x.size} read, the first of them {x[~np.isfinite(x)][0]}."
                )
            yield x

    def _lying(self) -> Iterator[np.ndarray]:
        if self.turned:
            pieces = list(replace(self, turned=False, operation="").pieces())
            yield np.concatenate(pieces).reshape(self.shape[::-1]).T.reshape(-1)
            return
        kind, size = np.dtype(_DTYPES[self.dtype]), math.prod(self.shape)
        with self.path.open("rb") as file:
            file.seek(self.start)
            for first in range(0, size, _PIECE):
                x = np.fromfile(file, kind, min(_PIECE, size - first))
                yield (x.astype(np.uint32) << 16).view(np.float32) if self.dtype == "BF16" else x

    def array(self, xp: Namespace, dtype: Any) -> Array:
        """The tensor as an array of xp, put together on the host where NumPy knows the dtype."""
        try:
            host = np.empty(self.shape, np.dtype(dtype))
        except TypeError:  # a dtype of another library alone
            pieces = [xp.asarray(x, dtype=dtype) for x in self.pieces()] or [xp.zeros((0,), dtype=dtype)]
            return xp.reshape(pieces[0] if len(pieces) == 1 else xp.concat(pieces), self.shape)
        flat, first = host.reshape(-1), 0
        for piece in self.pieces():
            flat[first : first + len(piece)] = piece
            first += len(piece)
        return xp.asarray(host)

    def equals(self, other: Stored) -> bool:
        """Whether the two hold the same numbers."""
        pairs = zip(self.pieces(), other.pieces(), strict=True)
        return self.shape == other.shape and all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)

    @property
    def T(self) -> Stored:
        """The transpose of a matrix."""
        return replace(self, shape=self.shape[::-1], turned=not self.turned)

    def rows(self, first: int, count: int) -> Stored:
        """So many rows of what lies there, from the first on."""
        size = math.prod(self.shape[1:]) * np.dtype(_DTYPES[self.dtype]).itemsize
        return replace(self, shape=(count, *self.shape[1:]), start=self.start + first * size)

    def reshaped(self, shape: tuple[int, ...]) -> Stored:
        """The same numbers in another shape."""
        return replace(self, shape=shape)


def stored(operation: str, path: Path) -> dict[str, Stored]:
    """The tensors of one file by their names; raises unless it is a whole file of floating numbers."""
    safetensors = load_safetensors(operation)
    try:
        with safetensors.safe_open(path, framework="numpy"):  # checks the header against the size of the file
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise OptionError(f"{operation}: {str(path)!r} is no readable safetensors file ({error}).") from error
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise DTypeError(f"{operation}: {name} of {path.name} has dtype {entry['dtype']}, but must be floating.")
    begin = 8 + length
    return {
        name: Stored(path, name, e["dtype"], tuple(e["shape"]), begin + e["data_offsets"][0])
        for name, e in header.items()
    }


def load_safetensors(operation: str) -> Any:
    """The package, with its functions for NumPy."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackageError(
            f"{operation}: safetensors is not installed. Install it: pip install safetensors."
        ) from error
    return safetensors
