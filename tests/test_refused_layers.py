"""What users get wrong in models and in names of layers: the error names the operation, argument and cause.

What single layers refuse is in the records of the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from wrong import (
    ENDS,
    LAST,
    MODEL,
    MODEL_PARAMS,
    MODEL_STATE,
    STATE,
    STRICT,
    Row,
    SequenceModel,
    Z,
    check_refused,
    rows,
    two,
)

from ssm_core import DTypeError, MixedArraysError, OptionError, ShapeError, SSMError, layers

pytestmark = pytest.mark.usefixtures("quick_compilation")


LAYERS: dict[str, list[Row]] = {
    "SequenceModel": [
        *[
            (
                lambda o=options: SequenceModel(**{"d_input": 1, "d_output": 1, **o}),
                OptionError,
                f"{name} = .*whole number",
            )
            for name in ("d_input", "d_output", "d_model", "n_layers")
            for options in ({name: 0}, {name: 1.0}, {name: True}, {name: None})
        ],
        (lambda: SequenceModel(1, 1, pool="max"), OptionError, "unknown pool 'max'. Known: 'mean', 'last', None"),
        (lambda: SequenceModel(1, 1, dropout=1), OptionError, r"dropout = 1 must lie in \[0, 1\)"),
        (lambda: SequenceModel(1, 1, dropout=-0.1), OptionError, "dropout = -0.1"),
        (lambda: SequenceModel(1, 1, dropout="a"), OptionError, "dropout = 'a'"),
        (lambda: SequenceModel(1, 1, layer_options=None), OptionError, "layer_options"),
        (lambda: SequenceModel(1, 1, layer_options={"d_model": 3}), OptionError, "d_model"),
        (lambda: SequenceModel(3, 2, layer="Mamba", layer_options={"d_model": 4}), OptionError, "d_model is an option"),
        (lambda: SequenceModel(1, 1, layer_options={"output": None, "channels": 2}), OptionError, "output|channels"),
        (lambda: MODEL.apply(MODEL_PARAMS, None), DTypeError, "u|no array"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z[0]), ShapeError, r"u must be \(B, L, 3\) \(u: \(6, 3\)\)"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z[..., :2]), ShapeError, r"u: \(2, 6, 2\)"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z.astype(int)), DTypeError, "u has dtype int64"),
        (lambda: MODEL.apply(MODEL_PARAMS, STRICT[..., :3]), MixedArraysError, "u: array_api_strict"),
        (lambda: MODEL.apply({}, Z), SSMError, r"encoder\.weight"),
        (lambda: MODEL.apply({**MODEL_PARAMS, "head.bias": two}, Z, state=()), SSMError, "state"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, state=MODEL_STATE[:1]), SSMError, "state"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, state=0.0), SSMError, "state"),
        (lambda: MODEL.step(MODEL_PARAMS, Z[:, 0], None), SSMError, "state"),
        (lambda: MODEL.step(MODEL_PARAMS, Z[:, 0], MODEL_STATE[:1]), SSMError, "state"),
        (
            lambda: MODEL.step(MODEL_PARAMS, Z, MODEL_STATE),
            ShapeError,
            r"u(_t)? must be \(B, 3\) .*: \(2, 6, 3\)\)",
        ),
        (lambda: MODEL.step(MODEL_PARAMS, 1.0, MODEL_STATE), DTypeError, "u_t|no array"),
        (lambda: MODEL.step(MODEL_PARAMS, Z[:, 0].astype(int), MODEL_STATE), DTypeError, "has dtype int64"),
        (lambda: MODEL.step(MODEL_PARAMS, STRICT[:, 0, :3], MODEL_STATE), MixedArraysError, "array_api_strict"),
        (lambda: MODEL.initial_state(MODEL_PARAMS, -1), OptionError, "batch"),
        (lambda: MODEL.initial_state(MODEL_PARAMS, 2.5), OptionError, "batch"),
        (lambda: MODEL.initial_state({}, 2), OptionError, r"parameters are missing: blocks\.0"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z[:, :0]), SSMError, "pool|length|step"),
        (lambda: LAST.apply(MODEL_PARAMS, Z[:, :0]), SSMError, "pool|length|step"),
    ],
    "(layers.make|S4D|SequenceModel)": [  # a model hands these to its layers
        (lambda: SequenceModel(1, 1, layer="S9"), OptionError, "unknown layer 'S9'. Known: 'DLinOSS'"),
        (lambda: SequenceModel(1, 1, layer=None), OptionError, "unknown layer None"),
        (lambda: SequenceModel(1, 1, layer="SequenceModel"), OptionError, "layer.*SequenceModel"),
        (lambda: SequenceModel(1, 1, layer_options={"invented": 1}), OptionError, "invented"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, state=STATE), SSMError, "state"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, state=MODEL.initial_state(MODEL_PARAMS, 1)), ShapeError, "state must be"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, lengths=ENDS * 1.0), DTypeError, "lengths has dtype float64"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, lengths=[1, 6]), DTypeError, "lengths is a list"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, mode="fft"), OptionError, "unknown mode 'fft'"),
        (lambda: MODEL.apply(MODEL_PARAMS, Z, rate=-1), SSMError, "rate = -1"),
        (lambda: MODEL.step(MODEL_PARAMS, Z[:, 0], MODEL.initial_state(MODEL_PARAMS, 1)), ShapeError, "state must be"),
    ],
    "layers.make": [
        (lambda: layers.make("S9", {}), OptionError, "unknown layer 'S9'. Known: 'DLinOSS'"),
        (lambda: layers.make(None, {}), OptionError, "unknown layer None"),
        (lambda: layers.make(["S4D"], {}), OptionError, "unknown layer"),
        (lambda: layers.make("S4D", {}), OptionError, "d_model"),
        (lambda: layers.make("S4D", {"d_model": 4, "invented": 1}), OptionError, "invented"),
        (lambda: layers.make("S4D", None), OptionError, "options"),
        (lambda: layers.make("DSS", {"d_model": 4}), OptionError, "length"),
        *[
            (lambda n=name, o=option: layers.make(n, {"d_model": 4, o: 1}), OptionError, f"{option}.*options: ")
            for name, option in (
                ("S4", "trainable_B"),
                ("LRU", "dt_min"),
                ("S5", "n_ssm"),
                ("LinOSS", "channels"),
                ("Mamba", "head_dim"),
                ("Mamba2", "dt_rank"),
                ("Mamba3", "d_conv"),
            )
        ],
        (lambda: SequenceModel(3, 2, 4, layer="Mamba", layer_options={"chunk": 3}), OptionError, "Mamba .*chunk"),
        (lambda: SequenceModel(3, 2, 4, layer="Mamba4"), OptionError, "unknown layer 'Mamba4'. Known: .*'Mamba3'"),
    ],
}


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(LAYERS))
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)
