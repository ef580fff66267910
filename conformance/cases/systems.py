"""Public functions of systems with inputs, a call and the truth of it, as in `cases`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

import ssm_core

from .. import examples, truth
from ..backends import HALF, STANDARD
from ..examples import DENSE, DENSE_MIMO, INPUTS, MIMO, OUTPUTS, PAIRS, REAL, UNPAIRED, Draw, Example, alpha_of
from ..truth import Plain
from . import decay, delta, dplr, duality, rational, selective, vectors
from .functions import REALS, SIGNALS, Case

DT = 0.1


def _continuous(example: Example, length: int = 0, **more: Any) -> Callable[[Draw], dict[str, Any]]:
    """The fields of an example, and a signal and a state where it runs over time."""

    def draw(d: Draw) -> dict[str, Any]:
        found = example.fields(d) | more
        return found | {"u": example.signal(d, length), "state": example.state(d)} if length else found

    return draw


def _discretization(example: Example, method: str, name: str, dt: Any = DT) -> Case:
    more = alpha_of(method)

    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        found, stored = truth.discrete(example.plain(v), v.dt, method, **more), example.states
        A, B = found.A[..., :stored, :stored], found.B[..., :stored, :]
        A = np.diagonal(A, axis1=-2, axis2=-1) if example.diagonal else A
        return A, (B if example.inputs else B[..., 0])

    def call(v: SimpleNamespace) -> tuple[Any, ...]:
        found = ssm_core.discretize(example.system(v), v.dt, method, **more)
        assert found.discrete
        return (found.poles if example.diagonal else found.A), found.B

    return Case("discretize", f"{name}-{method}", lambda d: example.fields(d) | {"dt": dt}, call, expected)


DISCRETIZE = (
    *(_discretization(PAIRS, m, "pairs") for m in examples.METHODS),
    *(_discretization(DENSE_MIMO, m, "dense_mimo", np.asarray([0.05, 0.3])) for m in examples.METHODS),
    _discretization(MIMO, "zoh", "per_state", np.asarray([0.01, 0.1, 0.4, 1.0])),
    _discretization(REAL, "zoh", "tiny_step", 1e-7),
    Case(
        "discretize",
        "dense_singular-zoh",
        lambda d: {"A": np.diag(np.ones(2), 1), "B": d.real(3), "C": d.real(3)},
        lambda v: ssm_core.discretize((v.A, v.B, v.C), 0.5).B,
        lambda v: truth.discretize(v.A, v.B[:, None], 0.5, "zoh")[1][:, 0],
    ),
)


def _kernel_case(example: Example, method: str = "zoh", length: int = 37, dt: Any = DT) -> Case:
    return Case(
        "kernel",
        f"{example.label}-{method}",
        lambda d: example.fields(d) | {"dt": dt},
        lambda v: ssm_core.kernel(example.system(v), length, dt=v.dt, method=method, **alpha_of(method)),
        lambda v: truth.kernel(truth.discrete(example.plain(v), v.dt, method, **alpha_of(method)), length),
        terms=256,
    )


def _kernel_of_two_inputs(example: Example, method: str, length: int = 24) -> Case:
    """x_k = A x_{k-1} + now u_k + before u_{k-1}: the taps C A^l (A now + before) follow the first, C now."""

    def expected(v: SimpleNamespace) -> np.ndarray:
        system = example.plain(v)
        if method == "tustin":
            found = truth.discrete(system, DT, "bilinear")
            now = before = found.B / 2
        else:  # foh: the line is an integrator of its slope, which is held
            (n, p), batch = system.B.shape[-2:], system.B.shape[:-2]
            A = np.concatenate([system.A, system.B], axis=-1)
            A = np.concatenate([A, np.zeros((*batch, p, n + p))], axis=-2)
            slope = np.broadcast_to(np.eye(n + p)[:, n:], (*batch, n + p, p))
            A, slope = truth.discretize(A, slope, DT, "zoh")
            now = slope[..., :n, :] / DT
            found, before = replace(system, A=A[..., :n, :n]), A[..., :n, n:] - now
        first = truth.kernel(replace(found, B=now), 1)
        return np.concatenate([first, truth.kernel(replace(found, B=found.A @ now + before), length - 1)], axis=-1)

    return Case(
        "kernel",
        f"{example.label}-{method}",
        example.fields,
        lambda v: ssm_core.kernel(example.system(v), length, dt=DT, method=method),
        expected,
        terms=256,
    )


KERNEL = (
    *(_kernel_case(example) for example in (PAIRS, UNPAIRED, REAL, MIMO, OUTPUTS, DENSE, DENSE_MIMO)),
    _kernel_case(MIMO, "bilinear", 64),
    _kernel_case(DENSE, "gbt", 1),
    _kernel_case(PAIRS, "dirac", 100, np.asarray([0.05, 0.1, 0.2, 0.3])),
    Case(
        "kernel",
        "discrete_tuple",
        lambda d: {"A": 0.3 * d.real(3, 3), "B": d.real(3), "C": d.real(3)},
        lambda v: ssm_core.kernel((v.A, v.B, v.C), 12),
        lambda v: truth.kernel(truth.plain(vars(v)), 12),
    ),
    *(_kernel_of_two_inputs(example, method) for example in (PAIRS, DENSE_MIMO) for method in ("foh", "tustin")),
)


def run_case(example: Example, length: int, mode: str, dtypes: tuple[str, ...] = REALS) -> Case:
    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        system = truth.discrete(example.plain(v), DT)
        y, state = truth.recurrence(system, v.u, example.full_state(v.state))
        return y, example.stored_state(state)

    return Case(
        "scan",
        f"{example.label}-{mode}-{length}",
        _continuous(example, length),
        lambda v: ssm_core.scan(example.system(v), v.u, dt=DT, initial=v.state, mode=mode),
        expected,
        dtypes=dtypes,
        terms=256,
        half=(True, False),
    )


SCAN = (
    run_case(PAIRS, 20, "auto", (*REALS, *HALF)),
    run_case(UNPAIRED, 20, "auto", STANDARD),
    run_case(DENSE_MIMO, 20, "auto"),
    run_case(PAIRS, 150, "auto"),
)


def _step_case(example: Example, dtypes: tuple[str, ...] = REALS) -> Case:
    def inputs(d: Draw) -> dict[str, Any]:
        return example.fields(d) | {"u": example.signal(d, 1)[..., 0], "state": example.state(d)}

    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        system = truth.discrete(example.plain(v), DT)
        y, state = truth.recurrence(system, v.u[..., None], example.full_state(v.state))
        return y[..., 0], example.stored_state(state)

    return Case(
        "step",
        example.label,
        inputs,
        lambda v: ssm_core.step(example.system(v), v.u, v.state, dt=DT),
        expected,
        dtypes=dtypes,
        half=(True, False),
    )


STEP = (_step_case(PAIRS), _step_case(UNPAIRED, STANDARD), _step_case(OUTPUTS, (*REALS, *HALF)), _step_case(DENSE_MIMO))


# The diagonal recurrence ---------------------------------------------------------------------------------------------


def _diagonal_scan(
    example: Example, name: str, *, per_step: bool = False, resets: bool = False, chunk: int | None = None,
    dtypes: tuple[str, ...] = REALS,
) -> Case:  # fmt: skip
    """The discrete system of an example; per step, the poles and B differ from step to step."""
    L = 17

    def draw(d: Draw) -> dict[str, Any]:
        fields = {n: x for n, x in example.fields(d).items() if n != "D"}
        found = truth.discretize_poles(fields.pop("poles"), DT, "zoh")[0]
        if per_step:
            found = found * d.uniform(0.3, 1, L, example.states)
            fields["B"] = fields["B"] * d.uniform(0.5, 2, L, *(1,) * fields["B"].ndim)
            fields["C"] = fields["C"][None, ...]
        reset = d.resets(L) if resets else None
        return fields | {"poles": found, "u": example.signal(d, L), "state": example.state(d), "reset": reset}

    def call(v: SimpleNamespace) -> Any:
        pairs = example.flags.get("conj_pairs", False)
        options = {"conj_pairs": pairs, "per_step": per_step, "chunk": chunk}
        return ssm_core.diagonal_scan(v.u, v.poles, v.B, v.C, initial=v.state, reset=v.reset, **options)

    def expected(v: SimpleNamespace) -> tuple[np.ndarray, ...]:
        def system(k: int) -> truth.Plain:
            fields = {"poles": v.poles, "B": v.B, "C": v.C}
            fields = {n: x[min(k, len(x) - 1)] for n, x in fields.items()} if per_step else fields
            return truth.plain(fields, **example.flags)

        steps = [system(k) for k in range(L)]
        y, state = truth.recurrence(steps, v.u, example.full_state(v.state), reset=v.reset)
        return y, example.stored_state(state)

    return Case("diagonal_scan", name, draw, call, expected, dtypes, terms=256, half=(True, False))


DIAGONAL_SCAN = (
    _diagonal_scan(PAIRS, "pairs", dtypes=(*REALS, *HALF)),
    _diagonal_scan(UNPAIRED, "unpaired-chunks_of_5", chunk=5, dtypes=STANDARD),
    _diagonal_scan(REAL, "real-per_step-resets", per_step=True, resets=True, dtypes=SIGNALS),
    _diagonal_scan(MIMO, "mimo-resets-chunks_of_4", resets=True, chunk=4),
    _diagonal_scan(MIMO, "mimo-per_step", per_step=True, chunk=6),
    _diagonal_scan(INPUTS, "inputs"),
    _diagonal_scan(OUTPUTS, "outputs"),
)


# Frequencies and poles -----------------------------------------------------------------------------------------------


def _response(example: Example, discrete: bool) -> Case:
    def system(v: SimpleNamespace) -> Any:
        continuous = example.system(v)
        return ssm_core.discretize(continuous, DT) if discrete else continuous

    def expected(v: SimpleNamespace) -> np.ndarray:
        continuous = example.plain(v)
        found = truth.discrete(continuous, DT) if discrete else continuous
        return truth.frequency_response(found, v.omega, discrete)

    return Case(
        "frequency_response",
        f"{example.label}-{'discrete' if discrete else 'continuous'}",
        _continuous(example, omega=np.linspace(-3, 3, 5)),
        lambda v: ssm_core.frequency_response(system(v), v.omega),
        expected,
    )


FREQUENCY = tuple(_response(example, discrete) for example in (PAIRS, MIMO, DENSE_MIMO) for discrete in (False, True))


def _characteristic(example: Example) -> Case:
    """det(z - A) at some points, which does not depend on the order of the poles."""
    points = np.asarray([1.0 + 2j, -3.0 + 0.5j, 4j])

    def call(v: SimpleNamespace) -> Any:
        return v.xp.prod(v.z[:, None] - ssm_core.poles(example.system(v)), axis=-1)

    def expected(v: SimpleNamespace) -> np.ndarray:
        A = example.plain(v).A
        return np.array([np.linalg.det(z * np.eye(len(A)) - A) for z in v.z])

    on_host = not example.diagonal
    return Case("poles", example.label, _continuous(example, z=points), call, expected, on_host=on_host)


POLES = (_characteristic(PAIRS), _characteristic(UNPAIRED), _characteristic(DENSE))


# HiPPO as a memory ---------------------------------------------------------------------------------------------------


def _memory(measure: str, method: str, clock: str, dtypes: tuple[str, ...] = REALS) -> Case:
    """Steps of 0.1 or at given times, from a state; the truth by full matrices, step by step."""
    L, N = 17, 4

    def draw(d: Draw) -> dict[str, Any]:
        found = {"u": d.signal(2, L), "state": d.signal(2, N)}
        return found if clock == "dt" else found | {"times": 1 + np.cumsum(d.uniform(0.05, 0.2, L))}

    def call(v: SimpleNamespace) -> Any:
        options = {"dt": DT, "start": 10 * DT} if clock == "dt" else {"times": v.times, "start": 1.0}
        return ssm_core.hippo_project(v.u, measure, N, method=method, initial=v.state, **options)

    def expected(v: SimpleNamespace) -> np.ndarray:
        times = 1 + DT * np.arange(1, L + 1) if clock == "dt" else v.times
        edges = np.asarray([*times, 2 * times[-1] - times[-2]] if method == "zoh" else [1.0, *times])
        steps = np.diff(edges)
        if measure == "legs":
            steps = np.log(edges[1:] / edges[:-1]) if method == "zoh" else steps / edges[1:]
        A, B = ssm_core.hippo(measure, N)
        system = Plain(A, B[:, None], np.eye(N), np.zeros(()), not np.iscomplexobj(v.u), True, False)
        systems = [truth.discrete(system, step, method) for step in steps]
        return np.moveaxis(truth.recurrence(systems, v.u, v.state)[0], -1, -2)

    return Case("hippo_project", f"{measure}-{method}-{clock}", draw, call, expected, dtypes, terms=256)


def _memory_functions(measure: str, window: float, dtypes: tuple[str, ...] = REALS) -> Case:
    """Legendre's polynomials by NumPy."""
    points = window * np.linspace(0, 1, 9)

    def expected(v: SimpleNamespace) -> np.ndarray:
        n, age = np.arange(5), v.points / window
        scale, x = (1.0, 2 * age - 1) if measure == "lmu" else (np.sqrt(2 * n + 1), 1 - 2 * age)
        return v.c @ (np.polynomial.legendre.legvander(x, 4) * scale).T

    return Case(
        "hippo_reconstruct",
        measure,
        lambda d: {"c": d.signal(3, 5), "points": points},
        lambda v: ssm_core.hippo_reconstruct(v.c, measure, v.points),
        expected,
        dtypes,
        terms=256,
    )


HIPPO_PROJECT = (
    _memory("legs", "bilinear", "dt", SIGNALS),
    _memory("legs", "zoh", "dt", STANDARD),
    _memory("legs", "backward_euler", "times"),
    _memory("legs", "zoh", "times"),
    _memory("lmu", "bilinear", "dt", SIGNALS),
    _memory("legt", "bilinear", "times", STANDARD),
    _memory("fout", "zoh", "times"),
)
HIPPO_RECONSTRUCT = (
    _memory_functions("legs", 1.0, SIGNALS),
    _memory_functions("lmu", 1.0),
    _memory_functions("legt", 2.0),
)

RATIONAL = rational.ALL
SELECTIVE = selective.ALL
DUALITY = duality.ALL
DECAY = decay.ALL
DELTA = delta.ALL
VECTORS = vectors.ALL
ALL = (
    *DISCRETIZE,
    *KERNEL,
    *SCAN,
    *STEP,
    *DIAGONAL_SCAN,
    *FREQUENCY,
    *POLES,
    *HIPPO_PROJECT,
    *HIPPO_RECONSTRUCT,
    *RATIONAL,
    *SELECTIVE,
    *DUALITY,
    *DECAY,
    *DELTA,
    *VECTORS,
    *dplr.ALL,
)
