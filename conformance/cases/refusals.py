"""What users get wrong in layers: the rows that every layer of a kind refuses, and those of a layer's own record.

A row is (call, error, message): the error names the layer, says the cause, and ends as a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import array_api_strict
import numpy as np
import pytest

from ssm_core import DomainError, DTypeError, MixedArraysError, OptionError, ShapeError, SSMError

from .instance import H
from .layer import GatedCases, LayerCases, TimeInvariantCases

Row = tuple[Callable[[], Any], type[Exception], str]

U = np.ones((2, 6, H), np.float32)
U_T = U[:, 0]
RESET = np.zeros((2, 6), bool)
SCALE = np.ones((2, 6), np.float32)
STRICT = array_api_strict.ones((2, 6, H), dtype=array_api_strict.float32)

WITHOUT_STEPS = "the layer is discrete and has no step that rate = .* could multiply"
WHOLE = (0, -1, 1.5, "4", None)
# Options that are whole numbers of at least 1, those that are flags, and those between 0 and 1.
NUMBERS = {
    TimeInvariantCases: ("d_model", "d_state", "channels", "length", "blocks"),
    GatedCases: ("d_model", "d_state", "d_conv", "expand", "head_dim", "heads", "n_groups", "rank", "chunk"),
}
FLAGS = ("conv_bias", "bias", "out_norm")
EPSILONS = ("dt_floor", "epsilon", "norm_epsilon", "A_floor")


def refused(operation: str, call: Callable[[], Any], error: type, message: str) -> None:
    """The message starts with the operation, names the cause, and ends as a sentence."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert isinstance(caught.value, SSMError)
    assert re.match(rf"{operation}[.:]", text), text
    assert re.search(message, text, re.DOTALL), text
    assert text.endswith((".", ")")), text


class Tried:
    """A small layer with its first parameters and states, to try wrong calls on."""

    def __init__(self, cases: LayerCases) -> None:
        self.cases, self.layer = cases, cases.plain.layer
        self.params = self.layer.initial_parameters()
        self.state = self.layer.initial_state(self.params, 2) if self.layer.streaming else None

    def apply(self, u: Any = U, **options: Any) -> Any:
        return self.layer.apply(self.params, u, **options)

    def step(self, u_t: Any = U_T, **options: Any) -> Any:
        return self.layer.step(self.params, u_t, options.get("state", self.state))

    def make(self, **options: Any) -> Any:
        return self.cases.layer(**{"d_model": H} | self.cases.least | options)


def own(cases: LayerCases) -> list[Row]:
    """Of the record: the options of this layer alone."""
    made = Tried(cases).make
    return [(lambda o=options: made(**o), OptionError, message) for options, message in cases.refusals]


def of_options(cases: LayerCases) -> list[Row]:
    """Options that layers have in common, by their names."""
    made = Tried(cases).make
    kind = TimeInvariantCases if isinstance(cases, TimeInvariantCases) else GatedCases
    gated = kind is GatedCases

    def refused(option: str, values: Any, message: str) -> list[Row]:
        return [
            (lambda o={option: value}: made(**o), OptionError, message.format(value=re.escape(repr(value))))
            for value in (values if cases.has(option) else ())
        ]

    absent = {f.name for f in fields(cases.layer) if f.default is None}  # which None says
    whole = {name: [x for x in WHOLE if x is not None or name not in absent] for name in NUMBERS[kind]}
    rows = [
        row for name, wrong in whole.items() for row in refused(name, wrong, f"{name} = .*whole number of at least 1")
    ]
    rows += [
        row for name in NUMBERS[kind] for row in refused(name, (True,), f"{name} = True must be a whole number, not")
    ]
    rows += refused("dt_min", (0,), r"0 < dt_min <= dt_max \(dt_min: 0, dt_max: 0\.1\)")
    rows += refused("dt_min", (1.0, np.nan), "0 < dt_min <= dt_max")
    rows += refused("dt_max", (np.inf, None), "dt_max: {value}")
    rows += refused("dt_min", ("a",), "dt_min: a")
    if gated:
        rows += [
            row for flag in FLAGS for row in refused(flag, (1, None, "yes"), f"{flag} = {{value}} must be True or")
        ]
        wrong = (0, 1, -1e-5, np.nan, "a", [1e-5])
        rows += [row for name in EPSILONS for row in refused(name, wrong, rf"{name} = .* must lie in \(0, 1\)")]
        rows += [
            row for name in EPSILONS for row in refused(name, (True,), f"{name} = True must be a number, not a flag")
        ]
        if not cases.has("n_groups"):
            return rows
        rows += refused("head_dim", (3,), rf"head_dim = 3 must divide expand \* d_model = {2 * H}")
        rows += refused("head_dim", (16,), "head_dim = 16 must divide")
        rows += refused("n_groups", (3,), "n_groups = 3 must divide the 4 heads")
        if cases.has("head_dim"):
            message = r"head_dim = 64 must divide expand \* d_model = 32"
            rows.append((lambda: cases.layer(32, expand=1), OptionError, message))
        return rows
    rows += refused("activation", ("swish",), "unknown activation {value}. Known: 'gelu', 'gelu_tanh")
    rows += refused("activation", (["gelu"],), "unknown activation")
    rows += refused("output", ("mlp",), "unknown output {value}. Known: 'glu', 'half_glu', 'half_glu2', 'linear', None")
    rows += refused("discretization", ("gbt",), "unknown discretization {value}. Known: 'zoh', 'bilinear'")
    rows += refused("discretization", (None,), "unknown discretization None")
    rows += refused("n_ssm", (3, 0, 2.0, "a"), f"n_ssm = {{value}} must divide d_model = {H}")
    return rows


