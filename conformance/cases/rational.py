"""Conversions to rational systems and to other packages, with inputs, a call and the truth of it, as in `cases`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from .. import truth
from ..examples import BATCHED, DENSE, DENSE_MIMO, PAIRS, REAL, UNPAIRED, Example
from .functions import REALS, Case

DT = 0.1
APART = 1.0  # so far apart that float32 holds the coefficients


def _transfer_function(example: Example) -> Case:
    """Numerator and denominator: the characteristic polynomial, and its product with the first taps."""

    def call(v: SimpleNamespace) -> Any:
        found = ssm_core.to_rational(ssm_core.discretize(example.system(v), APART))
        return found.numerator, found.denominator

    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        system = truth.discrete(example.plain(v), APART)
        N, batch = system.A.shape[-1], system.A.shape[:-2]
        (a,) = truth.over_batch(lambda A: (np.poly(A),), (2,), system.A)
        K = truth.kernel(system, N)
        a = a.real if system.real else a + 0j
        b = [sum(a[..., j] * K[..., k - j] for j in range(k + 1)) for k in range(N)]
        return np.stack(b, axis=-1), np.broadcast_to(a, (*batch, N + 1))

    on_host = not example.diagonal
    return Case("to_rational", example.label, example.fields, call, expected, terms=256, on_host=on_host)


TO_RATIONAL = tuple(_transfer_function(example) for example in (PAIRS, UNPAIRED, REAL, BATCHED, DENSE))


def _there_and_back(function: str, example: Example) -> Case:
    """The kernel of what a package hands back of the system it was given."""
    one = {"x": np.ones(1)}

    def call(v: SimpleNamespace) -> Any:
        given = ssm_core.to_scipy(ssm_core.discretize(example.system(v), DT))
        back = ssm_core.from_scipy(given, xp=v.xp, dtype=v.x.dtype, device=v.device)
        return ssm_core.kernel(back, 12)

    return Case(
        function, example.label, lambda d: {n: _first(x) for n, x in example.fields(d).items()} | one, call,
        lambda v: truth.kernel(truth.discrete(example.plain(v), DT), 12), REALS, terms=256, on_host=True,
    )  # fmt: skip


def _first(x: Any) -> Any:
    """SciPy holds one system: the first of a batch."""
    return x[0] if isinstance(x, np.ndarray) and x.ndim > 2 else x


SCIPY = (_there_and_back("to_scipy", PAIRS), _there_and_back("from_scipy", DENSE_MIMO))

ALL = (*TO_RATIONAL, *SCIPY)
