"""Public functions of arrays with inputs, a call and the truth of it; those of systems are in `cases_of_systems`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np

import ssm_core
from ssm_core.functions import special

from .. import examples, truth
from ..backends import HALF, STANDARD, Backend
from ..examples import Draw

REALS = ("float32", "float64")
SIGNALS = (*STANDARD, *HALF)


@dataclass(frozen=True)
class Case:
    """draw gives the inputs by name; call and truth take them as attributes, as arrays and as double precision."""

    function: str
    name: str
    draw: Callable[[Draw], dict[str, Any]]
    call: Callable[[SimpleNamespace], Any]
    truth: Callable[[SimpleNamespace], Any]
    dtypes: tuple[str, ...] = REALS
    terms: float = 64.0
    half: tuple[bool, ...] = (True,)  # which results come back in half precision
    on_host: bool = False  # computed by NumPy, wherever the arrays are: not under jit, not beyond the CPU's memory
    known: tuple[str, ...] = ()  # inputs that a jit closes over instead of tracing them

    @property
    def label(self) -> str:
        return f"{self.function}[{self.name}]"

    def inputs(self, backend: Backend, dtype: str) -> tuple[SimpleNamespace, SimpleNamespace]:
        """The arrays, and the values they hold."""
        arrays = examples.as_arrays(backend, dtype, self.draw(Draw(1, dtype)))
        return arrays, examples.rounded(backend, arrays)

    def results(self, backend: Backend, arrays: SimpleNamespace) -> tuple[Any, ...]:
        known = {name: getattr(arrays, name) for name in self.known}
        others = SimpleNamespace(**{name: x for name, x in vars(arrays).items() if name not in known})

        def call(v: SimpleNamespace) -> Any:
            return self.call(SimpleNamespace(**vars(v), **known))

        found = self.call(arrays) if self.on_host else backend.run(call, others)
        return found if isinstance(found, tuple) else (found,)

    def expected(self, values: SimpleNamespace) -> tuple[np.ndarray, ...]:
        found = self.truth(values)
        return found if isinstance(found, tuple) else (found,)


# Linear recurrences and convolutions ---------------------------------------------------------------------------------


def _scan_case(name: str, a: Any, initial: Any, axis: int, reverse: bool = False, shape: Any = (3, 17, 2)) -> Case:
    return Case(
        "linear_scan",
        name,
        lambda d: {"a": a(d) if callable(a) else a, "b": d.signal(*shape), "initial": initial(d) if initial else None},
        lambda v: ssm_core.linear_scan(v.a, v.b, axis=axis, initial=v.initial, reverse=reverse),
        lambda v: truth.linear_scan(v.a, v.b, axis, v.initial, reverse),
        dtypes=SIGNALS,
        terms=17,
    )


LINEAR_SCAN = (
    _scan_case("per_step", lambda d: d.gates(3, 17, 2), lambda d: d.signal(3, 2), 1),
    _scan_case("constant_reverse", lambda d: d.gates(3, 1, 1), lambda d: d.signal(2), -2, reverse=True),
    _scan_case("number_last_axis", 0.5, None, -1),
    _scan_case("per_step_reverse", lambda d: d.gates(17, 1), None, 0, reverse=True, shape=(17, 3)),
)

CHUNK_SUMMARY = (
    Case(
        "chunk_summary",
        "per_step",
        lambda d: {"a": d.gates(9, 3), "b": d.signal(9, 3)},
        lambda v: ssm_core.chunk_summary(v.a, v.b, axis=0),
        lambda v: (np.prod(v.a, axis=0), truth.linear_scan(v.a, v.b, 0)[-1]),
        dtypes=SIGNALS,
        half=(True, True),
    ),
    Case(
        "chunk_summary",
        "constant",
        lambda d: {"a": d.gates(1), "b": d.signal(3, 9)},
        lambda v: ssm_core.chunk_summary(v.a, v.b, axis=1),
        lambda v: (np.broadcast_to(v.a**9, (3,)), truth.linear_scan(v.a, v.b, 1)[:, -1]),
        dtypes=STANDARD,
    ),
)


def _convolution(name: str, u: Any, k: Any, reverse: Any = None, dtypes: Any = STANDARD) -> Case:
    return Case(
        "convolve",
        name,
        lambda d: {"u": d.signal(*u), "k": d.signal(*k), "r": d.signal(*reverse) if reverse else None},
        lambda v: ssm_core.convolve(v.u, v.k, kernel_reverse=v.r),
        lambda v: truth.convolve(v.u, v.k, v.r),
        dtypes=dtypes,
    )


CONVOLVE = (
    _convolution("equal_lengths", (2, 17), (2, 17), dtypes=SIGNALS),
    _convolution("short_kernel_broadcast", (3, 1, 20), (2, 5)),
    _convolution("both_directions", (2, 13), (2, 13), (2, 40)),
    _convolution("one_step", (2, 1), (2, 1), (2, 1)),
)


# Matrices, initial systems, single functions -------------------------------------------------------------------------

EXPM = (
    Case(
        "expm", "batch", lambda d: {"A": d.signal(2, 4, 4)}, lambda v: ssm_core.expm(v.A),
        lambda v: truth.over_batch(lambda A: (truth.expm(A),), (2,), v.A)[0], dtypes=SIGNALS, terms=256,
    ),
    Case(
        "expm", "large_norm", lambda d: {"A": 12 * (d.signal(4, 4) - 3 * np.eye(4))}, lambda v: ssm_core.expm(v.A),
        lambda v: truth.expm(v.A), dtypes=STANDARD, terms=256 * 80**2,
    ),
    Case(
        "expm", "nilpotent", lambda d: {"A": np.triu(d.signal(4, 4), 1)}, lambda v: ssm_core.expm(v.A),
        lambda v: truth.expm(v.A), dtypes=STANDARD,
    ),
)  # fmt: skip


def _single(name: str, f: Any, of: Any, dtypes: Any = (*REALS, *HALF), label: str = "points", **options: Any) -> Case:
    points = np.concatenate([np.linspace(-6, 6, 25), [-1e-4, 1e-4]])

    def draw(d: Draw) -> dict[str, Any]:
        return {"x": points * np.exp(0.7j) if d.is_complex else points}

    return Case(name, label, draw, lambda v: f(v.x, **options), lambda v: truth.elementwise(of, v.x), dtypes=dtypes)


SPECIAL = (
    _single("special.phi1", special.phi1, truth.phi1, SIGNALS),
    _single("special.erf", special.erf, mpmath.erf),
    _single("special.sigmoid", special.sigmoid, truth.sigmoid),
    _single("special.softplus", special.softplus, truth.softplus),
    _single("special.gelu", special.gelu, truth.gelu),
    _single("special.gelu", special.gelu, truth.gelu_tanh, label="tanh", approximate="tanh"),
    _single("special.silu", special.silu, lambda x: x * truth.sigmoid(x)),
    _single("special.relu", special.relu, lambda x: max(x, mpmath.mpf(0))),
    _single("special.tanh", special.tanh, mpmath.tanh),
)


# Between the edges of cells, which a rounding error would lead across.
LEVELS = np.asarray([0.3, 3.7, 60.5, 127.5, 128.5, 129.4, 200.6, 254.5])
SOUND = tuple(
    Case(
        "quantize", law, lambda d, law=law: {"x": truth.heard(LEVELS, law)},
        lambda v, law=law: v.xp.astype(ssm_core.quantize(v.x, law=law), v.x.dtype), lambda v: np.floor(LEVELS),
    )
    for law in ("mu_law", "linear")
) + tuple(
    Case(
        "dequantize", law, lambda d: {"x": d.real(1)},
        lambda v, law=law: ssm_core.dequantize(v.xp.arange(256, device=v.device), law=law, dtype=v.x.dtype),
        lambda v, law=law: truth.heard(np.arange(256.0), law),
    )
    for law in ("mu_law", "linear")
)  # fmt: skip


def _made(v: SimpleNamespace) -> dict[str, Any]:
    """Where a constructor without array arguments makes its arrays."""
    return {"xp": v.xp, "dtype": v.x.dtype, "device": v.device}


def _legs(v: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    root = [math.sqrt(2 * n + 1) for n in range(6)]
    A = [[-root[n] * root[k] if n > k else -(n + 1.0) * (n == k) for k in range(6)] for n in range(6)]
    return np.array(A), np.array(root)


CONSTRUCTORS = (
    Case("hippo", "legs", lambda d: {"x": d.real(1)}, lambda v: ssm_core.hippo("legs", 6, **_made(v)), _legs),
    Case(
        "diagonal_init", "lin", lambda d: {"x": d.real(1)},
        lambda v: (lambda s: (s.poles, s.B))(ssm_core.diagonal_init("lin", 6, **_made(v))),
        lambda v: (np.array([-0.5 - 1j * math.pi * n for n in range(3)]), np.ones(3, complex)),
    ),
)  # fmt: skip

ALL = (*LINEAR_SCAN, *CHUNK_SUMMARY, *CONVOLVE, *EXPM, *SPECIAL, *SOUND, *CONSTRUCTORS)
