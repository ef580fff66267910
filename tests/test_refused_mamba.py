"""What users get wrong in Mamba, Mamba-2 and Mamba-3: the error names the layer, the option and the cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from wrong import RESET, SCALE, STRICT, Row, U, check_refused, rows

from ssm_core import DomainError, DTypeError, MixedArraysError, OptionError, ShapeError, SSMError, layers
from ssm_core.layers import Mamba, Mamba2, Mamba3
from ssm_core.models import SequenceModel

BAD_WHOLE = (0, -1, 1.5, "4", True, None)
SMALL: dict[str, Any] = {
    "Mamba": Mamba(4, d_state=3),
    "Mamba2": Mamba2(4, d_state=3, head_dim=2),
    "Mamba3": Mamba3(4, d_state=4, head_dim=2),
}
STATES: dict[str, dict[str, tuple[int, ...]]] = {
    "Mamba": {"inputs": (2, 8, 3), "x": (2, 8, 3)},
    "Mamba2": {"inputs": (2, 14, 3), "S": (2, 4, 2, 3)},
    "Mamba3": {"angles": (2, 4, 1), "S": (2, 4, 2, 4), "B": (2, 1, 4, 4), "inputs": (2, 1, 4, 2)},
}
PARAMS = {name: layer.initial_parameters() for name, layer in SMALL.items()}
PACKED = U[:1]


def apply(name: str, u: Any = U, **options: Any) -> Any:
    return SMALL[name].apply(PARAMS[name], u, **options)


def make(cls: Any, **options: Any) -> Any:
    small = {"d_model": 4} if cls is Mamba else {"d_model": 4, "head_dim": 2}
    return cls(**small | options)


def whole(cls: Any, *names: str) -> list[Row]:
    """Options that must be whole numbers of at least 1."""
    return [
        (lambda o={name: value}: make(cls, **o), OptionError, f"{name} = .*whole number of at least 1")
        for name in names
        for value in BAD_WHOLE
    ]


def bools(cls: Any, *names: str) -> list[Row]:
    return [
        (lambda o={name: value}: make(cls, **o), OptionError, f"{name} = {value!r} must be True or False")
        for name in names
        for value in (1, None, "yes")
    ]


def epsilons(cls: Any, *names: str) -> list[Row]:
    return [
        (lambda o={name: value}: make(cls, **o), OptionError, rf"{name} = .* must lie in \(0, 1\)")
        for name in names
        for value in (0, 1, -1e-5, np.nan, "a", True, [1e-5])
    ]


def steps(cls: Any) -> list[Row]:
    return [
        (lambda: make(cls, dt_min=0), OptionError, r"0 < dt_min <= dt_max \(dt_min: 0, dt_max: 0\.1\)"),
        (lambda: make(cls, dt_min=1.0, dt_max=0.1), OptionError, "0 < dt_min <= dt_max"),
        (lambda: make(cls, dt_max=np.inf), OptionError, "dt_max: inf"),
        (lambda: make(cls, dt_min="a"), OptionError, "dt_min: a"),
    ]


def heads(cls: Any) -> list[Row]:
    return [
        (lambda: make(cls, head_dim=3), OptionError, r"head_dim = 3 must divide expand \* d_model = 8"),
        (lambda: make(cls, head_dim=16), OptionError, "head_dim = 16 must divide"),
        (lambda: make(cls, n_groups=3), OptionError, "n_groups = 3 must divide the 4 heads"),
        (lambda: cls(32, expand=1), OptionError, r"head_dim = 64 must divide expand \* d_model = 32"),
    ]


def signals(cls: Any) -> list[Row]:
    """Signals and parameters that are no arrays, or of another shape, dtype or library."""
    name = cls.__name__
    layer, params = SMALL[name], PARAMS[name]
    return [
        (lambda: apply(name, None), DTypeError, "u|no array"),
        (lambda: apply(name, [[1.0]]), DTypeError, "u is a list"),
        (lambda: apply(name, U[0]), ShapeError, r"u must be \(B, L, 4\) \(u: \(6, 4\)\)"),
        (lambda: apply(name, U[..., :3]), ShapeError, r"u: \(2, 6, 3\)"),
        (lambda: apply(name, U.astype(int)), DTypeError, "u has dtype int64"),
        (lambda: apply(name, U + 0j), DTypeError, "u has dtype complex64, but must be real"),
        (lambda: apply(name, STRICT), MixedArraysError, "u: array_api_strict"),
        (lambda: layer.apply({}, U), OptionError, "parameters are missing: .*given: none"),
        (lambda: layer.apply(without(name, "D"), U), OptionError, "parameters are missing: D "),
        (lambda: layer.apply([1.0], U), DTypeError, "params is a list"),
        (lambda: layer.apply({**params, "D": 1.0}, U), DTypeError, "D is a float"),
        (lambda: layer.apply({**params, "D": params["D"][:1]}, U), ShapeError, r"D is \(1,\), but must be"),
        (lambda: layer.apply({**params, "D": params["D"] + 0j}, U), DTypeError, "D has dtype complex64"),
        (lambda: layer.apply({**params, "D": STRICT}, U), MixedArraysError, "D: array_api_strict"),
        (lambda: apply(name, mode="fft"), OptionError, f"unknown mode 'fft'. Known: {str(layer.modes)[1:-1]}"),
        (lambda: apply(name, mode="conv"), OptionError, "unknown mode 'conv'. Known: 'auto'"),
        (lambda: apply(name, mode=None), OptionError, "unknown mode None"),
        *[
            (lambda r=rate: apply(name, rate=r), SSMError, "rate")
            for rate in (0, -1.0, np.nan, np.inf, "2", None, True, [2.0], 1j, np.ones(3), np.ones(4))
        ],
        (lambda: layer.stepper(params, rate=0), OptionError, "rate = 0 must be positive"),
        (lambda: layer.stepper({}), OptionError, "parameters are missing"),
        (lambda: layer.initial_state(params, -1), OptionError, "batch = -1"),
        (lambda: layer.initial_state(params, 1.0), OptionError, "batch = 1.0"),
    ]


def states(cls: Any) -> list[Row]:
    """States of `apply` and of `step`."""
    name = cls.__name__
    layer, params, u_t = SMALL[name], PARAMS[name], U[:, 0]
    good = layer.initial_state(params, 2)
    first = next(iter(STATES[name]))
    names = rf"{len(good)} arrays \({', '.join(STATES[name])}\)"
    found: list[Row] = []
    for call in (lambda s: apply(name, state=s), lambda s: layer.step(params, u_t, s)):
        found += [
            (lambda f=call: f(good[:1]), ShapeError, rf"tuple of {names}, not a tuple of 1.*initial_state\(2\)"),
            (lambda f=call: f((*good, good[0])), ShapeError, f"not a tuple of {len(good) + 1}"),
            (lambda f=call: f(good[0]), ShapeError, f"state must be a tuple of {names}, not a ndarray"),
            (lambda f=call: f(0.0), ShapeError, "not a float"),
            (lambda f=call: f(dict(zip(STATES[name], good, strict=True))), ShapeError, "not a dict"),
            (lambda f=call: f((0.0, *good[1:])), DTypeError, f"{first} is a float"),
            (lambda f=call: f((good[0].astype(int), *good[1:])), DTypeError, f"{first} has dtype int64"),
            (lambda f=call: f((good[0] + 0j, *good[1:])), DTypeError, f"{first} has dtype complex64, but must be real"),
            (lambda f=call: f((STRICT, *good[1:])), MixedArraysError, f"{first}: array_api_strict"),
            (
                lambda f=call: f(tuple(s[:1] for s in good)),
                ShapeError,
                rf"{first} of the state must be \(2, .*u(_t)?: \(2, .*{first}: \(1, .*initial_state\(2\)",
            ),
            (lambda f=call: f((*good[:-1], good[-1][..., None])), ShapeError, "of the state must be"),
        ]
    return [
        *found,
        (lambda: layer.step(params, u_t, None), ShapeError, "not a NoneType"),
        (lambda: layer.step(params, U, good), ShapeError, r"u_t must be \(B, 4\) \(u_t: \(2, 6, 4\)\)"),
        (lambda: layer.step(params, u_t[:, :3], good), ShapeError, r"u_t: \(2, 3\)"),
        (lambda: layer.step(params, u_t.astype(int), good), DTypeError, "u_t has dtype int64"),
        (lambda: layer.step(params, [1.0], good), DTypeError, "u_t is a list"),
        (lambda: layer.step(params, STRICT[:, 0, :], good), MixedArraysError, "array_api_strict"),
    ]


def masks(cls: Any) -> list[Row]:
    """Where sequences begin and end, and how long their steps are."""
    name = cls.__name__
    ends = np.asarray([0, 2, 6])

    def packed(cu_seqlens: Any, u: Any = PACKED, **options: Any) -> Any:
        return apply(name, u, cu_seqlens=cu_seqlens, **options)

    return [
        (lambda: apply(name, lengths=3), DTypeError, "lengths is a int"),
        (lambda: apply(name, lengths=[1, 2]), DTypeError, "lengths is a list"),
        (lambda: apply(name, lengths=np.arange(3)), ShapeError, r"lengths must be \(2,\) \(u: .*lengths: \(3,\)\)"),
        (lambda: apply(name, lengths=np.asarray([1, 7])), SSMError, r"lengths must lie in \[0, 6\]"),
        (lambda: apply(name, lengths=np.asarray([-1, 6])), SSMError, r"lengths must lie in \[0, 6\]"),
        (lambda: apply(name, lengths=np.ones(2)), DTypeError, "lengths has dtype float64, but must be integer"),
        (lambda: apply(name, reset=RESET[:, :5]), ShapeError, r"reset must be \(2, 6\) \(u: .*reset: \(2, 5\)\)"),
        (lambda: apply(name, reset=RESET.astype(int)), DTypeError, "reset has dtype int64, but must be bool"),
        (lambda: apply(name, reset=True), DTypeError, "reset is a bool"),
        (lambda: apply(name, step_scale=SCALE[:, :5]), ShapeError, r"step_scale must be \(2, 6\)"),
        (lambda: apply(name, step_scale=SCALE[..., None]), ShapeError, r"step_scale: \(2, 6, 1\)"),
        (lambda: apply(name, step_scale=2.0), DTypeError, "step_scale is a float"),
        (lambda: apply(name, step_scale=0 * SCALE), DomainError, r"step_scale \(shape \(2, 6\)\) must be positive"),
        (lambda: apply(name, step_scale=-SCALE), DomainError, "step_scale .*must be positive and finite"),
        (lambda: apply(name, step_scale=np.nan * SCALE), DomainError, "step_scale .*must be positive and finite"),
        (lambda: apply(name, step_scale=SCALE.astype(int)), DTypeError, "step_scale has dtype int64"),
        (lambda: packed([0, 2, 6]), DTypeError, "cu_seqlens is a list"),
        (lambda: packed(ends.astype(float)), DTypeError, "cu_seqlens has dtype float64, but must be integer"),
        (lambda: packed(ends[:1]), ShapeError, r"cu_seqlens must be \(n \+ 1,\).*cu_seqlens: \(1,\), batch: 1"),
        (lambda: packed(ends[None]), ShapeError, r"cu_seqlens must be \(n \+ 1,\)"),
        (lambda: packed(ends, U), ShapeError, "packed into a batch of 1 .*batch: 2"),
        (lambda: packed(np.asarray([0, 4, 3, 6])), DomainError, r"never decrease.*\[0, 4, 3, 6\]"),
        (lambda: packed(np.asarray([0, 2, 5])), DomainError, r"end with the 6 steps given .*\[0, 2, 5\]"),
        (lambda: packed(np.asarray([1, 2, 6])), DomainError, "must begin with 0"),
        (lambda: packed(ends, reset=RESET[:1]), OptionError, "cu_seqlens already says .*leave out reset"),
        (lambda: packed(ends, lengths=np.asarray([3])), OptionError, "cu_seqlens already says .*leave out lengths"),
        (
            lambda: packed(ends, state=SMALL[name].initial_state(PARAMS[name], 1)),
            ShapeError,
            r"of the state must be \(2, .*initial_state\(2\)",
        ),
    ]


def without(name: str, left_out: str) -> dict[str, Any]:
    return {key: x for key, x in PARAMS[name].items() if key != left_out}


FAMILY: dict[str, list[Row]] = {
    "Mamba": [
        *whole(Mamba, "d_model", "d_state", "d_conv", "expand"), *bools(Mamba, "conv_bias", "bias"),
        *epsilons(Mamba, "dt_floor", "norm_epsilon"), *steps(Mamba), *signals(Mamba), *states(Mamba), *masks(Mamba),
        *[(lambda r=rank: Mamba(4, dt_rank=r), OptionError, "dt_rank = .*whole number of at least 1")
          for rank in BAD_WHOLE[:-1]],
        (lambda: Mamba(4, discretization="bilinear"), OptionError,
         "unknown discretization 'bilinear'. Known: 'mamba', 'zoh'"),
        (lambda: Mamba(4, discretization=None), OptionError, "unknown discretization None"),
        (lambda: Mamba(4, discretization=["zoh"]), OptionError, r"unknown discretization \['zoh'\]"),
    ],
    "Mamba2": [
        *whole(Mamba2, "d_model", "d_state", "d_conv", "expand", "head_dim", "n_groups", "chunk"),
        *bools(Mamba2, "conv_bias", "bias"), *epsilons(Mamba2, "dt_floor", "epsilon"), *steps(Mamba2), *heads(Mamba2),
        *signals(Mamba2), *states(Mamba2), *masks(Mamba2),
        *[(lambda o=options: make(Mamba2, **o), OptionError, "needs 0 < A_min <= A_max")
          for options in ({"A_min": 0}, {"A_min": 17.0}, {"A_max": 0.5}, {"A_max": np.inf}, {"A_min": np.nan},
                          {"A_max": "a"}, {"A_min": None})],
        *[(lambda d=limit: make(Mamba2, dt_limit=d), OptionError, "dt_limit = .* two numbers, 0 <= low <= high")
          for limit in ((1.0, 0.5), (-1.0, 1.0), (0.0,), (0.0, 1.0, 2.0), (0.0, np.nan), ("a", "b"), None, 3, "01")],
    ],
    "Mamba3": [
        *whole(Mamba3, "d_model", "d_state", "expand", "head_dim", "n_groups", "rank", "chunk"),
        *bools(Mamba3, "out_norm"), *epsilons(Mamba3, "dt_floor", "epsilon", "A_floor"), *steps(Mamba3),
        *heads(Mamba3), *signals(Mamba3), *states(Mamba3), *masks(Mamba3),
        *[(lambda f=fraction: make(Mamba3, rope_fraction=f), OptionError, r"rope_fraction = .* must lie in \[0, 1\]")
          for fraction in (-0.1, 1.5, np.nan, "a", None, True)],
    ],
    "layers.make": [
        *[(lambda n=name, o=option: layers.make(n, {"d_model": 4, o: 1}), OptionError, f"{option}.*options: ")
          for name, option in (("Mamba", "head_dim"), ("Mamba2", "dt_rank"), ("Mamba3", "d_conv"))],
        (lambda: SequenceModel(3, 2, 4, layer="Mamba", layer_options={"chunk": 3}), OptionError, "Mamba .*chunk"),
        (lambda: SequenceModel(3, 2, 4, layer="Mamba4"), OptionError, "unknown layer 'Mamba4'. Known: .*'Mamba3'"),
    ],
    "SequenceModel": [
        (lambda: SequenceModel(3, 2, layer="Mamba", layer_options={"d_model": 4}), OptionError, "d_model is an option"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(FAMILY))
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)


@pytest.mark.parametrize("name", SMALL)
def test_states_have_the_shapes_tried_here(name: str):
    assert SMALL[name].state_shapes(2) == STATES[name]
    found = [s.shape for s in SMALL[name].initial_state(PARAMS[name], 2)]
    assert found == [*STATES[name].values()]
    assert all(s.dtype == np.float32 for s in SMALL[name].initial_state(PARAMS[name], 2))
