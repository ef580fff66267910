"""Layers as modules of a framework, `adapters.torch.S4D`, `adapters.flax.S4D` or `adapters.equinox.S4D`, which
loads at first use; and `adapters.transformers`, for the models of Hugging Face's transformers."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from ssm_core._arrays.errors import MissingAttributeError, MissingPackageError

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from . import equinox, flax, torch, transformers

__all__ = ["equinox", "flax", "torch", "transformers"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        # Not `from . import ...`, which asks this very function first, for ever.
        try:
            return importlib.import_module(f"ssm_core.adapters.{name}")
        except MissingPackageError as error:
            raise MissingAttributeError(str(error)) from error
    raise AttributeError(f"module 'ssm_core.adapters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if __name__ == "adapters":
    # From a checkout this folder can be imported under its bare name too. A second copy of each module would
    # mean two classes of one name, two pickle paths and two registrations; so the bare names are aliases:
    # importing `adapters.x` puts `ssm_core.adapters.x` in its place.
    import importlib.abc
    import importlib.util

    class _Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
            return importlib.util.spec_from_loader(name, self) if name.startswith("adapters.") else None

        def exec_module(self, module: ModuleType) -> None:
            sys.modules[module.__name__] = importlib.import_module(f"ssm_core.{module.__name__}")

    sys.meta_path.insert(0, _Alias())
    sys.modules[__name__] = importlib.import_module("ssm_core.adapters")
