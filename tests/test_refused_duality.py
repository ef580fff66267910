"""What users get wrong in the functions of Mamba's family: the error names the operation, the argument, the cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
from gated import CONVOLUTION, MAMBA3, SELECTIVE, SEVERAL, SSD, TRAPEZOIDAL, Gated
from wrong import Row, check_refused, elsewhere, one_of_each, rows

from ssm_core import (
    DomainError,
    DTypeError,
    MixedArraysError,
    OptionError,
    ShapeError,
    rms_norm,
    selective_state_update,
)

ones, nan = np.ones, np.nan
strict = array_api_strict.ones
BAD_CHUNKS = (0, -1, 2.0, True, "a")
PARTS, ROWS = MAMBA3.state(), ones((2, 6))


def of(kind: Gated) -> Callable[..., Any]:
    """The function with good inputs, but for those given."""
    v = kind.inputs() | kind.options
    return lambda **change: lambda: kind.function(**v | change)


ssd, mamba3, several = of(SSD), of(MAMBA3), of(SEVERAL)
selective, trapezoidal, conv = of(SELECTIVE), of(TRAPEZOIDAL), of(CONVOLUTION)
STEP = {"state": ones((2, 4, 3, 5)), "x": ones((2, 4, 3)), "dt": ones((2, 4, 3)), "A": -ones((4, 3, 5)),
        "B": ones((2, 2, 5)), "C": ones((2, 2, 5))}  # fmt: skip


def update(**change: Any) -> Callable[[], Any]:
    return lambda: selective_state_update(**STEP | change)


def norm(x: Any = ROWS, *weight: Any, **options: Any) -> Callable[[], Any]:
    return lambda: rms_norm(x, *weight, **options)


def masks(call: Callable[..., Any]) -> list[Row]:
    """Resets, lengths and cu_seqlens, as every recurrence over (2, 17) steps takes them. One check serves all of them:
    ssd tries every row, the others one of each kind of error."""
    reset, lengths = ones((2, 17), bool), np.asarray([1, 17])
    return [
        (call(reset=ones((2, 17))), DTypeError, r"reset has dtype float64, but must be bool: reset > 0 \(.*: \(2, "),
        (call(reset=reset[:, 1:]), ShapeError, r"reset must be \(2, 17\) \(.*reset: \(2, 16\)"),
        (call(reset=True), DTypeError, "reset is a bool, not an array"),
        (call(lengths=lengths[:1]), ShapeError, r"lengths must be \(2,\) \(.*lengths: \(1,\)"),
        (call(lengths=lengths + 0.0), DTypeError, r"lengths has dtype float64, but must be integer \("),
        (call(lengths=17), DTypeError, "lengths is a int, not an array"),
        (call(lengths=lengths + 1), DomainError, r"lengths must lie in \[0, 17\].*smallest: 2, largest: 18"),
        (call(lengths=lengths - 2), DomainError, "smallest: -1, largest: 15"),
    ]


def packed(kind: Gated) -> list[Row]:
    v, name, ends = kind.inputs(batch=1), kind.function.__name__, np.asarray([0, 9, 17])

    def call(ends: Any, **more: Any) -> Callable[[], Any]:
        return lambda: kind.function(**v | kind.options | {"cu_seqlens": ends} | more)

    short = tuple(s[:1] for s in kind.state())
    return [
        (of(kind)(cu_seqlens=ends), ShapeError, r"packed into a batch of 1 \(cu_seqlens: \(3,\), batch: 2\)"),
        (call(ends[1:]), DomainError, r"cu_seqlens must begin with 0, .*cu_seqlens: \[9, 17\]"),
        (call(ends[:2]), DomainError, "end with the 17 steps given"),
        (call(ends[[0, 2, 1, 2]]), DomainError, r"never decrease, .*\[0, 17, 9, 17\]"),
        (call(ends + 0.0), DTypeError, "cu_seqlens has dtype float64, but must be integer"),
        (call(ends[None]), ShapeError, r"cu_seqlens must be \(n \+ 1,\) for n sequences .*cu_seqlens: \(1, 3\)"),
        (call([0, 9, 17]), DTypeError, "cu_seqlens is a list, not an array"),
        (call(ends, reset=ones((1, 17), bool)), OptionError, "cu_seqlens already says .*: leave out reset"),
        (call(ends, lengths=np.asarray([17])), OptionError, "leave out lengths"),
        (
            call(ends, initial=short if len(short) > 1 else short[0]),
            ShapeError,
            r"(initial|t) must be \(2, .*cu_seqlens: \(3,\)",
        ),
        (call(array_api_strict.asarray(ends)), MixedArraysError, f"{name}: arrays of several libraries"),
    ]


def heads(call: Callable[..., Any]) -> list[Row]:
    """What ssd and mamba3_scan share."""
    return [
        (call(x=ones((2, 17, 4))), ShapeError, r"x must be \(batch, L, H, P\) \(x: \(2, 17, 4\), dt: "),
        (call(x=[1.0]), DTypeError, "x is a list, not an array"),
        (call(x=None), DTypeError, "x is a NoneType"),
        (call(x=ones((2, 17, 4, 3), int)), DTypeError, "x has dtype int64"),
        (call(x=ones((2, 17, 4, 3)) + 0j), DTypeError, "x has dtype complex128, but must be real"),
        (call(x=nan * ones((2, 17, 4, 3))), DomainError, r"x holds NaN or inf \(shape \(2, 17, 4, 3\)\)"),
        (call(x=strict((2, 17, 4, 3))), MixedArraysError, r"libraries \(x: array_api_strict.*dt: numpy"),
        (call(dt=ones((2, 16, 4))), ShapeError, r"dt must be \(2, 17, 4\) \(x: .*dt: \(2, 16, 4\)"),
        (call(dt=nan * ones((2, 17, 4))), DomainError, "dt holds NaN or inf"),
        (call(A=ones(3)), ShapeError, r"A must be \(4,\) or \(2, 17, 4\) \(.*A: \(3,\)"),
        (call(A=ones((2, 17))), ShapeError, r"A: \(2, 17\)"),
        (call(A=-np.inf * ones(4)), DomainError, "A holds NaN or inf"),
        (call(D=ones(3)), ShapeError, r"D must be \(4,\).*D: \(3,\)"),
        (call(D=nan * ones(4)), DomainError, "D holds NaN"),
        (call(z=ones((2, 17, 4, 2))), ShapeError, r"z must be \(2, 17, 4, 3\) \(.*z: \(2, 17, 4, 2\)"),
        (call(z=1.0), DTypeError, "z is a float"),
        *[(call(chunk=c), OptionError, f"chunk = {c!r} must be a whole number of at least 1") for c in BAD_CHUNKS],
    ]


REFUSED: dict[str, list[Row]] = {
    "ssd": [
        *heads(ssd), *masks(ssd), *packed(SSD),
        (ssd(B=ones((2, 17, 3, 5))), ShapeError, r"3 groups of B do not divide 4 heads \(.*B: \(2, 17, 3, 5\)"),
        (ssd(C=ones((2, 17, 3, 5))), ShapeError, "3 groups of C do not divide 4 heads"),
        (ssd(B=ones((2, 17, 0, 5))), ShapeError, r"B must be \(2, 17, G, N\) \(.*B: \(2, 17, 0, 5\)"),
        (ssd(B=ones((2, 16, 2, 5))), ShapeError, r"B must be \(2, 17, G, N\)"),
        (ssd(B=ones((17, 2, 5))), ShapeError, r"B must be \(2, 17, G, N\)"),
        (ssd(B=ones((2, 17, 2, 4))), ShapeError, r"B and C must have the same groups and states \(.*C: \(2, 17, 2, 5"),
        (ssd(B=ones((2, 17, 1, 5))), ShapeError, "the same groups"),
        (ssd(D=ones((4, 2))), ShapeError, r"D must be \(4,\) or \(4, 3\)"),
        (ssd(dt=-ones((2, 17, 4))), DomainError, r"dt is negative at 136 steps \(x: .*\)\. Use dt_softplus=True"),
        (ssd(dt_bias=-9 * ones(4)), DomainError, "dt is negative at 136 steps .*dt_bias: "),
        (ssd(dt_bias=ones(3)), ShapeError, r"dt_bias must be \(4,\)"),
        (ssd(dt_bias=nan * ones(4)), DomainError, "dt_bias holds NaN"),
        (ssd(initial=ones((1, 4, 3, 5))), ShapeError, r"initial must be \(2, 4, 3, 5\) \(.*initial: \(1, 4, 3, 5\)"),
        (ssd(initial=ones((2, 4, 3, 5), int)), DTypeError, "initial has dtype int64"),
        (ssd(initial=ones((2, 4, 3, 5)) + 0j), DTypeError, "initial has dtype complex128, but must be real"),
        (ssd(initial=0.0), DTypeError, "initial is a float"),
        (ssd(initial=np.inf * ones((2, 4, 3, 5))), DomainError, "initial holds NaN or inf"),
        (ssd(initial=strict((2, 4, 3, 5))), MixedArraysError, "initial: array_api_strict"),
        *[
            (ssd(dt_limit=limit), OptionError, "dt_limit = .* must be two numbers, 0 <= low <= high")
            for limit in ((1.0, 0.1), (-1.0, 1.0), (nan, 1.0), (0.1,), (0.1, 1.0, 2.0), 0.1, None, "ab", ("a", "b"))
        ],
    ],
    "mamba3_scan": [
        *heads(mamba3), *one_of_each(masks(mamba3)), *one_of_each(packed(MAMBA3)), *one_of_each(packed(SEVERAL)),
        (mamba3(dt=-ones((2, 17, 4))), DomainError, r"dt is negative at 136 steps .*special\.softplus\(dt\)"),
        (mamba3(B=ones((2, 17, 3, 5))), ShapeError, "3 groups of B do not divide 4 heads"),
        (several(B=ones((2, 17, 2, 3, 5))), ShapeError, "3 groups of B do not divide 4 heads"),
        (several(B=ones((2, 17, 3, 2, 5))), ShapeError, r"C must be \(2, 17, 3, G, N\)"),
        (several(C=ones((2, 17, 2, 5))), ShapeError, r"C must be \(2, 17, 2, G, N\) \(.*C: \(2, 17, 2, 5\)"),
        (mamba3(trap=ones((2, 17))), ShapeError, r"trap must be \(2, 17, 4\)"),
        (mamba3(trap=None), DTypeError, "trap is a NoneType"),
        (mamba3(trap=ones((2, 17, 4), int)), DTypeError, "trap has dtype int64"),
        (mamba3(trap=nan * ones((2, 17, 4))), DomainError, "trap holds NaN"),
        (mamba3(angles=ones((2, 17, 4, 3))), ShapeError, r"3 angles turn 6 features, but there are 5 states \(x: "),
        (mamba3(angles=ones((2, 17, 2, 2))), ShapeError, r"angles must be \(2, 17, 4, 2\) or \(2, 17, 1, 2\)"),
        (mamba3(angles=ones((2, 17, 4))), ShapeError, r"angles: \(2, 17, 4\)"),
        (mamba3(angles=np.asarray(1.0)), ShapeError, r"angles: \(\)"),
        (mamba3(angles=None), DTypeError, "angles is a NoneType"),
        (mamba3(B_bias=ones((4, 4))), ShapeError, r"B_bias must be \(4, 5\) \(.*B_bias: \(4, 4\)"),
        (several(C_bias=ones((4, 5))), ShapeError, r"C_bias must be \(4, 2, 5\)"),
        (mamba3(C_bias=nan * ones((4, 5))), DomainError, "C_bias holds NaN"),
        (mamba3(D=ones((4, 3))), ShapeError, r"D must be \(4,\)"),
        (mamba3(rank_maps=(ones((4, 1, 3)),) * 3), OptionError, "of R inputs a step go with rank_maps, and without"),
        (several(rank_maps=None), OptionError, "go with rank_maps"),
        (several(rank_maps=()), ShapeError, "rank_maps must be a tuple of 3 arrays, not 0 of them"),
        (several(rank_maps=(ones((4, 2, 3)),) * 2), ShapeError, "not 2 of them"),
        (several(rank_maps=ones((3, 4, 2, 3))), ShapeError, "not a ndarray"),
        (several(rank_maps=3), ShapeError, "not a int"),
        (several(rank_maps=(ones((4, 3, 3)),) * 3), ShapeError, r"x_map must be \(4, 2, 3\) \(.*x_map: \(4, 3, 3\)"),
        (several(rank_maps=(ones((4, 2, 3)), None, ones((4, 2, 3)))), OptionError, "None exactly where z is"),
        (several(z=None), OptionError, "None exactly where z is"),
        (several(rank_maps=(None,) * 3), OptionError, "rank_maps are arrays"),
        (several(rank_maps=([1.0],) * 3), DTypeError, "x_map is a list"),
        (several(rank_maps=(nan * ones((4, 2, 3)),) * 3), DomainError, "x_map holds NaN"),
        (mamba3(initial=ones((2, 4, 3, 5))), ShapeError, "initial must be a tuple of 4 arrays, not a ndarray"),
        (mamba3(initial=PARTS[:3]), ShapeError, "initial must be a tuple of 4 arrays, not 3 of them"),
        (mamba3(initial=(None, *PARTS[1:])), DTypeError, "t is a NoneType"),
        (mamba3(initial=MAMBA3.state(batch=1)), ShapeError, r"t must be \(2, 4, 2\) \(.*t: \(1, 4, 2\)"),
        (mamba3(initial=SEVERAL.state()), ShapeError, r"K must be \(2, 4, 5\) \(.*K: \(2, 4, 2, 5\)"),
        (several(initial=PARTS), ShapeError, r"K must be \(2, 4, 2, 5\)"),
        (mamba3(initial=(*PARTS[:3], PARTS[3].astype(int))), DTypeError, "before has dtype int64"),
        (mamba3(initial=(*PARTS[:3], PARTS[3] * nan)), DomainError, "before holds NaN"),
    ],
    "selective_scan": [
        *one_of_each(masks(selective)), *one_of_each(packed(SELECTIVE)), *one_of_each(packed(TRAPEZOIDAL)),
        *[(selective(chunk=c), OptionError, f"chunk = {c!r} must be a whole number of at least 1") for c in BAD_CHUNKS],
        (selective(D=nan * ones(4)), DomainError, "D holds NaN"),
        (selective(z=nan * ones((2, 4, 17))), DomainError, "z holds NaN"),
        (selective(dt_bias=nan * ones(4)), DomainError, "dt_bias holds NaN"),
        (selective(C=1j * ones((2, 2, 5, 17))), DTypeError, r"C is complex but A is real \(u: .*A complex A makes"),
        (selective(discretization="Zoh"), OptionError, "unknown discretization 'Zoh'. Known: .*'trapezoidal'"),
        (selective(initial=ones((2, 4, 10))), ShapeError, r"initial must be \(2, 4, 5\) \(.*initial: \(2, 4, 10\)"),
        (trapezoidal(initial=ones((2, 4, 5))), ShapeError, r"initial must be \(2, 4, 10\) \(.*initial: \(2, 4, 5\)"),
        (trapezoidal(initial=1j * ones((2, 4, 10))), DTypeError, "initial is complex, but the states of a real A"),
        (
            selective(A=ones((4, 5)), dt=100 * ones((2, 4, 17))),
            DomainError,
            r"overflows at step 8: dt A > 0 lets it grow, .*\(u: \(2, 4, 17\).*A = -exp\(A_log\)",
        ),
        (
            trapezoidal(A=ones((4, 5)), dt=100 * ones((2, 4, 17))),
            DomainError,
            "the state overflows at step 8: dt A > 0",
        ),
    ],
    "causal_conv1d": [
        *one_of_each(masks(conv)),
        (conv(u=ones((4, 17))), ShapeError, r"u must be \(batch, H, L\) \(u: \(4, 17\), weight: \(4, 4\)"),
        (conv(u="a"), DTypeError, "u is a str"),
        (conv(u=ones((2, 4, 17), int)), DTypeError, "u has dtype int64"),
        (conv(u=ones((2, 4, 17)) + 0j), DTypeError, "u has dtype complex128, but must be real"),
        (conv(u=nan * ones((2, 4, 17))), DomainError, "u holds NaN"),
        (conv(weight=ones((3, 4))), ShapeError, r"weight must be \(4, K\), K taps for each channel .*weight: \(3, 4\)"),
        (conv(weight=ones((4, 0))), ShapeError, r"weight: \(4, 0\)"),
        (conv(weight=ones((4, 1, 4))), ShapeError, r"weight: \(4, 1, 4\)"),
        (conv(weight=None), DTypeError, "weight is a NoneType"),
        (conv(weight=np.inf * ones((4, 4))), DomainError, "weight holds NaN or inf"),
        (conv(weight=strict((4, 4))), MixedArraysError, "weight: array_api_strict"),
        (conv(bias=ones(3)), ShapeError, r"bias must be \(4,\) \(.*bias: \(3,\)"),
        (conv(bias=0.0), DTypeError, "bias is a float"),
        (conv(initial=ones((2, 4, 4))), ShapeError, r"initial must be \(2, 4, 3\) \(.*initial: \(2, 4, 4\)"),
        (conv(initial=ones((1, 4, 3))), ShapeError, r"initial must be \(2, 4, 3\)"),
        (conv(initial=ones((2, 4, 3)) + 0j), DTypeError, "initial has dtype complex128"),
    ],
    "rms_norm": [
        (norm(1.0), DTypeError, "x is a float"),
        (norm([1.0]), DTypeError, "x is a list"),
        (norm(np.asarray(1.0)), ShapeError, r"x must have an axis of features \(x: \(\)\)"),
        (norm(ones(6, int)), DTypeError, "x has dtype int64"),
        (norm(ones(6) + 0j), DTypeError, "x has dtype complex128, but must be real"),
        (norm(ones((2, 6)), ones(5)), ShapeError, r"weight must be \(6,\) \(x: \(2, 6\), weight: \(5,\)\)"),
        (norm(ones((2, 6)), ones((2, 6))), ShapeError, r"weight: \(2, 6\)"),
        (norm(ones((2, 6)), 1.0), DTypeError, "weight is a float"),
        (norm(ones((2, 6)), strict(6)), MixedArraysError, "weight: array_api_strict"),
        (norm(strict(2), elsewhere), MixedArraysError, "several devices"),
        (norm(gate=ones(6)), ShapeError, r"gate must have x's shape \(x: \(2, 6\), gate: \(6,\)\)"),
        (norm(gate=ones((2, 6)) + 0j), DTypeError, "gate has dtype complex128"),
        *[
            (norm(groups=g), OptionError, r"groups = .* must divide the 6 features \(x: \(2, 6\)\)")
            for g in (4, 0, -1, 12, 2.0, True, "a", None)
        ],
        *[
            (norm(epsilon=e), OptionError, r"epsilon = .* must be a finite number of at least 0 \(x: \(2, 6\)\)")
            for e in (-1e-5, np.inf, nan, "a", None, True)
        ],
    ],
    "selective_state_update": [
        (update(state=ones((1, 4, 3, 5))), ShapeError, r"state must be \(2, 4, 3, 5\) \(state: \(1, 4, 3, 5\)"),
        (update(state=None), DTypeError, "state is a NoneType"),
        (update(state=ones((2, 4, 3, 5), int)), DTypeError, "state has dtype int64"),
        (update(state=ones((2, 4, 3, 5)) + 0j), DTypeError, "state has dtype complex128, but must be real"),
        (update(state=nan * ones((2, 4, 3, 5))), DomainError, "state holds NaN"),
        (update(state=strict((2, 4, 3, 5))), MixedArraysError, "state: array_api_strict"),
        (update(x=ones((2, 4))), ShapeError, r"x must be \(batch, H, P\) \(state: .*x: \(2, 4\)"),
        (update(dt=ones((2, 4))), ShapeError, r"dt must be \(2, 4, 3\) \(.*dt: \(2, 4\)"),
        (update(dt=-ones((2, 4, 3))), DomainError, r"dt is negative at 24 steps \(.*dt_softplus=True"),
        (update(dt=nan * ones((2, 4, 3))), DomainError, "dt holds NaN"),
        (update(A=ones(3)), ShapeError, r"A must be \(4, 3, 5\) or \(4,\) \(.*A: \(3,\)"),
        (update(A=ones((4, 3))), ShapeError, r"A: \(4, 3\)"),
        (update(B=ones((2, 3, 5))), ShapeError, "3 groups of B do not divide 4 heads"),
        (update(B=ones((2, 2, 4))), ShapeError, "B and C must have the same groups and states"),
        (update(C=ones((2, 5))), ShapeError, r"C must be \(2, G, N\) \(.*C: \(2, 5\)"),
        (update(D=ones(3)), ShapeError, r"D must be \(4, 3\) or \(4,\)"),
        (update(dt_bias=ones((3, 4))), ShapeError, r"dt_bias must be \(4, 3\) or \(4,\)"),
        (update(z=ones((2, 4))), ShapeError, r"z must be \(2, 4, 3\)"),
        (update(z=1.0), DTypeError, "z is a float"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(REFUSED))
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)


@pytest.mark.parametrize("kind", [SSD, MAMBA3, SELECTIVE, CONVOLUTION], ids=lambda kind: kind.name)
def test_what_is_changed_here_is_right_before(kind: Gated):
    kind.run(kind.inputs(), kind.state())
    selective_state_update(**STEP)