def of_signals(cases: LayerCases) -> list[Row]:
    """Signals and parameters that are no arrays, or of another shape, dtype or library; modes and rates."""
    t = Tried(cases)
    first = next(iter(t.params))
    modes = str(cases.modes(t.layer) if isinstance(cases, GatedCases) else ("auto", "conv", "chunk", "scan"))[1:-1]
    rates: tuple[Any, ...] = (0, -1.0, np.nan, np.inf, "2", None, True, [2.0], 1j, np.float32(-1), np.ones(3))
    rates += (np.ones((4, 4)),)
    if not cases.plain.rate_is_of_channels:
        rates += (np.ones(H, np.float32),)

    shape_of_rates = r"rate must be a number or \(\) \(rate: \(3,\)\)"
    if cases.plain.rate_is_of_channels:
        shape_of_rates = r"rate must be a number, \(\) or \(4,\) \(rate: \(3,\)\)"

    def given(**params: Any) -> Any:
        return t.layer.apply({**t.params, **params}, U)

    def less(name: str) -> Any:
        return t.layer.apply({n: p for n, p in t.params.items() if n != name}, U)

    return [
        (lambda: t.apply(None), DTypeError, "u|no array"),
        (lambda: t.apply([[1.0]]), DTypeError, "u is a list"),
        (lambda: t.apply(U[0]), ShapeError, r"u must be \(B, L, 4\) \(u: \(6, 4\)\)"),
        (lambda: t.apply(U[..., :3]), ShapeError, r"u must be \(B, L, 4\) \(u: \(2, 6, 3\)\)"),
        (lambda: t.apply(U.astype(int)), DTypeError, "u has dtype int64"),
        (lambda: t.apply(U.astype(str)), DTypeError, "u has dtype <U"),
        (lambda: t.apply(U.astype(object)), DTypeError, "u has dtype object"),
        (lambda: t.apply(U + 0j), DTypeError, "u has dtype complex64, but must be real"),
        (lambda: t.apply(STRICT), MixedArraysError, rf"libraries \(u: array_api_strict.*{first}: numpy"),
        (lambda: t.layer.apply({}, U), OptionError, "parameters are missing: .*given: none"),
        (lambda: less(first), OptionError, f"parameters are missing: {first} "),
        (lambda: t.layer.apply(None, U), DTypeError, "params is a NoneType"),
        (lambda: t.layer.apply([1.0], U), DTypeError, "params is a list"),
        (lambda: given(**{first: 1.0}), DTypeError, f"{first} is a float"),
        (lambda: given(**{first: None}), DTypeError, f"{first} is a NoneType"),
        (lambda: given(**{first: U[0, 0, :1]}), ShapeError, rf"{first} is \(1,\), but must be"),
        (lambda: given(**{first: t.params[first].astype(int)}), DTypeError, f"{first} has dtype int64"),
        (lambda: given(**{first: t.params[first] + 0j}), DTypeError, f"{first} has dtype complex64"),
        (lambda: given(**{first: STRICT}), MixedArraysError, f"{first}: array_api_strict"),
        (lambda: t.apply(mode="fft"), OptionError, f"unknown mode 'fft'. Known: {modes}"),
        (lambda: t.apply(mode=None), OptionError, "unknown mode None"),
        (lambda: t.apply(U[:, :0], mode="fft"), OptionError, "unknown mode 'fft'"),
        *[(lambda r=rate: t.apply(rate=r), SSMError, "rate") for rate in rates],
        *[(lambda r=rate: t.layer.stepper(t.params, rate=r), SSMError, "rate") for rate in rates],
        (lambda: t.apply(rate=np.ones(3, np.float32)), ShapeError, shape_of_rates),
        (lambda: t.apply(rate=0), SSMError, "rate = 0 must be a positive number: 2.0 means steps twice as long"),
        (lambda: t.layer.stepper({}), OptionError, "parameters are missing"),
        (lambda: t.layer.stepper(None), DTypeError, "params is a NoneType"),
        *[
            (lambda b=batch: t.layer.initial_state(t.params, b), OptionError, "batch = ")
            for batch in (-1, 2.0, "2", True, None)
        ],
        (lambda: t.layer.initial_state({}, 2), OptionError, r"parameters are missing: .*\(given: none\)"),
        (lambda: t.layer.initial_state(None, 2), DTypeError, "params is a NoneType"),
        (lambda: t.step(U), ShapeError, r"u_t must be \(B, 4\) \(u_t: \(2, 6, 4\)\)"),
        (lambda: t.step(U[0, 0]), ShapeError, r"u_t: \(4,\)"),
        (lambda: t.step(U_T[:, :3]), ShapeError, r"u_t: \(2, 3\)"),
        *[(lambda u=u: t.step(u), DTypeError, "u_t|no array") for u in (None, 1.0)],
        (lambda: t.step([[1.0]]), DTypeError, "u_t is a list"),
        (lambda: t.step(U_T.astype(int)), DTypeError, "u_t has dtype int64"),
        (lambda: t.step(U_T.astype(str)), DTypeError, "u_t has dtype <U"),
        (lambda: t.step(U_T + 0j), DTypeError, "u_t has dtype complex64, but must be real"),
        (lambda: t.step(STRICT[:, 0, :]), MixedArraysError, "array_api_strict"),
    ]


