"""What users get wrong in layers: the error names the layer and the cause, and says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ssm_core import OptionError, layers

from .cases import refusals
from .cases.layer import WholeCases
from .cases.layers import LAYERS
from .cases.refusals import Row, refused
from .cases.refusals_whole import of_whole


def rows(of: Callable[[Any], list[Row]]) -> list[Any]:
    """(name of the layer, call, error, message) for every row of every layer."""
    return [
        pytest.param(name, *row, id=f"{name}-{i}-{row[2][:40]}")
        for name, cases in LAYERS.items()
        for i, row in enumerate(of(cases))
    ]


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(refusals.own))
def test_options_of_its_own(operation: str, call: Callable[[], Any], error: type, message: str):
    refused(operation, call, error, message)


def of_the_kind(cases: Any) -> list[Row]:
    return of_whole(cases) if isinstance(cases, WholeCases) else refusals.of_the_kind(cases)


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(of_the_kind))
def test_what_layers_of_a_kind_refuse(operation: str, call: Callable[[], Any], error: type, message: str):
    refused(operation, call, error, message)


@pytest.mark.parametrize("name", LAYERS)
def test_options_that_it_does_not_have(name: str):
    with pytest.raises(OptionError, match=r"^layers.make: .*invented.*options: "):
        layers.make(name, {"d_model": 4, **LAYERS[name].least, "invented": 1})
