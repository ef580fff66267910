"""What users get wrong in the options and calls of layers: the error names the operation, argument and cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from wrong import (
    BOTH,
    BOTH_PARAMS,
    ENDS,
    LAST,
    LAYER,
    MODEL,
    MODEL_PARAMS,
    MODEL_STATE,
    PARAMS,
    REAL,
    REAL_PARAMS,
    RESET,
    S4D,
    SCALE,
    STATE,
    STRICT,
    Row,
    SequenceModel,
    U,
    Z,
    apply,
    both,
    check_refused,
    rows,
    two,
    without,
)

from ssm_core import DTypeError, MixedArraysError, OptionError, ShapeError, SSMError, layers

pytestmark = pytest.mark.usefixtures("quick_compilation")


LAYERS: dict[str, list[Row]] = {
    "S4D": [
        # options
        *[
            (lambda o=options: S4D(**{"d_model": 4, **o}), OptionError, f"{name} = .*whole number of at least 1")
            for name in ("d_model", "d_state", "channels")
            for options in ({name: 0}, {name: -1}, {name: 1.5}, {name: "4"}, {name: True}, {name: None})
        ],
        (lambda: S4D(4, d_state=7), OptionError, "d_state = 7 is odd, .* Use d_state=8, or real=True"),
        (lambda: S4D(4, init="legt"), OptionError, "unknown init 'legt'. Known: 'legs', 'lin'"),
        (lambda: S4D(4, init=["lin"]), OptionError, r"unknown init \['lin'\]"),
        (lambda: S4D(4, dt_min=0), OptionError, r"0 < dt_min <= dt_max \(dt_min: 0, dt_max: 0\.1\)"),
        (lambda: S4D(4, dt_min=1.0, dt_max=0.1), OptionError, "0 < dt_min <= dt_max"),
        (lambda: S4D(4, dt_min=np.nan), OptionError, "0 < dt_min <= dt_max"),
        (lambda: S4D(4, dt_max=np.inf), OptionError, "dt_max"),
        (lambda: S4D(4, dt_min="a"), OptionError, "dt_min"),
        (lambda: S4D(4, dt_max=None), OptionError, "dt_max"),
        (lambda: S4D(4, discretization="gbt"), OptionError, "unknown discretization 'gbt'. Known: 'zoh', 'bilinear'"),
        (lambda: S4D(4, discretization=None), OptionError, "unknown discretization None"),
        (lambda: S4D(4, real=True), OptionError, "real poles need init='real', not init='lin'"),
        (lambda: S4D(4, n_ssm=3), OptionError, "n_ssm = 3 must divide d_model = 4"),
        (lambda: S4D(4, n_ssm=0), OptionError, "n_ssm = 0 must divide"),
        (lambda: S4D(4, n_ssm=2.0), OptionError, "n_ssm = 2.0"),
        (lambda: S4D(4, n_ssm="a"), OptionError, "n_ssm = 'a'"),
        (lambda: S4D(4, n_ssm=True), OptionError, "n_ssm = True"),
        (
            lambda: S4D(4, activation="swish"),
            OptionError,
            "unknown activation 'swish'. Known: 'gelu', 'gelu_tanh",
        ),
        (lambda: S4D(4, activation=["gelu"]), OptionError, "unknown activation"),
        (
            lambda: S4D(4, output="mlp"),
            OptionError,
            "unknown output 'mlp'. Known: 'glu', 'half_glu', 'half_glu2', 'linear', None",
        ),
        # signals
        (lambda: apply(None), DTypeError, "u|no array"),
        (lambda: apply([[1.0]]), DTypeError, "u is a list"),
        (lambda: apply(U[0]), ShapeError, r"u must be \(B, L, 4\) \(u: \(6, 4\)\)"),
        (lambda: apply(U[..., :3]), ShapeError, r"u must be \(B, L, 4\) \(u: \(2, 6, 3\)\)"),
        (lambda: apply(U.astype(int)), DTypeError, "u has dtype int64"),
        (lambda: apply(U.astype(str)), DTypeError, "u has dtype <U"),
        (lambda: apply(U.astype(object)), DTypeError, "u has dtype object"),
        (lambda: apply(U + 0j), DTypeError, "u has dtype complex64, but must be real"),
        (lambda: apply(STRICT), MixedArraysError, r"libraries \(u: array_api_strict.*log_dt: numpy"),
        # parameters
        (lambda: apply(params={}), SSMError, "missing"),
        (lambda: apply(params=None), SSMError, "parameters|params"),
        (lambda: apply(params=without("D")), OptionError, "D"),
        (lambda: apply(params=without("C_re")), OptionError, "C_re"),
        (
            lambda: apply(params={**PARAMS, "log_dt": PARAMS["log_dt"].astype(int)}),
            DTypeError,
            "log_dt has dtype int64",
        ),
        (lambda: apply(params={**PARAMS, "log_dt": 1.0}), DTypeError, "log_dt is a float"),
        (lambda: apply(params={**PARAMS, "log_dt": None}), DTypeError, "log_dt is a NoneType"),
        (lambda: apply(params={**PARAMS, "D": STRICT}), MixedArraysError, "D: array_api_strict"),
        # states
        (
            lambda: apply(state=STATE[:1]),
            ShapeError,
            r"state must be \(2, 4, 4\) \(u: .*state: \(1, 4, 4\)\)",
        ),
        (lambda: apply(state=STATE[..., :2]), ShapeError, r"state: \(2, 4, 2\)"),
        (lambda: apply(state=STATE.real.astype(int)), DTypeError, "state has dtype int64"),
        (lambda: apply(state=STATE.real.astype(str)), DTypeError, "state has dtype <U"),
        (lambda: apply(state=0.0), DTypeError, "state is a float"),
        (lambda: apply(state=[STATE]), DTypeError, "state is a list"),
        (lambda: apply(state=STRICT[:, :4, :]), MixedArraysError, "state: array_api_strict"),
        (lambda: REAL.apply(REAL_PARAMS, U, state=np.ones((2, 4, 8), complex)), DTypeError, "state .*real"),
        # lengths, resets, rates, modes
        (lambda: apply(lengths=3), DTypeError, "lengths is a"),
        (lambda: apply(lengths=[1, 2]), DTypeError, "lengths is a list"),
        (
            lambda: apply(lengths=ENDS * 1.0),
            DTypeError,
            r"lengths has dtype float64.*integer.*u: \(2, 6, 4\)",
        ),
        (lambda: apply(lengths=np.arange(3)), ShapeError, r"lengths must be \(2,\) .*lengths: \(3,\)"),
        (lambda: both(lengths=ENDS * 1.0), DTypeError, "lengths has dtype float64"),
        (lambda: both(lengths=ENDS > 3), DTypeError, "lengths has dtype bool"),
        (
            lambda: apply(reset=RESET.astype(int)),
            DTypeError,
            r"reset has dtype int64.*bool.*u: \(2, 6, 4\)",
        ),
        (lambda: apply(reset=RESET[:, :5]), ShapeError, r"reset must be \(2, 6\) .*reset: \(2, 5\)"),
        (lambda: apply(reset=True), DTypeError, "reset is a bool"),
        (lambda: apply(reset=RESET, mode="conv"), OptionError, "'conv' cannot .* resets. Use mode='chunk'"),
        (lambda: apply(step_scale=SCALE[:, :5]), ShapeError, r"step_scale must be \(2, 6\) .*step_scale: \(2, 5\)"),
        (lambda: apply(step_scale=SCALE.astype(int)), DTypeError, r"step_scale has dtype int64 .*\(2, 6\)"),
        (lambda: apply(step_scale=2.0), DTypeError, "step_scale is a float"),
        (lambda: apply(step_scale=SCALE, mode="conv"), OptionError, "'conv' .*step_scale. Use mode='scan'"),
        *[
            (lambda r=rate, f=f: f(r), SSMError, "rate")
            for rate in (
                0,
                -1.0,
                np.nan,
                np.inf,
                "2",
                None,
                [2.0],
                1j,
                np.float32(-1),
                np.ones(3),
                np.ones((4, 4)),
            )
            for f in (
                lambda rate: apply(rate=rate),
                lambda rate: LAYER.stepper(PARAMS, rate=rate),
                lambda rate: LAYER.kernel(PARAMS, 3, rate=rate),
            )
        ],
        (lambda: apply(rate=0), SSMError, "rate = 0 must be positive: 2.0 means steps twice as long"),
        (lambda: apply(mode="fft"), OptionError, "unknown mode 'fft'. Known: 'auto', 'conv', 'chunk', 'scan'"),
        (lambda: apply(mode=None), OptionError, "unknown mode None"),
        (lambda: apply(U[:, :0], mode="fft"), OptionError, "unknown mode 'fft'"),
        # both directions
        *[
            (
                lambda o=options: both(**o),
                OptionError,
                "bidirectional layer .*no state, step, reset or step_scale",
            )
            for options in (
                {"state": STATE},
                {"return_state": True},
                {"reset": RESET},
                {"step_scale": SCALE},
                {"mode": "chunk"},
                {"mode": "scan"},
            )
        ],
        (lambda: both(mode="fft"), OptionError, "unknown mode 'fft'"),
        (lambda: BOTH.stepper(BOTH_PARAMS), OptionError, "bidirectional"),
        (lambda: BOTH.step(BOTH_PARAMS, U[:, 0], STATE), OptionError, "bidirectional"),
        (lambda: BOTH.initial_state(BOTH_PARAMS, 2), OptionError, "bidirectional"),
        # steps, states, kernels
        (lambda: LAYER.step(PARAMS, U[:, 0], STATE[:1]), ShapeError, r"state must be \(2, 4, 4\).*initial_state\(2\)"),
        (lambda: LAYER.step(PARAMS, U[:, 0], None), DTypeError, "state is a NoneType"),
        (lambda: LAYER.step(PARAMS, U[:, 0], 0.0), DTypeError, "state is a float"),
        (lambda: LAYER.step(PARAMS, U[:, 0], STATE.real.astype(int)), DTypeError, "state has dtype int64"),
        (lambda: LAYER.step(PARAMS, U[:, 0], STRICT[:, :4, :]), MixedArraysError, "state: array_api_strict"),
        (lambda: REAL.step(REAL_PARAMS, U[:, 0], np.ones((2, 4, 8), complex)), DTypeError, "state .*real"),
        (lambda: LAYER.step(PARAMS, U, STATE), ShapeError, r"u_t must be \(B, 4\) \(u_t: \(2, 6, 4\)\)"),
        (lambda: LAYER.step(PARAMS, U[0, 0], STATE), ShapeError, r"u_t: \(4,\)"),
        (lambda: LAYER.step(PARAMS, None, STATE), DTypeError, "u_t|no array"),
        (lambda: LAYER.step(PARAMS, 1.0, STATE), DTypeError, "u_t|no array"),
        (lambda: LAYER.step(PARAMS, [[1.0]], STATE), DTypeError, "u_t is a list"),
        (lambda: LAYER.step(PARAMS, U[:, 0].astype(int), STATE), DTypeError, "u_t has dtype int64"),
        (lambda: LAYER.step(PARAMS, U[:, 0].astype(str), STATE), DTypeError, "u_t has dtype <U"),
        (lambda: LAYER.step(PARAMS, U[:, 0] + 0j, STATE), DTypeError, "u_t has dtype complex64, but must be real"),
        (lambda: LAYER.step(PARAMS, STRICT[:, 0, :], STATE), MixedArraysError, "u_t: array_api_strict"),
        *[
            (lambda b=batch: LAYER.initial_state(PARAMS, b), OptionError, "batch")
            for batch in (-1, 2.0, "2", True, None)
        ],
        (lambda: LAYER.initial_state({}, 2), OptionError, r"parameters are missing: A_im, .*\(given: none\)"),
        (lambda: LAYER.initial_state(None, 2), DTypeError, "params is a NoneType"),
        (lambda: LAYER.stepper(None), DTypeError, "params is a NoneType"),
        (lambda: LAYER.kernel([], 2), DTypeError, "params is a list"),
        (lambda: apply(params={**PARAMS, "D": U[0, 0]}), ShapeError, r"D is \(4,\), but must be \(1, 4\)"),
        (lambda: apply(params={**PARAMS, "log_dt": U[0, 0, :3]}), ShapeError, r"log_dt is \(3,\), but must be \(4,\)"),
        (lambda: LAYER.stepper({}), SSMError, ""),
        (lambda: LAYER.stepper(without("D")), SSMError, "D"),
        (lambda: LAYER.kernel(PARAMS, 0), OptionError, "length = 0 must be at least 1"),
        (lambda: LAYER.kernel(PARAMS, -1), OptionError, "length = -1"),
        (lambda: LAYER.kernel(PARAMS, 2.5), OptionError, "length is 2.5"),
        (lambda: LAYER.kernel(PARAMS, True), OptionError, "length is True"),
        (lambda: LAYER.kernel({}, 3), SSMError, ""),
    ],
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
        (lambda: SequenceModel(1, 1, layer="S9"), OptionError, "unknown layer 'S9'. Known: 'DSS', 'LMU'"),
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
        (lambda: layers.make("S9", {}), OptionError, "unknown layer 'S9'. Known: 'DSS', 'LMU'"),
        (lambda: layers.make(None, {}), OptionError, "unknown layer None"),
        (lambda: layers.make(["S4D"], {}), OptionError, "unknown layer"),
        (lambda: layers.make("S4D", {}), OptionError, "d_model"),
        (lambda: layers.make("S4D", {"d_model": 4, "invented": 1}), OptionError, "invented"),
        (lambda: layers.make("S4D", None), OptionError, "options"),
    ],
}


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(LAYERS))
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)
