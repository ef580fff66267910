"""What users get wrong in the layers of the S4 family: the error names the layer, the option and the cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from wrong import RESET, SCALE, STRICT, Row, U, check_refused, rows

from ssm_core import DTypeError, MixedArraysError, OptionError, ShapeError, SSMError, layers
from ssm_core.layers import DSS, LMU, LRU, S4, S5, SSM, LinOSS

pytestmark = pytest.mark.usefixtures("quick_compilation")

BAD_WHOLE = (0, -1, 1.5, "4", True, None)
SMALL: dict[str, Any] = {
    "S4": S4(4, d_state=8),
    "SSM": SSM(4, d_state=3),
    "LMU": LMU(4, d_state=3, theta=10),
    "DSS": DSS(4, length=6, d_state=8),
    "S5": S5(4, d_state=8),
    "LRU": LRU(4, d_state=8),
    "LinOSS": LinOSS(4, d_state=3),
}
STATES = {
    "S4": (2, 4, 4), "SSM": (2, 4, 3), "LMU": (2, 4, 3), "DSS": (2, 4, 4), "S5": (2, 4), "LRU": (2, 4),
    "LinOSS": (2, 6, 2),
}  # fmt: skip
REAL_STATES = ("SSM", "LMU", "LinOSS")
PARAMS = {name: layer.initial_parameters() for name, layer in SMALL.items()}


def apply(name: str, u: Any = U, **options: Any) -> Any:
    return SMALL[name].apply(PARAMS[name], u, **options)


def make(cls: Any, **options: Any) -> Any:
    """The layer with d_model and what else it cannot do without."""
    return cls(**({"d_model": 4} | ({"length": 6} if cls is DSS else {}) | options))


def whole(cls: Any, *names: str) -> list[Row]:
    """Options that must be whole numbers of at least 1."""
    return [
        (lambda o={name: value}: make(cls, **o), OptionError, f"{name} = .*whole number of at least 1")
        for name in names
        for value in BAD_WHOLE
    ]


def common(cls: Any) -> list[Row]:
    """What all layers around a system share: options, signals, parameters, states, masks, steps."""
    name = cls.__name__
    layer, params, state = SMALL[name], PARAMS[name], np.zeros(STATES[name], np.float32)
    first = next(iter(params))
    u_t = U[:, 0]
    found: list[Row] = [
        *whole(cls, "d_model", "d_state"),
        (lambda: make(cls, activation="swish"), OptionError, "unknown activation 'swish'. Known: 'gelu'"),
        (lambda: make(cls, activation=["gelu"]), OptionError, "unknown activation"),
        (
            lambda: make(cls, output="mlp"),
            OptionError,
            "unknown output 'mlp'. Known: 'glu', 'half_glu', 'half_glu2', 'linear'",
        ),
        (lambda: apply(name, None), DTypeError, "u|no array"),
        (lambda: apply(name, [[1.0]]), DTypeError, "u is a list"),
        (lambda: apply(name, U[0]), ShapeError, r"u must be \(B, L, 4\) \(u: \(6, 4\)\)"),
        (lambda: apply(name, U[..., :3]), ShapeError, r"u: \(2, 6, 3\)"),
        (lambda: apply(name, U.astype(int)), DTypeError, "u has dtype int64"),
        (lambda: apply(name, U + 0j), DTypeError, "u has dtype complex64, but must be real"),
        (lambda: apply(name, STRICT), MixedArraysError, "u: array_api_strict"),
        (lambda: layer.apply({}, U), OptionError, "parameters are missing: "),
        (lambda: layer.apply({**params, first: 1.0}, U), DTypeError, f"{first} is a float"),
        (lambda: layer.apply({**params, first: U[0, 0, :1]}, U), ShapeError, rf"{first} is \(1,\), but must be"),
        (lambda: apply(name, state=state[:1]), ShapeError, r"state must be \(2, "),
        (lambda: apply(name, state=state.astype(int)), DTypeError, "state has dtype int64"),
        (lambda: apply(name, state=0.0), DTypeError, "state is a float"),
        (lambda: apply(name, lengths=3), DTypeError, "lengths is a"),
        (lambda: apply(name, lengths=np.arange(3)), ShapeError, r"lengths must be \(2,\)"),
        (lambda: apply(name, lengths=np.asarray([1, 7])), SSMError, r"lengths must lie in \[0, 6\]"),
        (lambda: apply(name, reset=RESET[:, :5]), ShapeError, r"reset must be \(2, 6\)"),
        (lambda: apply(name, reset=RESET.astype(int)), DTypeError, "reset has dtype int64"),
        (lambda: apply(name, reset=RESET, mode="conv"), OptionError, "'conv' cannot .* resets. Use mode='chunk'"),
        (lambda: apply(name, mode="fft"), OptionError, "unknown mode 'fft'. Known: 'auto', 'conv', 'chunk', 'scan'"),
        (lambda: layer.step(params, u_t, state[:1]), ShapeError, r"state must be \(2, .*initial_state\(2\)"),
        (lambda: layer.step(params, u_t, None), DTypeError, "state is a NoneType"),
        (lambda: layer.step(params, U, state), ShapeError, r"u_t must be \(B, 4\) \(u_t: \(2, 6, 4\)\)"),
        (lambda: layer.step(params, u_t.astype(int), state), DTypeError, "u_t has dtype int64"),
        (lambda: layer.initial_state(params, -1), OptionError, "batch"),
        (lambda: layer.kernel(params, 0), OptionError, "length = 0 must be at least 1"),
        *[
            (lambda r=rate: apply(name, rate=r), SSMError, "rate")
            for rate in (0, -1.0, np.nan, np.inf, "2", None, [2.0], 1j, np.ones(3))
        ],
    ]
    if name in REAL_STATES:
        found += [
            (lambda: apply(name, state=state + 0j), DTypeError, "state has dtype complex64, but the poles are real"),
            (lambda: layer.step(params, u_t, state + 0j), DTypeError, "state .*real"),
        ]
    return found


def both(cls: Any) -> list[Row]:
    """A layer that sees the future has no states."""
    layer = make(cls, bidirectional=True, d_state=8)
    params = layer.initial_parameters()
    return [
        *[
            (lambda o=options: layer.apply(params, U, **o), OptionError, "bidirectional layer .*no state, step")
            for options in ({"return_state": True}, {"reset": RESET}, {"step_scale": SCALE}, {"mode": "chunk"},
                            {"mode": "scan"})
        ],
        (lambda: layer.apply(params, U, mode="fft"), OptionError, "unknown mode 'fft'"),
        (lambda: layer.stepper(params), OptionError, "bidirectional"),
        (lambda: layer.initial_state(params, 2), OptionError, "bidirectional"),
    ]  # fmt: skip


def steps(cls: Any) -> list[Row]:
    return [
        (lambda: make(cls, dt_min=0), OptionError, r"0 < dt_min <= dt_max \(dt_min: 0, dt_max: 0\.1\)"),
        (lambda: make(cls, dt_min=1.0, dt_max=0.1), OptionError, "0 < dt_min <= dt_max"),
        (lambda: make(cls, dt_max=np.inf), OptionError, "dt_max"),
        (lambda: make(cls, dt_min="a"), OptionError, "dt_min"),
    ]


def methods(cls: Any) -> list[Row]:
    return [
        (
            lambda: make(cls, discretization="gbt"),
            OptionError,
            "unknown discretization 'gbt'. Known: 'zoh', 'bilinear'",
        ),
        (lambda: make(cls, discretization=None), OptionError, "unknown discretization None"),
    ]


def copies(cls: Any) -> list[Row]:
    values = (3, 0, 2.0, "a", True)
    return [(lambda n=n: make(cls, n_ssm=n), OptionError, "n_ssm = .* must divide d_model = 4") for n in values]


def of_steps_alone(cls: Any) -> list[Row]:
    """step_scale needs a diagonal system in continuous time."""
    name = cls.__name__
    return [(lambda: apply(name, step_scale=SCALE), OptionError, "step_scale needs a continuous Diagonal system")]


def diagonal_steps(cls: Any) -> list[Row]:
    name = cls.__name__
    return [
        (lambda: apply(name, step_scale=SCALE[:, :5]), ShapeError, r"step_scale must be \(2, 6\)"),
        (lambda: apply(name, step_scale=SCALE, mode="conv"), OptionError, "'conv' .*step_scale. Use mode='scan'"),
    ]


def without_rate(cls: Any) -> list[Row]:
    name = cls.__name__
    layer, params = SMALL[name], PARAMS[name]
    message = "the layer is discrete and has no step that rate = .* could multiply"
    return [
        (lambda: apply(name, rate=2.0), OptionError, message),
        (lambda: apply(name, rate=np.ones((), np.float32)), OptionError, message),
        (lambda: layer.stepper(params, rate=0.5), OptionError, message),
        (lambda: layer.kernel(params, 3, rate=0.5), OptionError, message),
        *of_steps_alone(cls),
    ]


FAMILY: dict[str, list[Row]] = {
    "S4": [
        *common(S4), *both(S4), *whole(S4, "channels"), *steps(S4), *methods(S4), *copies(S4), *of_steps_alone(S4),
        (lambda: S4(4, d_state=7), OptionError, r"d_state = 7 is odd, .* Use d_state=8\."),
        (lambda: S4(4, init="lin"), OptionError, "unknown init 'lin'. Known: 'legs', 'legsd', 'legt'"),
        (lambda: S4(4, init=["legs"]), OptionError, r"unknown init \['legs'\]"),
        (lambda: S4(4, rank=0), OptionError, "rank = 0, but init 'legs' needs rank 1"),
        (lambda: S4(4, rank=1.0), OptionError, r"rank = 1\.0"),
        (lambda: S4(4, init="legt", rank=1), OptionError, "rank = 1, but init 'legt' needs rank 2"),
        (lambda: S4(4, min_decay=0), OptionError, "min_decay = 0 must be positive: log_A_re is its logarithm"),
        (lambda: S4(4, min_decay="a"), OptionError, "min_decay = 'a'"),
        (lambda: apply("S4", rate=np.ones(3)), ShapeError, r"rate must be a number, \(\) or \(4,\)"),
    ],
    "SSM": [
        *common(SSM), *both(SSM), *whole(SSM, "channels"), *steps(SSM), *methods(SSM), *copies(SSM),
        *of_steps_alone(SSM),
        (lambda: SSM(4, init="lin"), OptionError, "unknown init 'lin'. Known: 'legs'"),
        (lambda: SSM(4, init=None), OptionError, "unknown init None"),
        (lambda: SSM(4, d_state=5, init="fout"), OptionError, "d_state = 5 is odd, but 'fout' has its states in pairs"),
    ],
    "LMU": [
        *common(LMU), *both(LMU), *whole(LMU, "channels"), *methods(LMU), *of_steps_alone(LMU),
        *[
            (lambda t=theta: LMU(4, theta=t), OptionError, "theta = .* must be a positive number of steps")
            for theta in (0, -1.0, np.nan, np.inf, "a", None, True)
        ],
    ],
    "DSS": [
        *common(DSS), *both(DSS), *whole(DSS, "channels", "length"), *steps(DSS), *copies(DSS), *diagonal_steps(DSS),
        (lambda: DSS(4, 6, d_state=7), OptionError, r"d_state = 7 is odd, .* Use d_state=8\."),
        *[
            (lambda e=epsilon: DSS(4, 6, epsilon=e), OptionError, r"epsilon = .* must lie in \[0, 1\)")
            for epsilon in (-1e-7, 1, np.nan, "a", None)
        ],
    ],
    "S5": [
        *common(S5), *both(S5), *whole(S5, "blocks"), *steps(S5), *methods(S5), *diagonal_steps(S5),
        (lambda: S5(4, d_state=7), OptionError, "d_state = 7 is odd"),
        (lambda: S5(4, d_state=8, blocks=3), OptionError, "blocks = 3 must divide d_state / 2 = 4"),
        *[
            (lambda m=max_real: S5(4, max_real=m), OptionError, "max_real = .* must be at least 0")
            for max_real in (-1.0, np.nan, np.inf, "a", None)
        ],
        (lambda: apply("S5", rate=np.ones(4)), ShapeError, r"rate must be a number or \(\) \(rate: \(4,\)\)"),
    ],
    "LRU": [
        *common(LRU), *both(LRU), *without_rate(LRU),
        (lambda: LRU(4, d_state=7), OptionError, "d_state = 7 is odd"),
        (lambda: LRU(4, r_min=0.9, r_max=0.5), OptionError, r"0 <= r_min < r_max <= 1 \(r_min: 0\.9, r_max: 0\.5\)"),
        (lambda: LRU(4, r_min=-0.1), OptionError, "r_min"),
        (lambda: LRU(4, r_max=1.1), OptionError, "r_max"),
        (lambda: LRU(4, r_min=0.5, r_max=0.5), OptionError, "r_min < r_max"),
        (lambda: LRU(4, r_max=np.nan), OptionError, "r_max"),
        (lambda: LRU(4, r_min="a"), OptionError, "r_min"),
        (lambda: LRU(4, max_phase=0), OptionError, r"max_phase = 0 must lie in \(0, 2 pi\]"),
        (lambda: LRU(4, max_phase=7.0), OptionError, r"max_phase = 7\.0"),
        (lambda: LRU(4, max_phase="a"), OptionError, "max_phase = 'a'"),
    ],
    "LinOSS": [
        *common(LinOSS), *without_rate(LinOSS),
        (lambda: LinOSS(4, scheme="explicit"), OptionError, "unknown scheme 'explicit'. Known: 'im', 'imex'"),
        (lambda: LinOSS(4, scheme=None), OptionError, "unknown scheme None"),
    ],
    "layers.make": [
        (lambda: layers.make("DSS", {"d_model": 4}), OptionError, "length"),
        *[
            (lambda n=name, o=option: layers.make(n, {"d_model": 4, o: 1}), OptionError, f"{option}.*options: ")
            for name, option in (("S4", "trainable_B"), ("LRU", "dt_min"), ("S5", "n_ssm"), ("LinOSS", "channels"))
        ],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(FAMILY))
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)


@pytest.mark.parametrize("name", SMALL)
def test_states_have_the_shapes_tried_here(name: str):
    assert SMALL[name].initial_state(PARAMS[name], 2).shape == STATES[name]
