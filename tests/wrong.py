"""Wrong inputs, small systems and layers to try them on, and the test of a table of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_strict
import numpy as np
import pytest

from conformance.cases.refusals import Row
from conformance.cases.refusals import refused as check_refused
from ssm_core import DPLR, Dense, Diagonal, Rational, layers, models

__all__ = ["Row", "check_refused"]  # of the conformance suite, for the tables here

one, two, ten, nan = np.ones(1), np.ones(2), np.ones(10), np.full(2, np.nan)
eye = np.eye(2)
whole, text, objects = np.ones(2, int), np.asarray(["a", "b"]), np.asarray([1, 2], object)
strict = array_api_strict.ones(2)  # an array of another library, without PyTorch or JAX at hand
elsewhere = array_api_strict.ones(2, device=array_api_strict.Device("device1"))
off, reset5 = np.zeros(10, bool), np.zeros(5, bool)

continuous = Diagonal(-two, two, two)
discrete = Diagonal(two / 2, two, two, discrete=True)
dense = Dense(-eye, two, two)
several = Diagonal(two / 2, np.ones((2, 3)), np.ones((4, 2)), discrete=True)
dplr = DPLR(-two, np.ones((1, 2)), np.ones((1, 2)), two, two)
rational = Rational(two, two)


def with_(**fields: Any) -> Diagonal:
    return replace(continuous, **fields)


S4D, SequenceModel = layers.S4D, models.SequenceModel
LAYER, BOTH = S4D(4, d_state=8), S4D(4, d_state=8, bidirectional=True)
MODEL = SequenceModel(3, 2, d_model=4, n_layers=2, layer_options={"d_state": 8})
LAST = replace(MODEL, pool="last")
PARAMS, BOTH_PARAMS, MODEL_PARAMS = (d.initial_parameters() for d in (LAYER, BOTH, MODEL))
U, Z = np.ones((2, 6, 4), np.float32), np.ones((2, 6, 3), np.float32)
STATE, MODEL_STATE = LAYER.initial_state(PARAMS, 2), MODEL.initial_state(MODEL_PARAMS, 2)
STRICT = array_api_strict.ones((2, 6, 4))
ENDS, RESET = np.asarray([1, 6]), np.zeros((2, 6), bool)


def rows(tables: dict[str, list[Row]]) -> list[Any]:
    """A parameter set (operation, call, error, message) for every row of the tables."""
    return [
        pytest.param(operation, call, error, message, id=f"{operation}-{i}-{message[:40]}")
        for operation, cases in tables.items()
        for i, (call, error, message) in enumerate(cases)
    ]


def one_of_each(found: list[Row]) -> list[Row]:
    """The first row of every kind of error: for what shares its checks with another, which tries every row."""
    return list({error: (call, error, message) for call, error, message in reversed(found)}.values())