def of_masks(cases: LayerCases) -> list[Row]:
    """Where sequences begin and end, and how long their steps are."""
    t = Tried(cases)
    rows: list[Row] = [
        (lambda: t.apply(lengths=3), DTypeError, "lengths is a int"),
        (lambda: t.apply(lengths=[1, 2]), DTypeError, "lengths is a list"),
        (lambda: t.apply(lengths=np.arange(3)), ShapeError, r"lengths must be \(2,\) \(u: .*lengths: \(3,\)"),
        (lambda: t.apply(lengths=np.asarray([1, 7])), SSMError, r"lengths must lie in \[0, 6\]"),
        (lambda: t.apply(lengths=np.asarray([-1, 6])), SSMError, r"lengths must lie in \[0, 6\]"),
        (
            lambda: t.apply(lengths=np.ones(2)),
            DTypeError,
            "lengths has dtype float64.*must be integer|lengths .*integer",
        ),
        (lambda: t.apply(lengths=np.asarray([True, False])), DTypeError, "lengths has dtype bool"),
        (lambda: t.apply(reset=RESET[:, :5]), ShapeError, r"reset must be \(2, 6\) \(u: .*reset: \(2, 5\)"),
        (lambda: t.apply(reset=RESET.astype(int)), DTypeError, "reset has dtype int64.*bool"),
        (lambda: t.apply(reset=True), DTypeError, "reset is a bool"),
    ]
    if cases.with_step_scale:
        rows += [
            (
                lambda: t.apply(step_scale=SCALE[:, :5]),
                ShapeError,
                r"step_scale must be \(2, 6\) .*step_scale: \(2, 5\)",
            ),
            (lambda: t.apply(step_scale=SCALE[..., None]), ShapeError, r"step_scale: \(2, 6, 1\)"),
            (lambda: t.apply(step_scale=SCALE.astype(int)), DTypeError, "step_scale has dtype int64"),
            (lambda: t.apply(step_scale=2.0), DTypeError, "step_scale is a float"),
        ]
    elif isinstance(cases, TimeInvariantCases) and cases.timed:
        message = "step_scale needs a continuous Diagonal system"
        rows.append((lambda: t.apply(step_scale=SCALE), OptionError, message))
    return rows


