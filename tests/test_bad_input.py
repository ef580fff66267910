"""What users get wrong, function by function: the error names the operation, the argument and the cause.

Every row is (call, class of the error, pattern that its message holds); every message starts with the operation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

import ssm_core
from ssm_core import (
    DPLR,
    Dense,
    Diagonal,
    DomainError,
    DTypeError,
    MissingPackageError,
    MixedArraysError,
    OptionError,
    Rational,
    ShapeError,
    SSMError,
    adapters,
    chunk_summary,
    convolve,
    diagonal_init,
    diagonal_scan,
    discretize,
    expm,
    frequency_response,
    hippo,
    kernel,
    layers,
    linear_scan,
    poles,
    scan,
    step,
    use_backend,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

one, two, ten, nan = np.ones(1), np.ones(2), np.ones(10), np.full(2, np.nan)
eye = np.eye(2)
whole, text, objects = np.ones(2, int), np.asarray(["a", "b"]), np.asarray([1, 2], object)
strict = array_api_strict.ones(2)  # an array of another library, without PyTorch or JAX at hand
elsewhere = array_api_strict.ones(2, device=array_api_strict.Device("device1"))
far = array_api_strict.ones(10, device=array_api_strict.Device("device1"))
off, reset5 = np.zeros(10, bool), np.zeros(5, bool)

continuous = Diagonal(-two, two, two)
discrete = Diagonal(two / 2, two, two, discrete=True)
dense = Dense(-eye, two, two)
several = Diagonal(two / 2, np.ones((2, 3)), np.ones((4, 2)), discrete=True)
dplr = DPLR(-two, np.ones((1, 2)), np.ones((1, 2)), two, two)
rational = Rational(two, two)


def with_(**fields: Any) -> Diagonal:
    return replace(continuous, **fields)


Row = tuple[Callable[[], Any], type, str]

ARRAYS: dict[str, list[Row]] = {
    "linear_scan": [
        (lambda: linear_scan([0.5], two, axis=0), DTypeError, r"a is a list, .* xp\.asarray\(a\)"),
        (lambda: linear_scan("x", two, axis=0), DTypeError, "a is a str"),
        (lambda: linear_scan(None, two, axis=0), DTypeError, r"\ba\b"),
        (lambda: linear_scan(0.5, [1.0, 2.0], axis=0), DTypeError, "b is a list"),
        (lambda: linear_scan(0.5, 1.0, axis=0), DTypeError, "b is a float|no array"),
        (lambda: linear_scan(two, None, axis=0), DTypeError, "b is a NoneType"),
        (lambda: linear_scan(whole, two, axis=0), DTypeError, r"a has dtype int64 .*xp\.astype\(a"),
        (lambda: linear_scan(two, whole, axis=0), DTypeError, "b has dtype int64"),
        (lambda: linear_scan(two > 0, two, axis=0), DTypeError, "a has dtype bool"),
        (lambda: linear_scan(two, text, axis=0), DTypeError, "b has dtype <U1"),
        (lambda: linear_scan(two, objects, axis=0), DTypeError, "b has dtype object"),
        (lambda: linear_scan(two, strict, axis=0), MixedArraysError, r"libraries \(a: numpy.*b: array_api_strict"),
        (lambda: linear_scan(strict, elsewhere, axis=0), MixedArraysError, r"devices \(a: .*CPU.*b: .*device1"),
        (lambda: linear_scan(two, ten, axis=0), ShapeError, r"broadcast \(a: \(2,\), b: \(10,\)\)"),
        (lambda: linear_scan(two, two, axis=1), OptionError, r"axis 1 is outside the 1 axes \(a: \(2,\), b: \(2,\)\)"),
        (lambda: linear_scan(two, two, axis=-2), OptionError, "axis -2 is outside"),
        (lambda: linear_scan(two, two, axis=0.0), SSMError, r"axis.*0\.0"),
        (lambda: linear_scan(two, two, axis="0"), SSMError, "axis.*'0'"),
        (lambda: linear_scan(two, two, axis=None), SSMError, "axis.*None"),
        (lambda: linear_scan(1.0, np.asarray(1.0), axis=0), OptionError, "axis 0 is outside the 0 axes"),
        (lambda: linear_scan(two, two, axis=0, initial=two), ShapeError, r"initial .*state \(\) .*initial: \(2,\)"),
        (lambda: linear_scan(eye, eye, axis=0, initial=ten), ShapeError, r"initial: \(10,\)"),
        (lambda: linear_scan(two, two, axis=0, initial=[1.0]), DTypeError, "initial is a list"),
        (lambda: linear_scan(eye, eye, axis=0, initial=whole), DTypeError, "initial has dtype int64"),
        (lambda: linear_scan(eye, eye, axis=0, initial=strict), MixedArraysError, "initial: array_api_strict"),
        (
            lambda: linear_scan(two, two, axis=0, backend="fast"),
            OptionError,
            "unknown backend 'fast'. Known: 'gen",
        ),
        (lambda: linear_scan(two, two, axis=0, backend=3), OptionError, "unknown backend 3"),
    ],
    "chunk_summary": [
        (lambda: chunk_summary([0.5], two, axis=0), DTypeError, "a is a list"),
        (lambda: chunk_summary(two, 1.0, axis=0), DTypeError, "b is a float"),
        (lambda: chunk_summary(whole, two, axis=0), DTypeError, "a has dtype int64"),
        (lambda: chunk_summary(two, ten, axis=0), ShapeError, r"broadcast \(a: \(2,\), b: \(10,\)\)"),
        (lambda: chunk_summary(two, two, axis=4), OptionError, "axis 4 is outside"),
        (lambda: chunk_summary(two, strict, axis=0), MixedArraysError, "libraries"),
        (lambda: chunk_summary(np.ones(0), np.ones(0), axis=0), ShapeError, "at least one step"),
    ],
    "convolve": [
        (lambda: convolve([1.0], two), DTypeError, "u is a list"),
        (lambda: convolve(two, [1.0]), DTypeError, "k is a list"),
        (lambda: convolve(1.0, two), DTypeError, "u is a float"),
        (lambda: convolve(two, 1.0), DTypeError, "k is a float"),
        (lambda: convolve(None, two), DTypeError, "u is a NoneType"),
        (lambda: convolve(two, None), DTypeError, "k is a NoneType"),
        (lambda: convolve(two, two, kernel_reverse=1.0), DTypeError, "kernel_reverse is a float"),
        (lambda: convolve(two, two, kernel_reverse=[1.0]), DTypeError, "kernel_reverse is a list"),
        (lambda: convolve(whole, two), DTypeError, "u has dtype int64"),
        (lambda: convolve(two, text), DTypeError, "k has dtype <U1"),
        (lambda: convolve(two, objects), DTypeError, "k has dtype object"),
        (lambda: convolve(two, two, kernel_reverse=whole), DTypeError, "kernel_reverse has dtype int64"),
        (lambda: convolve(np.asarray(1.0), two), ShapeError, r"u has no time axis \(u: \(\), k: \(2,\)\)"),
        (lambda: convolve(two, np.asarray(1.0)), ShapeError, "k has no time axis"),
        (lambda: convolve(eye, np.ones((3, 2))), ShapeError, r"broadcast .*k: \(3"),
        (lambda: convolve(two, strict), MixedArraysError, r"libraries \(u: numpy.*k: array_api_strict"),
        (lambda: convolve(strict, elsewhere), MixedArraysError, "devices"),
    ],
    "diagonal_scan": [
        (lambda: diagonal_scan([1.0], two, two, two), DTypeError, "u is a list"),
        (lambda: diagonal_scan(1.0, two, two, two), DTypeError, "u is a float"),
        (lambda: diagonal_scan(None, two, two, two), DTypeError, "u is a NoneType"),
        (lambda: diagonal_scan(ten, 0.5, two, two), DTypeError, "Ab is a float"),
        (lambda: diagonal_scan(ten, None, two, two), DTypeError, "Ab is a NoneType"),
        (lambda: diagonal_scan(ten, two, 1.0, two), DTypeError, "Bb is a float"),
        (lambda: diagonal_scan(ten, two, two, None), DTypeError, "C is a NoneType"),
        (lambda: diagonal_scan(ten.astype(int), two, two, two), DTypeError, "u has dtype int64"),
        (lambda: diagonal_scan(ten, whole, two, two), DTypeError, "Ab has dtype int64"),
        (lambda: diagonal_scan(ten, two, objects, two), DTypeError, "Bb has dtype object"),
        (lambda: diagonal_scan(ten, two, two, text), DTypeError, "C has dtype <U1"),
        (lambda: diagonal_scan(np.asarray(1.0), two, two, two), ShapeError, r"u: \(\)"),
        (lambda: diagonal_scan(ten, *[np.asarray(1.0)] * 3), ShapeError, r"Ab: \(\)"),
        (lambda: diagonal_scan(ten, two, one, two), ShapeError, r"2 states of Ab .*Bb: \(1,\)"),
        (lambda: diagonal_scan(ten, two, two, one), ShapeError, r"2 states of Ab .*C: \(1,\)"),
        (lambda: diagonal_scan(ten, two, np.ones((2, 3)), two), ShapeError, r"u: \(10,\).*Bb: \(2, 3\)"),
        (lambda: diagonal_scan(np.ones((2, 9)), two, np.ones((2, 3)), two), ShapeError, "u has 2 inputs but Bb has 3"),
        (
            lambda: diagonal_scan(ten, two, np.ones((2, 3, 1)), two),
            ShapeError,
            "Bb needs the 1 axes of Ab",
        ),
        (lambda: diagonal_scan(ten, two, two, np.ones((1, 1, 2))), ShapeError, "C needs the 1 axes of Ab"),
        (lambda: diagonal_scan(np.ones((3, 9)), eye, eye, eye), ShapeError, r"broadcast \(u: \(3,\), Ab: \(2,\)"),
        (lambda: diagonal_scan(ten, two, two, two, initial=one), ShapeError, r"initial: \(1,\)"),
        (lambda: diagonal_scan(ten, two, two, two, initial=np.ones(3)), ShapeError, r"initial: \(3,\)"),
        (lambda: diagonal_scan(ten, two, two, two, initial=np.asarray(1.0)), ShapeError, r"initial: \(\)"),
        (lambda: diagonal_scan(ten, two, two, two, initial=1.0), DTypeError, "initial is a float"),
        (lambda: diagonal_scan(ten, two, two, two, initial=[1.0, 1.0]), DTypeError, "initial is a list"),
        (lambda: diagonal_scan(ten, two, two, two, initial=whole), DTypeError, "initial has dtype int64"),
        (
            lambda: diagonal_scan(ten, two, two, two, reset=ten.astype(int)),
            DTypeError,
            "reset has dtype int64, but",
        ),
        (lambda: diagonal_scan(ten, two, two, two, reset=reset5), ShapeError, r"reset: \(5,\)"),
        (lambda: diagonal_scan(ten, two, two, two, reset=np.asarray(True)), ShapeError, r"reset: \(\)"),
        (lambda: diagonal_scan(ten, two, two, two, reset=True), DTypeError, "reset is a bool"),
        (lambda: diagonal_scan(ten, two, two, two, reset=[True]), DTypeError, "reset is a list"),
        (lambda: diagonal_scan(ten, two, two, two, per_step=True), ShapeError, r"Ab: \(2,\)"),
        (lambda: diagonal_scan(ten, *[np.ones((9, 2))] * 3, per_step=True), ShapeError, "Ab must have 1 or 10 entries"),
        (lambda: diagonal_scan(ten, two, two, two, chunk=0), OptionError, "chunk"),
        (lambda: diagonal_scan(ten, two, two, two, chunk=-1), OptionError, "chunk"),
        (lambda: diagonal_scan(ten, two, two, two, chunk=2.5), OptionError, "chunk"),
        (lambda: diagonal_scan(ten, two, two, two, chunk="a"), OptionError, "chunk"),
        (lambda: diagonal_scan(strict, two, two, two), MixedArraysError, r"libraries \(u: array_api_strict"),
    ],
    "expm": [
        (lambda: expm(None), DTypeError, "no array"),
        (lambda: expm([[1.0]]), DTypeError, "A is a list"),
        (lambda: expm(np.eye(2, dtype=int)), DTypeError, "A has dtype int64"),
        (lambda: expm(text), DTypeError, "A has dtype <U1"),
        (lambda: expm(two), ShapeError, r"square matrices .*\(2,\)"),
        (lambda: expm(np.ones((2, 3))), ShapeError, r"\(2, 3\)"),
    ],
}


def systems_of(f: Callable[..., Any], discretized: bool = False) -> list[Row]:
    """What is wrong with a system, for any function f(system) of systems (continuous ones are given their dt)."""
    D3 = np.ones(3)
    return [
        (lambda: f(None), DTypeError, r"a NoneType is no system\. Pass Dense, Diagonal"),
        (lambda: f("S4"), DTypeError, "a str is no system"),
        (lambda: f(eye), DTypeError, "a ndarray is no system"),
        (lambda: f((eye,)), ShapeError, "2 to 4 members .* not 1"),
        (lambda: f((eye, two, two, 0.0, 1)), ShapeError, "2 to 4 members .* not 5"),
        (lambda: f(([[1.0]], [1.0], [1.0])), DTypeError, "A is a list"),
        (lambda: f((eye, 1.0, two)), DTypeError, "B is a float"),
        (lambda: f((eye, None, two)), DTypeError, "B is a NoneType"),
        (lambda: f((None, two, two)), DTypeError, "A is a NoneType"),
        (lambda: f((eye, two, two, "a")), DTypeError, "D is a str"),
        (
            lambda: f((np.ones((2, 3)), two, two)),
            ShapeError,
            r"A of a Dense system must be \(\.\.\., N, N\) \(A: ",
        ),
        (lambda: f((two, two, two)), ShapeError, "A of a Dense system must be"),
        (lambda: f((np.eye(2, dtype=int), two, two)), DTypeError, "A has dtype int64"),
        (lambda: f((eye, strict, two)), MixedArraysError, r"libraries \(A: numpy.*B: array_api_strict"),
        (lambda: f(with_(poles=1.0)), DTypeError, "poles is a float"),
        (lambda: f(with_(poles=None)), DTypeError, "poles is a NoneType"),
        (lambda: f(with_(poles=[-1.0, -1.0])), DTypeError, "poles is a list"),
        (lambda: f(with_(poles=np.asarray(1.0))), ShapeError, r"poles of a Diagonal system must be \(\.\.\., N\)"),
        (lambda: f(with_(poles=whole)), DTypeError, "poles has dtype int64"),
        (lambda: f(with_(poles=text)), DTypeError, "poles has dtype <U1"),
        (lambda: f(with_(poles=objects)), DTypeError, "poles has dtype object"),
        (lambda: f(with_(B=1.0)), DTypeError, "B is a float"),
        (lambda: f(with_(B=None)), DTypeError, "B is a NoneType"),
        (lambda: f(with_(B=D3)), ShapeError, r"B has 3 states but poles has 2 poles \(poles: \(2,\), B: \(3,\)"),
        (lambda: f(with_(B=np.asarray(1.0))), ShapeError, "B has 0 axes"),
        (lambda: f(with_(C=D3)), ShapeError, "C has 3 states but poles has 2"),
        (lambda: f(with_(C="a")), DTypeError, "C is a str"),
        (lambda: f(with_(D=[1.0])), DTypeError, "D is a list"),
        (lambda: f(with_(D=D3)), ShapeError, r"D has 1 axes but needs 0"),
        (lambda: f(with_(C=np.ones((2, 2)), D=D3)), ShapeError, r"D: \(3,\)"),
        (lambda: f(with_(B=np.ones((2, 3)), C=eye, D=np.ones((3, 2)))), ShapeError, r"D: \(3, 2\)"),
        (lambda: f(with_(poles=eye)), ShapeError, r"B has 1 axes, but poles has 1 batch axes.*poles\[None\]"),
        (lambda: f(Diagonal(eye, np.ones((3, 2)), eye)), ShapeError, r"broadcast \(poles: \(2,\), B: \(3,\)"),
        (lambda: f(Diagonal(eye, eye, eye, D3)), ShapeError, r"D: \(3,\)"),
        (lambda: f(with_(B=strict)), MixedArraysError, "B: array_api_strict"),
        (lambda: f(Diagonal(strict, elsewhere, strict)), MixedArraysError, "devices"),
        (lambda: f(with_(poles=nan)), DomainError, r"poles holds NaN or inf \(shape \(2,\)\)"),
        (lambda: f(with_(B=np.full(2, np.inf))), DomainError, "B holds NaN or inf"),
        (lambda: f(with_(C=nan)), DomainError, "C holds NaN or inf"),
        (lambda: f(with_(D=np.nan)), DomainError, "D holds NaN or inf"),
        (lambda: f(dplr), OptionError, "DPLR systems are not supported yet"),
    ]


def steps_of(f: Callable[..., Any]) -> list[Row]:
    """What is wrong with dt and method, for any function f(system, dt=, method=, alpha=)."""
    return [
        (lambda: f(continuous), OptionError, r"a continuous system needs its step: .*dt=0\.01"),
        (lambda: f(discrete, dt=0.1), OptionError, r"discrete already, so it takes no dt \(dt: 0\.1\)"),
        (lambda: f(rational, dt=0.1), OptionError, "discrete already"),
        (lambda: f(continuous, dt=0), DomainError, "dt = 0 must be positive and finite"),
        (lambda: f(continuous, dt=-1.0), DomainError, r"dt = -1\.0 must be positive"),
        (lambda: f(continuous, dt=np.nan), DomainError, "dt = nan must be"),
        (lambda: f(continuous, dt=np.inf), DomainError, "dt = inf must be"),
        (lambda: f(continuous, dt=np.float64(-1)), DomainError, "dt.* must be positive"),
        (lambda: f(continuous, dt=np.float32(-1)), DomainError, "dt.* must be positive"),
        (lambda: f(continuous, dt=np.asarray(-0.1)), DomainError, r"dt \(shape \(\)\) must be positive"),
        (lambda: f(continuous, dt=np.asarray([0.1, np.nan])), DomainError, r"dt \(shape \(2,\)\) must be"),
        (lambda: f(continuous, dt=True), SSMError, "dt.*(True|bool)"),
        (lambda: f(continuous, dt="a"), DTypeError, "dt is a str"),
        (lambda: f(continuous, dt=1j), DTypeError, "dt"),
        (lambda: f(continuous, dt=[0.1]), DTypeError, "dt is a list"),
        (lambda: f(continuous, dt=np.asarray(1)), DTypeError, "dt has dtype int64"),
        (lambda: f(continuous, dt=np.asarray(0.1 + 0j)), DTypeError, "dt has dtype complex128, but must be real"),
        (lambda: f(continuous, dt=np.ones(3)), ShapeError, r"broadcast \(dt: \(3,\), poles: \(2,\)\)"),
        (lambda: f(continuous, dt=eye), ShapeError, r"dt has 2 axes, .* 0 batch axes \(dt: \(2, 2\), poles: \(2,\)\)"),
        (lambda: f(dense, dt=two), ShapeError, r"dt has 1 axes, but the system has 0 batch axes .*A: \(2, 2\)"),
        (lambda: f(continuous, dt=strict), MixedArraysError, "dt: array_api_strict"),
        (
            lambda: f(continuous, dt=0.1, method="foh"),
            OptionError,
            "unknown method 'foh'. Known: 'zoh', 'bilinear",
        ),
        (lambda: f(continuous, dt=0.1, method=None), OptionError, "unknown method None"),
        (lambda: f(continuous, dt=0.1, method=["zoh"]), OptionError, r"unknown method \['zoh'\]"),
        (lambda: f(continuous, dt=0.1, method="gbt"), OptionError, "'gbt' needs alpha=, such as alpha=0.5"),
        (lambda: f(continuous, dt=0.1, alpha=0.5), OptionError, "'zoh' takes no alpha; only 'gbt' does"),
        (lambda: f(continuous, dt=0.1, method="gbt", alpha=2), DomainError, r"alpha = 2 must lie in \[0, 1\]"),
        (lambda: f(continuous, dt=0.1, method="gbt", alpha=np.nan), DomainError, "alpha = nan"),
        (lambda: f(continuous, dt=0.1, method="gbt", alpha="a"), SSMError, "alpha"),
        (lambda: f(continuous, dt=0.1, method="gbt", alpha=two), SSMError, "alpha"),
    ]


def dt_for(system: Any) -> float | None:
    """0.1 for what is continuous or wrong; a step for a discrete system would be a second mistake."""
    return None if getattr(system, "discrete", False) else 0.1


SYSTEMS: dict[str, list[Row]] = {
    "discretize": [
        *systems_of(lambda s: discretize(s, 0.1)),
        *steps_of(lambda s, dt=None, **options: discretize(s, dt, **options)),
        (lambda: discretize(discrete, None), OptionError, "discrete already"),
    ],
    "kernel": [
        *systems_of(lambda s: kernel(s, 4, dt=dt_for(s))),
        *steps_of(lambda s, **options: kernel(s, 4, **options)),
        (lambda: kernel(rational, 4), OptionError, "Rational systems are not supported yet"),
        (lambda: kernel(replace(discrete, C=None), 4), OptionError, r"no output vector C.*dataclasses\.replace"),
        (lambda: kernel((eye, two), 4), OptionError, "no output vector C"),
        (lambda: kernel(discrete, 0), OptionError, "length = 0 must be at least 1"),
        (lambda: kernel(discrete, -1), OptionError, "length = -1 must be at least 1"),
        (lambda: kernel(discrete, 2.0), OptionError, "length is 2.0, but must be a whole number"),
        (lambda: kernel(discrete, True), OptionError, "length is True"),
        (lambda: kernel(discrete, "4"), OptionError, "length is '4'"),
        (lambda: kernel(discrete, None), OptionError, "length is None"),
        (lambda: kernel(discrete, whole), OptionError, "length"),
        (lambda: kernel(([["a"]], ["b"], ["c"]), 4, xp="numpy"), DTypeError, "<U1"),
        (lambda: kernel(([[1, 2], [3]], [1], [1]), 4, xp="numpy"), SSMError, r"\bA\b"),
        (lambda: kernel(([[0.5]], [1.0], [1.0]), 4, xp="no_such_library"), MissingPackageError, "pip install no_such"),
        (lambda: kernel(([[0.5]], [1.0], [1.0]), 4, xp="math"), SSMError, "xp.*math"),
        (lambda: kernel(([[0.5]], [1.0], [1.0]), 4, xp=3), SSMError, "xp.*3"),
        (lambda: kernel(([[0.5]], [1.0], [1.0]), 4, xp=""), SSMError, "xp"),
    ],
    "scan": [
        *systems_of(lambda s: scan(s, ten, dt=dt_for(s))),
        *steps_of(lambda s, **options: scan(s, ten, **options)),
        (lambda: scan(rational, ten), OptionError, "Rational systems are not supported yet"),
        (lambda: scan(replace(discrete, C=None), ten), OptionError, "no output vector C"),
        (lambda: scan(discrete, None), DTypeError, "u is a NoneType"),
        (lambda: scan(discrete, 1.0), DTypeError, "u is a float"),
        (lambda: scan(discrete, [1.0, 2.0]), DTypeError, "u is a list"),
        (lambda: scan(discrete, whole), DTypeError, "u has dtype int64"),
        (lambda: scan(discrete, off), DTypeError, "u has dtype bool"),
        (lambda: scan(discrete, text), DTypeError, "u has dtype <U1"),
        (lambda: scan(discrete, objects), DTypeError, "u has dtype object"),
        (lambda: scan(discrete, nan), DomainError, r"u holds NaN or inf \(shape \(2,\)\)"),
        (lambda: scan(discrete, strict), MixedArraysError, r"libraries \(.*u: array_api_strict"),
        (lambda: scan(discrete, np.asarray(1.0)), ShapeError, r"u needs 1 axes .*u: \(\)"),
        (lambda: scan(several, ten), ShapeError, r"u needs 2 axes \(P, L\) .*u: \(10,\)"),
        (lambda: scan(several, np.ones((2, 10))), ShapeError, "u has 2 inputs but B has 3"),
        (lambda: scan(Diagonal(eye, eye, eye, discrete=True), np.ones((3, 5))), ShapeError, r"broadcast \(u: \(3,\)"),
        (
            lambda: scan(discrete, ten, initial=np.ones(3)),
            ShapeError,
            r"initial must .* 2 states .*initial: \(3,\)",
        ),
        (lambda: scan(discrete, ten, initial=np.asarray(1.0)), ShapeError, r"initial: \(\)"),
        (lambda: scan(discrete, np.ones((3, 5)), initial=eye), ShapeError, r"broadcast .*initial: \(2,\)"),
        (lambda: scan(discrete, ten, initial=1.0), DTypeError, "initial is a float"),
        (lambda: scan(discrete, ten, initial=[1.0, 1.0]), DTypeError, "initial is a list"),
        (lambda: scan(discrete, ten, initial=whole), DTypeError, "initial has dtype int64"),
        (lambda: scan(discrete, ten, initial=nan), DomainError, "initial holds NaN"),
        (lambda: scan(discrete, ten, initial=strict), MixedArraysError, "initial: array_api_strict"),
        (lambda: scan(discrete, ten, reset=ten.astype(int)), DTypeError, "reset has dtype int64, .* bool: reset > 0"),
        (
            lambda: scan(discrete, ten, reset=reset5),
            ShapeError,
            r"reset .*one entry a step, .*10.*reset: \(5,\)",
        ),
        (lambda: scan(discrete, ten, reset=[True]), DTypeError, "reset is a list"),
        (lambda: scan(discrete, ten, reset=True), DTypeError, "reset is a bool"),
        (lambda: scan(discrete, ten, reset=off, mode="conv"), OptionError, "'conv' cannot .* resets. Use mode='chunk'"),
        (
            lambda: scan(discrete, np.ones((3, 5)), reset=np.zeros((2, 5), bool)),
            ShapeError,
            r"broadcast .*reset: \(2,\)",
        ),
        (lambda: scan(discrete, ten, lengths=3), DTypeError, "lengths is a(n)? int"),
        (lambda: scan(discrete, ten, lengths=[3]), DTypeError, "lengths is a list"),
        (
            lambda: scan(discrete, ten, lengths=np.asarray(3.0)),
            DTypeError,
            "lengths has dtype float64, but must be int",
        ),
        (lambda: scan(discrete, ten, lengths=np.asarray(True)), DTypeError, "lengths has dtype bool"),
        (lambda: scan(discrete, ten, lengths=np.asarray(11)), DomainError, "lengths"),
        (lambda: scan(discrete, ten, lengths=np.asarray(-1)), DomainError, "lengths"),
        (lambda: scan(discrete, np.ones((2, 5)), lengths=np.arange(3)), ShapeError, r"broadcast .*lengths: \(3,\)"),
        (lambda: scan(continuous, ten, dt=0.1, step_scale=two), ShapeError, r"step_scale .*10.*step_scale: \(2,\)"),
        (lambda: scan(continuous, ten, dt=0.1, step_scale=2.0), DTypeError, "step_scale is a float"),
        (lambda: scan(continuous, ten, dt=0.1, step_scale=ten.astype(int)), DTypeError, "step_scale has dtype int64"),
        (lambda: scan(continuous, ten, dt=0.1, step_scale=ten + 0j), DTypeError, "step_scale .*must be real"),
        (lambda: scan(continuous, ten, dt=0.1, step_scale=-ten), DomainError, "step_scale"),
        (lambda: scan(continuous, ten, dt=0.1, step_scale=ten * np.nan), DomainError, "step_scale"),
        (lambda: scan(continuous, ten, dt=0.1, step_scale=ten, mode="conv"), OptionError, "'conv' .*Use mode='scan'"),
        (lambda: scan(discrete, ten, step_scale=ten), OptionError, "step_scale needs a continuous Diagonal system"),
        (lambda: scan(dense, ten, dt=0.1, step_scale=ten), OptionError, "not a continuous Dense one"),
        (
            lambda: scan(discrete, ten, mode="fft"),
            OptionError,
            "unknown mode 'fft'. Known: 'auto', 'conv', 'chunk', 'scan'",
        ),
        (lambda: scan(discrete, ten, mode=None), OptionError, "unknown mode None"),
        (lambda: scan(discrete, ten, mode=["conv"]), OptionError, r"unknown mode \['conv'\]"),
        (
            lambda: scan(replace(several, D=1.0), np.ones((3, 5))),
            ShapeError,
            "D = 1.0 is one number, .*3 inputs .*4",
        ),
        (lambda: scan(replace(discrete, D=strict), ten), MixedArraysError, "D: array_api_strict"),
    ],
    "step": [
        *systems_of(lambda s: step(s, np.asarray(1.0), two, dt=dt_for(s))),
        *steps_of(lambda s, **options: step(s, np.asarray(1.0), two, **options)),
        (lambda: step(rational, np.asarray(1.0), two), OptionError, "Rational systems are not supported yet"),
        (lambda: step(replace(discrete, C=None), np.asarray(1.0), two), OptionError, "no output vector C"),
        (lambda: step(discrete, 1.0, two), DTypeError, "u_k is a float"),
        (lambda: step(discrete, None, two), DTypeError, "u_k is a NoneType"),
        (lambda: step(discrete, [1.0], two), DTypeError, "u_k is a list"),
        (lambda: step(discrete, np.asarray(1), two), DTypeError, "u_k has dtype int64"),
        (lambda: step(discrete, np.asarray("a"), two), DTypeError, "u_k has dtype <U1"),
        (lambda: step(several, np.asarray(1.0), two), ShapeError, r"u_k: \(\)"),
        (lambda: step(several, two, two), ShapeError, r"2 inputs but B has 3 .*u_k: \(2,\)"),
        (lambda: step(discrete, np.asarray(1.0), np.ones(3)), ShapeError, r"2 states .*state: \(3,\)"),
        (lambda: step(discrete, two, np.ones((3, 2))), ShapeError, r"broadcast .*state: \(3"),
        (lambda: step(discrete, np.asarray(1.0), 0.0), DTypeError, "state is a float"),
        (lambda: step(discrete, np.asarray(1.0), [0.0, 0.0]), DTypeError, "state is a list"),
        (lambda: step(discrete, np.asarray(1.0), whole), DTypeError, "state has dtype int64"),
        (lambda: step(discrete, np.asarray(1.0), strict), MixedArraysError, "state: array_api_strict"),
    ],
    "frequency_response": [
        *systems_of(lambda s: frequency_response(s, two)),
        (lambda: frequency_response(rational, two), OptionError, "Rational systems are not supported yet"),
        (lambda: frequency_response(replace(discrete, C=None), two), OptionError, "no output vector C"),
        (lambda: frequency_response(discrete, None), DTypeError, "omega is a NoneType"),
        (lambda: frequency_response(discrete, 1.0), DTypeError, "omega is a float"),
        (lambda: frequency_response(discrete, [1.0]), DTypeError, "omega is a list"),
        (lambda: frequency_response(discrete, whole), DTypeError, "omega has dtype int64"),
        (lambda: frequency_response(discrete, two + 0j), DTypeError, "omega has dtype complex128, but must be real"),
        (lambda: frequency_response(discrete, text), DTypeError, "omega has dtype <U1"),
        (lambda: frequency_response(discrete, nan), DomainError, "omega holds NaN"),
        (lambda: frequency_response(discrete, strict), MixedArraysError, "omega: array_api_strict"),
        (lambda: frequency_response(discrete, np.asarray(1.0)), ShapeError, r"omega.*\(\)"),
        (lambda: frequency_response(discrete, eye), ShapeError, r"omega.*\(2, 2\)"),
        (lambda: frequency_response(dense, np.asarray(1.0)), ShapeError, r"omega.*\(\)"),
        (lambda: frequency_response(dense, eye), ShapeError, r"omega.*\(2, 2\)"),
    ],
    "poles": [
        (lambda: poles(None), DTypeError, "a NoneType is no system"),
        (lambda: poles(eye), DTypeError, "a ndarray is no system"),
        (lambda: poles((eye,)), ShapeError, "2 to 4 members"),
        (lambda: poles((eye, np.ones(3))), ShapeError, "B has 3 states but A has 2"),
        (lambda: poles((np.ones((2, 3)), two)), ShapeError, "A of a Dense system must be"),
        (lambda: poles(with_(poles=[1.0])), DTypeError, "poles is a list"),
        (lambda: poles(with_(poles=None)), DTypeError, "poles is a NoneType|no array"),
        (lambda: poles(with_(poles=np.asarray(1.0))), ShapeError, "poles of a Diagonal system must be"),
        (lambda: poles(with_(poles=whole)), DTypeError, "poles has dtype int64"),
        (lambda: poles(with_(poles=text)), DTypeError, "poles has dtype <U1"),
        (lambda: poles((np.full((2, 2), np.nan), two)), DomainError, "A holds NaN"),
        (lambda: poles(rational), OptionError, "Rational systems are not supported yet"),
        (lambda: poles(dplr), OptionError, "DPLR systems are not supported yet"),
    ],
    "hippo": [
        (
            lambda: hippo("lagrange", 4),
            OptionError,
            "unknown measure 'lagrange'. Known: 'legs', 'legsd'",
        ),
        (lambda: hippo(["legs"], 4), OptionError, r"unknown measure \['legs'\]"),
        (lambda: hippo("legs", 0), ShapeError, "N = 0"),
        (lambda: hippo("legs", -1), ShapeError, "N = -1"),
        (lambda: hippo("legs", 4.0), DTypeError, "N = 4.0 is a float"),
        (lambda: hippo("legs", True), DTypeError, "N = True is a bool"),
        (lambda: hippo("fout", 5), ShapeError, "N = 5 is odd, .* Use N=6"),
        (lambda: hippo("legs", 4, xp="no_such_library"), MissingPackageError, "pip install no_such_library"),
        (lambda: hippo("legs", 4, xp="math"), SSMError, "xp.*math"),
        (lambda: hippo("legs", 4, xp=3), SSMError, "xp.*3"),
        (lambda: hippo("legs", 4, dtype=int), DTypeError, "dtype = <class 'int'>"),
    ],
    "diagonal_init": [
        (lambda: diagonal_init("s4d", 4), OptionError, "unknown name 's4d'. Known: 'legs', 'lin'"),
        (lambda: diagonal_init("lin", 5), ShapeError, "N = 5 is odd, .* Use N=6"),
        (lambda: diagonal_init("lin", 0), ShapeError, "N = 0"),
        (lambda: diagonal_init("lin", 4.0), DTypeError, "N = 4.0 is a float"),
        (lambda: diagonal_init("lin", 4, xp="math"), SSMError, "xp.*math"),
        (lambda: diagonal_init("lin", 4, xp=3), SSMError, "xp.*3"),
        (lambda: diagonal_init("lin", 4, dtype=int), DTypeError, "dtype = <class 'int'>"),
    ],
    "use_backend": [
        (lambda: use_backend("torch").__enter__(), OptionError, "unknown backend 'torch'. Known: 'generic', 'auto'"),
        (lambda: use_backend(None).__enter__(), OptionError, "unknown backend None"),
    ],
}

# ------------------------------------------------------------------------------------------------------------- layers

S4D, SequenceModel = layers.S4D, layers.SequenceModel
LAYER, BOTH = S4D(4, d_state=8), S4D(4, d_state=8, bidirectional=True)
REAL = S4D(4, d_state=8, real=True, init="real")
MODEL = SequenceModel(3, 2, d_model=4, n_layers=2, layer_options={"d_state": 8})
LAST = replace(MODEL, pool="last")
PARAMS, BOTH_PARAMS, REAL_PARAMS, MODEL_PARAMS = (d.initial_parameters() for d in (LAYER, BOTH, REAL, MODEL))
U, Z = np.ones((2, 6, 4), np.float32), np.ones((2, 6, 3), np.float32)
STATE, MODEL_STATE = LAYER.initial_state(PARAMS, 2), MODEL.initial_state(MODEL_PARAMS, 2)
STRICT = array_api_strict.ones((2, 6, 4))
ENDS, RESET, SCALE = np.asarray([1, 6]), np.zeros((2, 6), bool), np.ones((2, 6), np.float32)


def without(name: str) -> dict[str, Any]:
    return {key: x for key, x in PARAMS.items() if key != name}


def apply(u: Any = U, params: Any = PARAMS, **options: Any) -> Any:
    return LAYER.apply(params, u, **options)


def both(**options: Any) -> Any:
    return BOTH.apply(BOTH_PARAMS, U, **options)


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
        (lambda: S4D(4, output="mlp"), OptionError, "unknown output 'mlp'. Known: 'glu', 'linear', None"),
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
        (lambda: LAYER.initial_state({}, 2), SSMError, ""),
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
        (lambda: MODEL.initial_state({}, 2), SSMError, ""),
        (lambda: MODEL.apply(MODEL_PARAMS, Z[:, :0]), SSMError, "pool|length|step"),
        (lambda: LAST.apply(MODEL_PARAMS, Z[:, :0]), SSMError, "pool|length|step"),
    ],
    "(layers.make|S4D|SequenceModel)": [  # a model hands these to its layers
        (lambda: SequenceModel(1, 1, layer="S9"), OptionError, "unknown layer 'S9'. Known: 'S4D'"),
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
        (lambda: layers.make("S9", {}), OptionError, "unknown layer 'S9'. Known: 'S4D', 'SequenceModel'"),
        (lambda: layers.make(None, {}), OptionError, "unknown layer None"),
        (lambda: layers.make(["S4D"], {}), OptionError, "unknown layer"),
        (lambda: layers.make("S4D", {}), OptionError, "d_model"),
        (lambda: layers.make("S4D", {"d_model": 4, "invented": 1}), OptionError, "invented"),
        (lambda: layers.make("S4D", None), OptionError, "options"),
    ],
}


def rows() -> list[Any]:
    found = []
    for table in (ARRAYS, SYSTEMS, LAYERS):
        for operation, cases in table.items():
            for i, (call, error, message) in enumerate(cases):
                found.append(pytest.param(operation, call, error, message, id=f"{operation}-{i}-{message[:40]}"))
    return found


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows())
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert isinstance(caught.value, SSMError)
    assert re.match(rf"{operation}[.:]", text), text
    assert re.search(message, text, re.DOTALL), text
    assert text.endswith((".", ")")), text


# ----------------------------------------------------------------------------------------------------------- adapters


class Torch:
    def __init__(self) -> None:
        torch = pytest.importorskip("torch")
        self.adapter, self.xp = adapters.torch, torch
        self.layer = adapters.torch.S4D(4, d_state=8)
        self.both = adapters.torch.S4D(4, d_state=8, bidirectional=True)
        self.model = adapters.torch.SequenceModel(3, 2, d_model=4, n_layers=1, layer_options={"d_state": 8})

    def make(self, cls: str, *args: Any, **options: Any) -> Any:
        return getattr(self.adapter, cls)(*args, **options)


class Flax(Torch):
    def __init__(self) -> None:
        jnp, nnx = pytest.importorskip("jax.numpy"), pytest.importorskip("flax.nnx")
        self.adapter, self.xp, self.rngs = adapters.flax, jnp, nnx.Rngs(0)
        self.layer = self.make("S4D", 4, d_state=8)
        self.both = self.make("S4D", 4, d_state=8, bidirectional=True)
        self.model = self.make("SequenceModel", 3, 2, d_model=4, n_layers=1, layer_options={"d_state": 8})

    def make(self, cls: str, *args: Any, **options: Any) -> Any:
        return super().make(cls, *args, **options, rngs=self.rngs)


@pytest.fixture(scope="module", params=[Torch, Flax])
def framework(request: pytest.FixtureRequest) -> Torch:
    return request.param()


# (call of (framework f, signal u (2, 6, 4), signal z (2, 6, 3)), error, message)
MODULES: list[tuple[Callable[..., Any], type, str]] = [
    (lambda f, u, z: f.make("S4D", 0), OptionError, "^S4D: d_model = 0"),
    (lambda f, u, z: f.make("S4D", 4, d_state=7), OptionError, "^S4D: d_state = 7 is odd"),
    (lambda f, u, z: f.make("S4D", 4, init="x"), OptionError, "^S4D: unknown init 'x'. Known: 'legs'"),
    (lambda f, u, z: f.make("S4D", 4, activation="x"), OptionError, "^S4D: unknown activation 'x'. Known: 'gelu'"),
    (lambda f, u, z: f.make("SequenceModel", 0, 1), OptionError, "^SequenceModel: d_input = 0"),
    (lambda f, u, z: f.make("SequenceModel", 1, 1, pool="x"), OptionError, "^SequenceModel: unknown pool 'x'. Known"),
    (lambda f, u, z: f.make("SequenceModel", 1, 1, layer="x"), OptionError, "unknown layer 'x'. Known: 'S4D'"),
    (lambda f, u, z: f.make("SequenceModel", 1, 1, layer_options={"x": 1}), OptionError, "'?x'?"),
    (lambda f, u, z: f.layer(None), DTypeError, "^S4D: .*(u is a NoneType|no array)"),
    (lambda f, u, z: f.layer([1.0]), DTypeError, "^S4D: u is a list"),
    (lambda f, u, z: f.layer(U), MixedArraysError, r"^S4D: .*libraries \(u: numpy"),
    (lambda f, u, z: f.layer(STRICT), MixedArraysError, r"^S4D: .*libraries \(u: array_api_strict"),
    (lambda f, u, z: f.layer(u[0]), ShapeError, r"^S4D: u must be \(B, L, 4\)"),
    (lambda f, u, z: f.layer(u[..., :2]), ShapeError, r"^S4D: u must be \(B, L, 4\)"),
    (lambda f, u, z: f.layer(u > 0), DTypeError, "^S4D: u has dtype bool"),
    (lambda f, u, z: f.layer(u + 0j), DTypeError, "^S4D: u has dtype complex64, but must be real"),
    (lambda f, u, z: f.layer(u, state=u), ShapeError, r"^S4D: state must be \(2, 4, 4\)"),
    (lambda f, u, z: f.layer(u, state=STATE), MixedArraysError, "^S4D: .*state: numpy"),
    (lambda f, u, z: f.layer(u, state=0.0), DTypeError, "^S4D: state is a float"),
    (lambda f, u, z: f.layer(u, lengths=[1, 2]), DTypeError, "^S4D: lengths is a list"),
    (lambda f, u, z: f.layer(u, lengths=ENDS), MixedArraysError, "^S4D: .*lengths: numpy"),
    (
        lambda f, u, z: f.layer(u, lengths=u[:, 0, 0]),
        DTypeError,
        "^S4D: lengths has dtype .*float32, but must",
    ),
    (lambda f, u, z: f.layer(u, reset=u[..., 0]), DTypeError, "^S4D: reset has dtype .*float32, but must be bool"),
    (lambda f, u, z: f.layer(u, reset=u[..., 0] > 0, mode="conv"), OptionError, "^S4D: mode 'conv' cannot restart"),
    (lambda f, u, z: f.layer(u, mode="fft"), OptionError, "^S4D: unknown mode 'fft'. Known"),
    (lambda f, u, z: f.layer(u, rate=-1), SSMError, "^S4D: rate = -1"),
    (lambda f, u, z: f.layer(u, rate="x"), SSMError, "^S4D: rate"),
    (lambda f, u, z: f.layer(u, step_scale=u[:, :5, 0]), ShapeError, r"^S4D: step_scale must be \(2, 6\)"),
    (lambda f, u, z: f.layer.initial_state(-1), OptionError, "^S4D: batch"),
    (lambda f, u, z: f.layer.initial_state("a"), OptionError, "^S4D: batch"),
    (lambda f, u, z: f.layer.step(u[:, 0], None), DTypeError, r"^S4D\.step: state is a NoneType"),
    (
        lambda f, u, z: f.layer.step(u[:, 0], f.layer.initial_state(1)),
        ShapeError,
        r"^S4D\.step: state must be \(2, 4, 4\)",
    ),
    (lambda f, u, z: f.layer.step(u[:, 0], STATE), MixedArraysError, r"^S4D\.step: .*state: numpy"),
    (lambda f, u, z: f.layer.step(U[:, 0], f.layer.initial_state(2)), MixedArraysError, r"^S4D\.step: .*u_t: numpy"),
    (lambda f, u, z: f.layer.step([1.0], f.layer.initial_state(2)), DTypeError, r"^S4D\.step: u_t is a list"),
    (
        lambda f, u, z: f.layer.step(u[:, 0] > 0, f.layer.initial_state(2)),
        DTypeError,
        r"^S4D\.step: u_t has dtype",
    ),
    (lambda f, u, z: f.layer.step(u, f.layer.initial_state(2)), ShapeError, r"^S4D\.step: u_t must be \(B, 4\)"),
    (lambda f, u, z: f.layer.stepper(rate=0), SSMError, "^S4D: rate = 0"),
    (lambda f, u, z: f.layer.kernel(0), OptionError, "^S4D: length = 0"),
    (lambda f, u, z: f.layer.kernel(2.5), OptionError, "^S4D: length is 2.5"),
    (lambda f, u, z: f.both(u, return_state=True), OptionError, "^S4D: a bidirectional layer"),
    (lambda f, u, z: f.both.stepper(), OptionError, "^S4D: a bidirectional layer"),
    (lambda f, u, z: f.both.initial_state(2), OptionError, "^S4D: a bidirectional layer"),
    (lambda f, u, z: f.model(None), DTypeError, "^SequenceModel: .*(u is a NoneType|no array)"),
    (lambda f, u, z: f.model([1.0]), DTypeError, "^SequenceModel: u is a list"),
    (lambda f, u, z: f.model(Z), MixedArraysError, r"^SequenceModel: .*u: numpy"),
    (lambda f, u, z: f.model(z[0]), ShapeError, r"^SequenceModel: u must be \(B, L, 3\) \(u: \(6, 3\)\)"),
    (lambda f, u, z: f.model(z[..., :2]), ShapeError, r"^SequenceModel: u must be \(B, L, 3\) \(u: \(2, 6, 2\)\)"),
    (lambda f, u, z: f.model(z > 0), DTypeError, "^SequenceModel: u has dtype bool"),
    (lambda f, u, z: f.model(z + 0j), DTypeError, "^SequenceModel: u has dtype complex64, but must be real"),
    (lambda f, u, z: f.model(z, mode="fft"), OptionError, "unknown mode 'fft'. Known"),
    (lambda f, u, z: f.model(z, state=0.0), SSMError, "^SequenceModel: state"),
    (lambda f, u, z: f.model(z, state=()), SSMError, "^SequenceModel: state"),
    (lambda f, u, z: f.model.step(z[:, 0], None), SSMError, r"^SequenceModel(\.step)?: state"),
    (lambda f, u, z: f.model.step(z[:, 0, :2], f.model.initial_state(2)), ShapeError, r"^SequenceModel\.step: u"),
    (lambda f, u, z: f.model.step(z[:, 0], f.model.initial_state(1)), ShapeError, "state must be"),
    (lambda f, u, z: f.model.initial_state(-1), OptionError, "batch"),
    (lambda f, u, z: f.adapter.save(None, "nowhere"), SSMError, "^save: .*NoneType"),
    (lambda f, u, z: f.adapter.save(LAYER, "nowhere"), SSMError, "^save: "),
    (lambda f, u, z: f.adapter.save(object(), "nowhere"), SSMError, "^save: .*object"),
]


@pytest.mark.parametrize("row", range(len(MODULES)), ids=lambda i: f"{i}-{MODULES[i][2][:40]}")
def test_refused_by_modules(row: int, framework: Torch):
    call, error, message = MODULES[row]
    u, z = (framework.xp.asarray(x) for x in (U, Z))
    with pytest.raises(error, match=f"(?s){message}"):
        call(framework, u, z)
    assert not Path("nowhere").exists()


def test_missing_files(framework: Torch, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="missing"):
        framework.adapter.load(tmp_path / "missing")
    (tmp_path / "text").write_text("this is no safetensors file")
    with pytest.raises(OptionError, match=r"^load: '.*text' is no safetensors file"):
        framework.adapter.load(tmp_path / "text")


def test_frameworks_are_not_mixed():
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    x, y, z = torch.ones(2), jnp.ones(2), two
    for first, second in ((x, y), (y, x), (x, z), (z, x), (y, z), (z, y)):
        for call in (
            lambda a, b: linear_scan(a, b, axis=0),
            convolve,
            lambda a, b: kernel(Diagonal(a, b, b, discrete=True), 4),
            lambda a, b: scan(Diagonal(a, a, a, discrete=True), b),
            lambda a, b: discretize(Diagonal(a, a), b),
            lambda a, b: diagonal_scan(b, a, a, a),
            lambda a, b: frequency_response(Diagonal(a, a, a), b),
        ):
            with pytest.raises(MixedArraysError, match=r"arrays of several libraries \(.*(torch|jax|numpy)"):
                call(first, second)


# --------------------------------------------------------------------------------- values on devices, and lengths


def test_values_of_device_arrays_are_checked_on_request():
    torch = pytest.importorskip("torch")
    bad, good = torch.tensor([-1.0, float("nan")]), torch.ones(2)
    system = Diagonal(bad, good, good)
    assert torch.isnan(kernel(system, 4, dt=0.1)).all()
    for call in (
        lambda: discretize(system, 0.1, check_values=True),
        lambda: kernel(system, 4, dt=0.1, check_values=True),
        lambda: scan(system, good, dt=0.1, check_values=True),
        lambda: scan(Diagonal(-good, good, good), bad, dt=0.1, check_values=True),
    ):
        with pytest.raises(DomainError, match=r"(poles|u) holds NaN"):
            call()
    for call in (
        lambda: discretize(Diagonal(-good, good), torch.tensor(-0.1), check_values=True),
        lambda: kernel(Diagonal(-good, good, good), 4, dt=torch.tensor(0.0), check_values=True),
    ):
        with pytest.raises(DomainError, match=r"dt \(shape \(\)\) must be positive"):
            call()


def test_arrays_that_are_not_finite_pass_through_functions_of_arrays():
    x = np.asarray([1.0, np.nan, 1.0])
    np.testing.assert_array_equal(np.isnan(linear_scan(0.5, x, axis=0)), [False, True, True])
    assert np.isnan(convolve(x, x)).all()
    assert np.isnan(diagonal_scan(x, two / 2, two, two)[0][1:]).all()
    assert np.isnan(expm(np.full((2, 2), np.nan))).all()
    assert np.isnan(LAYER.apply(PARAMS, np.full((1, 6, 4), np.nan, np.float32))).all()


@pytest.mark.parametrize("mode", ["auto", "conv", "chunk", "scan"])
@pytest.mark.parametrize("wrong", [-3, -1, 7, 100])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_lengths_outside_the_sequence(library: str, wrong: int, mode: str):
    """Layers check no values. Either the length is refused or it counts as the nearest possible one."""
    xp = pytest.importorskip(library)
    params = {name: xp.asarray(p) for name, p in PARAMS.items()}
    u = xp.asarray(np.random.default_rng(0).normal(size=U.shape).astype(np.float32))
    nearest = xp.asarray([4, min(max(wrong, 0), 6)])
    _, wanted = LAYER.apply(params, u, lengths=nearest, return_state=True, mode=mode)
    try:
        _, state = LAYER.apply(params, u, lengths=xp.asarray([4, wrong]), return_state=True, mode=mode)
    except SSMError:
        return
    np.testing.assert_allclose(np.asarray(state), np.asarray(wanted), rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- what works

# A function of one array, and an array; any memory layout of it gives the same, and leaves it as it was.
M = np.random.default_rng(0).uniform(0.1, 0.9, (6, 6))
WORKING: dict[str, Callable[[np.ndarray], Any]] = {
    "linear_scan": lambda x: linear_scan(x, x, axis=0, initial=x[0]),
    "linear_scan along time last": lambda x: linear_scan(x, x, axis=1),
    "linear_scan in reverse": lambda x: linear_scan(x, x, axis=0, reverse=True),
    "chunk_summary": lambda x: chunk_summary(x, x, axis=1),
    "convolve": lambda x: convolve(x, x, kernel_reverse=x),
    "diagonal_scan": lambda x: diagonal_scan(x, x, x, x, initial=x, reset=x > 0.8),
    "expm": expm,
    "discretize": lambda x: [discretize(Diagonal(-x, x), x).B, discretize(Dense(-x, x[0]), 0.1).A],
    "kernel": lambda x: [kernel(Diagonal(-x, x, x), 9, dt=x[0]), kernel(Dense(x / 9, x, x), 9, dt=0.1)],
    "scan in conv mode": lambda x: scan(Diagonal(-x, x, x), x, dt=0.1, initial=x, mode="conv"),
    "scan in chunk mode": lambda x: scan(Diagonal(-x, x, x), x, dt=0.1, initial=x, reset=x > 0.8, mode="chunk"),
    "scan in scan mode": lambda x: scan(Diagonal(-x, x, x), x, dt=0.1, step_scale=x, mode="scan"),
    "scan of a dense system": lambda x: scan(Dense(x / 9, x, x, x, discrete=True), x, initial=x[0]),
    "step": lambda x: step(Diagonal(x, x, x, x[0], discrete=True), x[0], x),
    "frequency_response": lambda x: [
        frequency_response(Diagonal(-x, x, x), x[0]),
        frequency_response(Dense(-x, x[0], x[1]), x[2]),
    ],
    "poles": lambda x: poles(Diagonal(-x, x)),
    "S4D": lambda x: LAYER.apply(PARAMS, x[None, :, :4], state=x[None, :4, :4]),
    "S4D.step": lambda x: LAYER.step(PARAMS, x[:1, :4], x[None, :4, :4] + 0j),
    "SequenceModel": lambda x: MODEL.apply(MODEL_PARAMS, x[None, :, :3]),
    "save": lambda x: save_and_load(x[:1, :4]),
}
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "read-only": lambda x: x.copy(),
    "Fortran": np.asfortranarray,
    "transposed": lambda x: x.T.copy().T,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
}


def save_and_load(D: np.ndarray) -> np.ndarray:
    import tempfile

    pytest.importorskip("safetensors")
    with tempfile.TemporaryDirectory() as folder:
        ssm_core.save(LAYER, {**PARAMS, "D": D}, Path(folder, "weights"))
        return ssm_core.load(Path(folder, "weights"))[1]["D"]


def flat(x: Any) -> list[np.ndarray]:
    return [y for part in x for y in flat(part)] if isinstance(x, tuple | list) else [np.asarray(x)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", WORKING)
def test_any_memory_layout(name: str, view: str):
    given = VIEWS[view](M)
    given.flags.writeable = False
    np.testing.assert_array_equal(given, M)
    for found, wanted in zip(flat(WORKING[name](given)), flat(WORKING[name](M.copy())), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(given, M)


def empty(*shape: int) -> np.ndarray:
    return np.ones(shape)


NOTHING: dict[str, tuple[Callable[[], Any], list[tuple[int, ...]]]] = {
    "linear_scan of no steps": (lambda: linear_scan(0.5, empty(3, 0), axis=1), [(3, 0)]),
    "linear_scan of no sequences": (lambda: linear_scan(0.5, empty(0, 3), axis=1, initial=empty(0)), [(0, 3)]),
    "chunk_summary of no sequences": (lambda: chunk_summary(0.5, empty(0, 3), axis=1), [(0,), (0,)]),
    "convolve of no steps": (lambda: convolve(empty(3, 0), two), [(3, 0)]),
    "convolve of no sequences": (lambda: convolve(empty(0, 3), two, kernel_reverse=two), [(0, 3)]),
    "convolve with no taps": (lambda: convolve(empty(3), empty(0)), [(3,)]),
    "diagonal_scan of no sequences": (lambda: diagonal_scan(empty(0, 5), two, two, two), [(0, 5), (0, 2)]),
    "diagonal_scan of no steps": (lambda: diagonal_scan(empty(3, 0), two, two, two), [(3, 0), (3, 2)]),
    "diagonal_scan of no states": (lambda: diagonal_scan(empty(3, 5), *[empty(0)] * 3), [(3, 5), (3, 0)]),
    "expm of no matrices": (lambda: expm(empty(0, 2, 2)), [(0, 2, 2)]),
    "expm of empty matrices": (lambda: expm(empty(2, 0, 0)), [(2, 0, 0)]),
    "discretize of no states": (lambda: discretize(Diagonal(empty(0), empty(0)), 0.1).B, [(0,)]),
    "discretize of no dense states": (lambda: discretize(Dense(empty(0, 0), empty(0)), 0.1).B, [(0,)]),
    "discretize of no systems": (lambda: discretize(Diagonal(empty(0, 2), empty(0, 2)), empty(0)).B, [(0, 2)]),
    "discretize of no dense systems": (lambda: discretize(Dense(empty(0, 2, 2), empty(0, 2)), 0.1).A, [(0, 2, 2)]),
    "bilinear of no dense states": (lambda: discretize(Dense(empty(0, 0), empty(0)), 0.1, "bilinear").B, [(0,)]),
    "kernel of no states": (lambda: kernel(Diagonal(empty(0), empty(0), empty(0)), 4, dt=0.1), [(4,)]),
    "kernel of no systems": (lambda: kernel(Diagonal(empty(0, 2), empty(0, 2), empty(0, 2)), 4, dt=0.1), [(0, 4)]),
    "kernel of no inputs": (lambda: kernel(Diagonal(two, empty(2, 0), two), 4, dt=0.1), [(0, 4)]),
    "kernel of no outputs": (lambda: kernel(Diagonal(two, two, empty(0, 2)), 4, dt=0.1), [(0, 4)]),
    "kernel of no dense states": (lambda: kernel(Dense(empty(0, 0), empty(0), empty(0)), 4, dt=0.1), [(4,)]),
    "kernel of no dense systems": (
        lambda: kernel(Dense(empty(0, 2, 2), empty(0, 2), empty(0, 2)), 4, dt=0.1),
        [(0, 4)],
    ),
    "step of no sequences": (lambda: step(discrete, empty(0), empty(0, 2)), [(0,), (0, 2)]),
    "step of no states": (lambda: step(Diagonal(*[empty(0)] * 3, discrete=True), two, empty(2, 0)), [(2,), (2, 0)]),
    "frequency_response of no frequencies": (lambda: frequency_response(dense, empty(0)), [(0,)]),
    "frequency_response of no states": (lambda: frequency_response(Diagonal(*[empty(0)] * 3), two), [(2,)]),
    "frequency_response of no systems": (lambda: frequency_response(Diagonal(*[empty(0, 2)] * 3), ten), [(0, 10)]),
    "poles of no states": (lambda: poles(Diagonal(empty(0), empty(0), conj_pairs=True)), [(0,)]),
    "poles of no dense systems": (lambda: poles(Dense(empty(0, 2, 2), empty(0, 2))), [(0, 2)]),
    "initial_state of no sequences": (lambda: LAYER.initial_state(PARAMS, 0), [(0, 4, 4)]),
    "S4D of no sequences": (lambda: LAYER.apply(PARAMS, U[:0], return_state=True), [(0, 6, 4), (0, 4, 4)]),
    "S4D of no steps": (lambda: LAYER.apply(PARAMS, U[:, :0], return_state=True), [(2, 0, 4), (2, 4, 4)]),
    "S4D both ways of no sequences": (lambda: BOTH.apply(BOTH_PARAMS, U[:0]), [(0, 6, 4)]),
    "S4D both ways of no steps": (lambda: BOTH.apply(BOTH_PARAMS, U[:, :0]), [(2, 0, 4)]),
    "S4D.step of no sequences": (lambda: LAYER.step(PARAMS, U[:0, 0], STATE[:0]), [(0, 4), (0, 4, 4)]),
    "SequenceModel of no sequences": (lambda: MODEL.apply(MODEL_PARAMS, Z[:0]), [(0, 2)]),
}
for _mode in ("conv", "chunk", "scan"):
    for _name, _system in {"diagonal": discrete, "dense": Dense(eye / 2, two, two, discrete=True)}.items():
        NOTHING[f"scan of no sequences, {_mode}, {_name}"] = (
            lambda m=_mode, s=_system: scan(s, empty(0, 5), mode=m, lengths=np.zeros(0, int)),
            [(0, 5), (0, 2)],
        )
        NOTHING[f"scan of no steps, {_mode}, {_name}"] = (
            lambda m=_mode, s=_system: scan(s, empty(3, 0), mode=m),
            [(3, 0), (3, 2)],
        )
        NOTHING[f"S4D of no sequences, {_mode}"] = (
            lambda m=_mode: LAYER.apply(PARAMS, U[:0], mode=m, lengths=ENDS[:0]),
            [(0, 6, 4)],
        )


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_gives_nothing(name: str):
    call, shapes = NOTHING[name]
    assert [x.shape for x in flat(call())] == shapes
