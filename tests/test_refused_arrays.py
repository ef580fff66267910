"""What users get wrong in functions of arrays: the error names the operation, the argument and the cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from wrong import Row, check_refused, elsewhere, eye, objects, one, reset5, rows, strict, ten, text, two, whole

from ssm_core import (
    DTypeError,
    MixedArraysError,
    OptionError,
    ShapeError,
    SSMError,
    chunk_summary,
    convolve,
    diagonal_scan,
    expm,
    linear_scan,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
        (lambda: diagonal_scan(ten + 0j, two, two, two, conj_pairs=True), DTypeError, "u has dtype complex128"),
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


@pytest.mark.parametrize(("operation", "call", "error", "message"), rows(ARRAYS))
def test_refused(operation: str, call: Callable[[], Any], error: type, message: str):
    check_refused(operation, call, error, message)