def of_steps(cases: LayerCases) -> list[Row]:
    """What a layer without steps in time has no use for."""
    t = Tried(cases)
    if cases.timed:
        return []
    return [
        (lambda: t.apply(rate=2.0), OptionError, WITHOUT_STEPS),
        (lambda: t.apply(rate=np.full((), 2.0, np.float32)), OptionError, WITHOUT_STEPS),
        (lambda: t.layer.stepper(t.params, rate=0.5), OptionError, WITHOUT_STEPS),
        (lambda: t.apply(step_scale=SCALE), OptionError, "the layer is discrete and has no steps that step_scale"),
    ]


def of_time_invariant(cases: TimeInvariantCases) -> list[Row]:
    """States of one array, kernels, convolution beside masks, and the two directions."""
    t = Tried(cases)
    state = np.asarray(t.state)
    found: list[Row] = [
        (lambda: t.apply(state=state[:1]), ShapeError, r"state must be \(2, .*u: .*state: \(1, "),
        (lambda: t.apply(state=state[..., :1]), ShapeError, "state must be"),
        (lambda: t.apply(state=state.real.astype(int)), DTypeError, "state has dtype int64"),
        (lambda: t.apply(state=state.real.astype(str)), DTypeError, "state has dtype <U"),
        (lambda: t.apply(state=0.0), DTypeError, "state is a float"),
        (lambda: t.apply(state=[state]), DTypeError, "state is a list"),
        (lambda: t.apply(state=array_api_strict.asarray(state)), MixedArraysError, "state: array_api_strict"),
        (lambda: t.step(state=state[:1]), ShapeError, r"state must be \(2, .*initial_state\(2\)"),
        (lambda: t.step(state=None), DTypeError, "state is a NoneType"),
        (lambda: t.step(state=0.0), DTypeError, "state is a float"),
        (lambda: t.step(state=state.real.astype(int)), DTypeError, "state has dtype int64"),
        (lambda: t.step(state=array_api_strict.asarray(state)), MixedArraysError, "state: array_api_strict"),
        (lambda: t.apply(reset=RESET, mode="conv"), OptionError, "'conv' cannot .* resets. Use mode='chunk'"),
        (lambda: t.layer.kernel(t.params, 0), OptionError, "length = 0 must be a whole number of at least 1"),
        (lambda: t.layer.kernel(t.params, -1), OptionError, "length = -1"),
        (lambda: t.layer.kernel(t.params, 2.5), OptionError, "length = 2.5"),
        (lambda: t.layer.kernel(t.params, True), OptionError, "length = True"),
        (lambda: t.layer.kernel({}, 3), SSMError, ""),
        (lambda: t.layer.kernel([], 2), DTypeError, "params is a list"),
        *[
            (lambda r=rate: t.layer.kernel(t.params, 3, rate=r), SSMError, "rate")
            for rate in (0, -1.0, np.nan, np.inf, "2", None, [2.0], 1j, np.float32(-1), np.ones(3), np.ones((4, 4)))
        ],
    ]
    if cases.scaled:
        message = "'conv' .*step_scale. Use mode='scan'"
        found.append((lambda: t.apply(step_scale=SCALE, mode="conv"), OptionError, message))
    if t.layer.real_states:
        found += [
            (lambda: t.apply(state=state + 0j), DTypeError, "state has dtype complex64, but the poles are real"),
            (lambda: t.step(state=state + 0j), DTypeError, "state .*real"),
        ]
    if not cases.timed:
        found.append((lambda: t.layer.kernel(t.params, 3, rate=0.5), OptionError, WITHOUT_STEPS))
    return found + _both_directions(cases)


def _both_directions(cases: TimeInvariantCases) -> list[Row]:
    """A layer that sees the future has no states."""
    both = cases.plain.with_options(bidirectional=True).layer
    params, state = both.initial_parameters(), np.ones(both.state_shape(2), np.float32)
    wrong: tuple[dict[str, Any], ...] = (
        {"state": state}, {"return_state": True}, {"reset": RESET}, {"mode": "chunk"}, {"mode": "scan"},
        *([{"step_scale": SCALE}] if cases.timed else []),
    )  # fmt: skip
    return [
        *[
            (
                lambda o=options: both.apply(params, U, **o),
                OptionError,
                "bidirectional layer .*no state, step, reset or st",
            )
            for options in wrong
        ],
        (lambda: both.apply(params, U, mode="fft"), OptionError, "unknown mode 'fft'"),
        (lambda: both.apply(params, U, lengths=np.ones(2)), DTypeError, "lengths has dtype float64"),
        (lambda: both.apply(params, U, lengths=np.asarray([True, False])), DTypeError, "lengths has dtype bool"),
        (lambda: both.stepper(params), OptionError, "bidirectional"),
        (lambda: both.step(params, U_T, state), OptionError, "bidirectional"),
        (lambda: both.initial_state(params, 2), OptionError, "bidirectional"),
    ]


