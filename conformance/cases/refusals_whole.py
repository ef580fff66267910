"""What users get wrong in layers that need their whole input: what only layers with a state have, and signals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core import DomainError, DTypeError, MixedArraysError, OptionError, ShapeError, SSMError

from .instance import H
from .layer import WholeCases
from .refusals import STRICT, U_T, Row, Tried


def of_whole(cases: WholeCases) -> list[Row]:
    """What only layers with a state have, and signals and parameters as everywhere."""
    t = Tried(cases)
    shape, first = cases.axes(t.layer, 6), next(iter(t.params))
    u, reset, names = np.ones((2, *shape, H), np.float32), np.zeros((2, *shape), bool), len(shape)
    wrong: tuple[dict[str, Any], ...] = (
        {"state": u}, {"state": ()}, {"return_state": True}, {"reset": reset}, {"step_scale": u[..., 0]},
        {"mode": "chunk"}, {"mode": "scan"},
    )  # fmt: skip
    message = f"{t.layer.cause}, so it has no state, step, reset or step_scale. Run whole inputs"
    return [
        *[(lambda o=options: t.apply(u, **o), OptionError, message) for options in wrong],
        (lambda: t.layer.initial_state(t.params, 2), OptionError, message),
        (lambda: t.layer.stepper(t.params), OptionError, message),
        (lambda: t.layer.step(t.params, U_T, None), OptionError, message),
        (lambda: t.apply(u, mode="fft"), OptionError, "unknown mode 'fft'. Known: 'auto', 'conv'"),
        (lambda: t.apply(u, mode=None), OptionError, "unknown mode None"),
        (lambda: t.apply(u, mode=np.ones(2)), OptionError, "unknown mode"),
        (lambda: t.apply(u, return_state=1), SSMError, ""),
        (lambda: t.apply(None), DTypeError, "u|no array"),
        (lambda: t.apply(u[0]), ShapeError, r"u must be \(B, L"),
        (lambda: t.apply(u[..., :3]), ShapeError, r"u must be \(B, L"),
        (lambda: t.apply(u.astype(int)), DTypeError, "u has dtype int64"),
        (lambda: t.apply(u + 0j), DTypeError, "u has dtype complex64, but must be real"),
        (lambda: t.apply(STRICT if names == 1 else STRICT[:, None, ...]), MixedArraysError, f"{first}: numpy"),
        (lambda: t.layer.apply({}, u), OptionError, "parameters are missing: .*given: none"),
        (lambda: t.apply(u, lengths=np.arange(3)), ShapeError, r"lengths must be \(2,"),
        (lambda: t.apply(u, lengths=np.ones((2, names)[:names])), DTypeError, "lengths has dtype float64"),
        (lambda: t.apply(u, lengths=[6, 6]), DTypeError, "lengths is a list"),
        (lambda: t.apply(u, lengths=np.full((2, names)[:names], 7)), DomainError, r"lengths must lie in \[0, 6\]"),
        (lambda: t.apply(u, rate=0), OptionError, "rate = 0 must be a positive number"),
    ]
