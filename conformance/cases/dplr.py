"""Diagonal plus low-rank systems, and what turns systems into dense and diagonal ones, as in `cases`.

The truth is that of full matrices: conjugate pairs are written out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from .. import truth
from ..backends import HALF, STANDARD
from ..examples import Draw, alpha_of
from ..truth import Plain
from .functions import REALS, Case

DT = 0.1


@dataclass(frozen=True)
class LowRank:
    """A continuous DPLR system: its flags, batch axes, rank, and numbers of inputs and outputs."""

    label: str
    flags: dict[str, bool] = field(default_factory=dict)
    batch: tuple[int, ...] = ()
    rank: int = 1
    inputs: int | None = None
    outputs: int | None = None
    states: int = 4  # stored ones
    real: bool = False  # all fields are real

    def fields(self, d: Draw) -> dict[str, Any]:
        P, M = (() if n is None else (n,) for n in (self.inputs, self.outputs))
        draw, N = d.real if self.real else d.complex, self.states
        poles = -d.uniform(0.2, 2, *self.batch, N) if self.real else d.poles(*self.batch, N)
        low = {name: 0.4 * draw(*self.batch, self.rank, N) for name in ("P", "Q")}
        low["Q"] = low["P"] + 0.2 * low["Q"]  # near a decaying matrix
        ports = {"B": draw(*self.batch, N, *P), "C": draw(*self.batch, *M, N)}
        return {"poles": poles, **low, **ports, "D": d.real(*self.batch, *M, *P)}

    def system(self, v: SimpleNamespace) -> Any:
        return ssm_core.DPLR(**{name: getattr(v, name) for name in ssm_core.DPLR.ARRAYS}, **self.flags)

    def plain(self, v: SimpleNamespace) -> Plain:
        """diag(poles) - sum_r P_r Q_r^H of all modes."""
        found = truth.plain({n: getattr(v, n) for n in ("poles", "B", "C", "D")}, **self.flags)
        P, Q = v.P, v.Q
        if self.flags.get("conj_pairs"):
            P, Q = (np.concatenate([x, x.conj()], axis=-1) for x in (P, Q))
        A = found.A - np.swapaxes(P, -1, -2) @ Q.conj()
        return Plain(A, found.B, found.C, found.D, found.real, found.single_input, found.single_output)

    def signal(self, d: Draw, length: int) -> np.ndarray:
        return d.signal(*self.batch, *(() if self.inputs is None else (self.inputs,)), length)

    def state(self, d: Draw) -> np.ndarray:
        return (d.real if self.real else d.complex)(*self.batch, self.states)

    def full_state(self, state: np.ndarray) -> np.ndarray:
        return np.concatenate([state, state.conj()], axis=-1) if self.flags.get("conj_pairs") else state


PAIRS = LowRank("dplr_pairs", {"conj_pairs": True}, batch=(2,), rank=2)
UNPAIRED = LowRank("dplr_unpaired", rank=1)
REAL = LowRank("dplr_real", real=True, rank=2)
MIMO = LowRank("dplr_mimo", {"conj_pairs": True}, rank=1, inputs=2, outputs=3)
EXAMPLES = (PAIRS, UNPAIRED, REAL, MIMO)
STEPS = np.asarray([0.05, 0.3])


def _in_halves(system: Plain, n: int) -> tuple[np.ndarray, ...]:
    """A, B and C of a system of pairs on (Re x, Im x) of the stored half."""
    to = np.block([[np.eye(n), 1j * np.eye(n)], [np.eye(n), -1j * np.eye(n)]])  # (Re x, Im x) to (x, x*)
    back = np.linalg.inv(to)
    return (back @ system.A @ to).real, (back @ system.B).real, (system.C @ to).real


def _dense_case(example: LowRank, method: str | None) -> Case:
    """to_dense, of the continuous system or of the discrete one."""

    def call(v: SimpleNamespace) -> tuple[Any, ...]:
        system = example.system(v)
        if method is not None:
            system = ssm_core.discretize(system, v.dt, method, **alpha_of(method))
            assert isinstance(system, ssm_core.Dense if method in ("zoh", "dirac") else ssm_core.DPLR)
        found = ssm_core.to_dense(system)
        assert found.discrete == (method is not None)
        return found.A, found.B, found.C

    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        found = example.plain(v)
        found = found if method is None else truth.discrete(found, v.dt, method, **alpha_of(method))
        A, B, C = found.A, found.B, found.C
        if example.flags.get("conj_pairs"):
            A, B, C = _in_halves(found, example.states)
        B = B[..., 0] if example.inputs is None else B
        return A, B, (C[..., 0, :] if example.outputs is None else C)

    dt = STEPS if example.batch else DT
    function, name = ("to_dense", "") if method is None else ("discretize", f"-{method}")
    return Case(function, f"{example.label}{name}", lambda d: example.fields(d) | {"dt": dt}, call, expected, terms=256)


TO_DENSE = tuple(_dense_case(example, None) for example in EXAMPLES)
DISCRETIZE = (
    *(_dense_case(PAIRS, m) for m in ("zoh", "bilinear", "euler", "backward_euler", "gbt", "dirac")),
    *(_dense_case(example, "bilinear") for example in (UNPAIRED, REAL, MIMO)),
    _dense_case(MIMO, "zoh"),
)


def _kernel_case(example: LowRank, method: str, length: int = 37, **options: Any) -> Case:
    return Case(
        "kernel",
        "-".join((example.label, method, *options.values())),
        example.fields,
        lambda v: ssm_core.kernel(example.system(v), length, dt=DT, method=method, **options),
        lambda v: truth.kernel(truth.discrete(example.plain(v), DT, method), length),
        terms=256,
    )


KERNEL = (
    *(
        _kernel_case(example, "bilinear", **options)
        for example in EXAMPLES
        for options in ({}, {"algorithm": "cauchy"})
    ),
    _kernel_case(PAIRS, "zoh"),
)


def _run_case(example: LowRank, mode: str, method: str = "bilinear", dtypes: tuple[str, ...] = REALS) -> Case:
    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        system = truth.discrete(example.plain(v), DT, method)
        y, state = truth.recurrence(system, v.u, example.full_state(v.state))
        return y, state[..., : example.states]

    return Case(
        "scan",
        f"{example.label}-{mode}-{method}",
        lambda d: example.fields(d) | {"u": example.signal(d, 20), "state": example.state(d)},
        lambda v: ssm_core.scan(example.system(v), v.u, dt=DT, method=method, initial=v.state, mode=mode),
        expected,
        dtypes=dtypes,
        terms=256,
        half=(True, False),
    )


SCAN = (
    _run_case(PAIRS, "chunk", dtypes=(*REALS, *HALF)),
    _run_case(PAIRS, "conv", "zoh"),
    _run_case(UNPAIRED, "scan", dtypes=STANDARD),
    _run_case(REAL, "chunk"),
    _run_case(MIMO, "conv"),
)


def _step_case(example: LowRank) -> Case:
    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        system = truth.discrete(example.plain(v), DT, "bilinear")
        y, state = truth.recurrence(system, v.u[..., None], example.full_state(v.state))
        return y[..., 0], state[..., : example.states]

    return Case(
        "step",
        example.label,
        lambda d: example.fields(d) | {"u": example.signal(d, 1)[..., 0], "state": example.state(d)},
        lambda v: ssm_core.step(example.system(v), v.u, v.state, dt=DT, method="bilinear"),
        expected,
        terms=256,
        half=(True, False),
    )


STEP = (_step_case(PAIRS), _step_case(MIMO))


def _response(example: LowRank, discrete: bool) -> Case:
    def call(v: SimpleNamespace) -> Any:
        system = example.system(v)
        system = ssm_core.discretize(system, DT, "bilinear") if discrete else system
        return ssm_core.frequency_response(system, v.omega)

    def expected(v: SimpleNamespace) -> np.ndarray:
        found = example.plain(v)
        found = truth.discrete(found, DT, "bilinear") if discrete else found
        return truth.frequency_response(found, v.omega, discrete)

    name = f"{example.label}-{'discrete' if discrete else 'continuous'}"
    return Case(
        "frequency_response", name, lambda d: example.fields(d) | {"omega": np.linspace(-3, 3, 5)}, call, expected,
        terms=256,
    )  # fmt: skip


FREQUENCY = tuple(_response(example, discrete) for example in EXAMPLES for discrete in (False, True))


def _characteristic(example: LowRank) -> Case:
    """det(z - A) at some points, which does not depend on the order of the poles."""

    def call(v: SimpleNamespace) -> Any:
        return v.xp.prod(v.z[:, None] - ssm_core.poles(example.system(v)), axis=-1)

    def expected(v: SimpleNamespace) -> np.ndarray:
        A = example.plain(v).A
        return np.array([np.linalg.det(z * np.eye(len(A)) - A) for z in v.z])

    points = np.asarray([1.0 + 2j, -3.0 + 0.5j, 4j])
    return Case("poles", example.label, lambda d: example.fields(d) | {"z": points}, call, expected, on_host=True)


POLES = (_characteristic(MIMO), _characteristic(REAL))


def _diagonal(v: SimpleNamespace) -> tuple[Any, ...]:
    """What does not depend on the order and scale of eigenvectors: the matrices put together again, and the kernel."""
    system, V = ssm_core.to_diagonal(ssm_core.Dense(v.A, v.B, v.C, discrete=True))
    inverse = v.xp.linalg.inv(V)
    A = v.xp.matmul(V * system.poles, inverse)
    return A, v.xp.matmul(V, system.B[:, None])[:, 0], v.xp.matmul(system.C[None, :], inverse)[0, ...]


CONVERSIONS = (
    Case(
        "to_diagonal",
        "dense",
        lambda d: {"A": 0.3 * d.real(4, 4), "B": d.real(4), "C": d.real(4)},
        _diagonal,
        lambda v: (v.A + 0j, v.B + 0j, v.C + 0j),
        terms=4096,
        on_host=True,
    ),
    Case(
        "eigenvector_condition",
        "normal_and_not",
        lambda d: {"A": d.real(3, 3)},
        lambda v: v.xp.asarray(
            [ssm_core.eigenvector_condition(v.A), ssm_core.eigenvector_condition(v.A - v.xp.matrix_transpose(v.A))],
            dtype=v.A.dtype, device=v.device,
        ),
        lambda v: np.asarray([np.linalg.cond(np.linalg.eig(v.A)[1]), 1.0]),
        terms=4096,
        on_host=True,
    ),
)  # fmt: skip


def _low_rank(v: SimpleNamespace) -> tuple[Any, ...]:
    """The poles and |B|, which no phase of an eigenvector touches."""
    complex_ = (v.x + 1j).dtype
    system, V = ssm_core.nplr("legs", 4, xp=v.xp, dtype=complex_, device=v.device)
    return system.poles, v.xp.abs(system.B), v.xp.real(v.xp.matmul(V, system.B[:, None])[:, 0])


def _normal_part(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
    root = np.sqrt(2 * np.arange(4) + 1)
    A = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(4) + 1.0)
    w, V = np.linalg.eig(A + np.outer(root, root) / 2)
    half = np.argsort(w.imag)[:2]
    return w[half], np.abs(V[:, half].conj().T @ root), root / 2


NPLR = (Case("nplr", "legs", lambda d: {"x": d.real(1)}, _low_rank, _normal_part),)

ALL = (*TO_DENSE, *DISCRETIZE, *KERNEL, *SCAN, *STEP, *FREQUENCY, *POLES, *CONVERSIONS, *NPLR)
