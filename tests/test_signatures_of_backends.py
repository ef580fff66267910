"""Fused implementations take what the generic body of their name takes: by position as many, by keyword the same."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import ssm_core
from ssm_core._arrays.dispatch import dispatched

_CALL = dispatched(lambda: None).__code__


def bodies() -> Iterator[tuple[str, Any]]:
    """The generic bodies of the core, by the names of their fused implementations."""
    for info in pkgutil.walk_packages(ssm_core.__path__, "ssm_core."):
        if not info.name.startswith(("ssm_core.backends", "ssm_core.adapters", "ssm_core.__main__")):
            module = importlib.import_module(info.name)
            for name, f in vars(module).items():
                if getattr(f, "__code__", None) is _CALL and f.__module__ == info.name:
                    yield name.lstrip("_"), f.__wrapped__


def taken(function: Any) -> tuple[int, set[str]]:
    """How many arguments by position, and which by keyword."""
    parameters = inspect.signature(function).parameters.values()
    by_keyword = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return len(parameters) - len(by_keyword), by_keyword


BODIES = dict(bodies())


@pytest.mark.parametrize(
    "place", ["backends.numpy", "backends.torch", "backends.jax", "adapters.torch.onnx_operators"], ids=str
)
def test_fused_implementations_take_what_their_body_takes(place: str):
    if place != "backends.numpy":
        pytest.importorskip(place.split(".")[1])
    module = importlib.import_module(f"ssm_core.{place}")
    found = {name: f for name, f in vars(module).items() if name in BODIES and inspect.isroutine(f)}
    assert found
    assert {name: taken(f) for name, f in found.items()} == {name: taken(BODIES[name]) for name in found}