def of_gated(cases: GatedCases) -> list[Row]:
    """States of several arrays, in calls and in steps; steps of their own; packed sequences."""
    t = Tried(cases)
    good, shapes = t.state, t.layer.state_shapes(2)
    first = next(iter(shapes))
    names = rf"{len(good)} arrays \({', '.join(shapes)}\)"
    found: list[Row] = []
    for call in (lambda s: t.apply(state=s), lambda s: t.step(state=s)):
        found += [
            (
                lambda f=call: f(good[:-1]),
                ShapeError,
                rf"tuple of {names}, not a tuple of {len(good) - 1}.*initial_state\(2\)",
            ),
            (lambda f=call: f((*good, good[0])), ShapeError, f"not a tuple of {len(good) + 1}"),
            (lambda f=call: f(good[0]), ShapeError, f"state must be a tuple of {names}, not a ndarray"),
            (lambda f=call: f(0.0), ShapeError, "not a float"),
            (lambda f=call: f(dict(zip(shapes, good, strict=True))), ShapeError, "not a dict"),
            (lambda f=call: f((0.0, *good[1:])), DTypeError, f"{first} is a float"),
            (lambda f=call: f((good[0].astype(int), *good[1:])), DTypeError, f"{first} has dtype int64"),
            (lambda f=call: f((good[0] + 0j, *good[1:])), DTypeError, f"{first} has dtype complex64, but must be real"),
            (lambda f=call: f((STRICT, *good[1:])), MixedArraysError, f"{first}: array_api_strict"),
            (
                lambda f=call: f(tuple(s[:1] for s in good)),
                ShapeError,
                rf"{first} of the state must be \(2,.*u(_t)?: \(2, .*{first}: \(1,.*initial_state\(2\)",
            ),
            (lambda f=call: f((*good[:-1], good[-1][..., None])), ShapeError, "of the state must be"),
        ]
    found += [
        (lambda: t.step(state=None), ShapeError, "not a NoneType"),
        (lambda: t.apply(mode="fft"), OptionError, "unknown mode 'fft'. Known: 'auto'"),
    ]
    if "conv" in t.layer.modes:
        found.append((lambda: t.apply(reset=RESET, mode="conv"), OptionError, "'conv' cannot .* resets. Use mode='chu"))
    else:
        found.append((lambda: t.apply(mode="conv"), OptionError, "unknown mode 'conv'. Known: 'auto'"))
    if not cases.timed:
        return found
    message = "step_scale .*must be positive and finite"
    return [
        *found,
        (lambda: t.apply(step_scale=0 * SCALE), DomainError, r"step_scale \(shape \(2, 6\)\) must be positive"),
        (lambda: t.apply(step_scale=-SCALE), DomainError, message),
        (lambda: t.apply(step_scale=np.nan * SCALE), DomainError, message),
    ]


def of_packing(cases: LayerCases) -> list[Row]:
    if not cases.plain.takes("cu_seqlens"):
        return []
    t, ends = Tried(cases), np.asarray([0, 2, 6])
    shape = r"of the state must be \(2,.*initial_state\(2\)" if isinstance(cases, GatedCases) else "state must be"

    def packed(cu_seqlens: Any, u: Any = U[:1], **options: Any) -> Any:
        return t.apply(u, cu_seqlens=cu_seqlens, **options)

    return [
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
        (lambda: packed(ends, state=t.layer.initial_state(t.params, 1)), ShapeError, shape),
    ]


def of_the_kind(cases: LayerCases) -> list[Row]:
    """All that follows from the kind of a layer."""
    more = of_time_invariant(cases) if isinstance(cases, TimeInvariantCases) else of_gated(cases)
    return [*of_options(cases), *of_signals(cases), *of_masks(cases), *of_steps(cases), *more, *of_packing(cases)]
