"""Registers the systems as pytrees: the arrays that are there are leaves, names and flags are context."""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree as pytree

from ssm_core.systems import records


def register() -> None:
    for cls in records.CLASSES:
        _register(cls)


def _register(cls: type) -> None:
    def flatten(system: Any) -> tuple[list[Any], tuple[Any, ...]]:
        names = tuple(n for n in records.array_fields(cls) if getattr(system, n) is not None)
        flags = tuple((n, getattr(system, n)) for n in records.FLAGS if n in cls.__dataclass_fields__)  # type: ignore[attr-defined]
        return [getattr(system, n) for n in names], (names, flags)

    def unflatten(leaves: Any, context: Any) -> Any:
        names, flags = context
        return cls(**dict.fromkeys(records.array_fields(cls)) | dict(zip(names, leaves, strict=True)) | dict(flags))

    pytree.register_pytree_node(cls, flatten, unflatten, serialized_type_name=f"ssm_core.{cls.__name__}")
