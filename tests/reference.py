"""Random systems, what they compute by the truths of the conformance suite, and propagators by powers of matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from conformance import truth
from ssm_core import Dense, Diagonal


def diagonal(
    N: int = 4,
    *,
    P: int | None = None,
    M: int | None = None,
    batch: tuple[int, ...] = (),
    conj_pairs: bool = True,
    D: bool = True,
    seed: int = 0,
) -> Diagonal:
    """A continuous, stable system of complex poles."""
    rng = np.random.default_rng(seed)
    poles = -rng.uniform(0.1, 1.0, (*batch, N)) + 1j * rng.uniform(0.5, 3.0, (*batch, N))
    return Diagonal(poles, *_ports(rng, N, P, M, batch, D, complex_=True), conj_pairs=conj_pairs)


def dense(
    N: int = 4,
    *,
    P: int | None = None,
    M: int | None = None,
    batch: tuple[int, ...] = (),
    D: bool = True,
    seed: int = 0,
) -> Dense:
    """A continuous, stable, real system."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(*batch, N, N)) - 4 * np.eye(N)
    return Dense(A, *_ports(rng, N, P, M, batch, D, complex_=False))


def _ports(rng: Any, N: int, P: int | None, M: int | None, batch: tuple[int, ...], D: bool, complex_: bool) -> Any:
    inputs, outputs = (() if P is None else (P,)), (() if M is None else (M,))

    def draw(shape: tuple[int, ...], imaginary: bool) -> np.ndarray:
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if imaginary else x

    B, C = draw((*batch, N, *inputs), complex_), draw((*batch, *outputs, N), complex_)
    return B, C, (draw((*batch, *outputs, *inputs), False) if D else None)


def matrices(system: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (..., N, N), B (..., N, P) and C (..., M, N), whatever the kind of system and its ports."""
    A = system.A if isinstance(system, Dense) else system.poles[..., None] * np.eye(system.poles.shape[-1])
    B = system.B if system.B.ndim == A.ndim else system.B[..., None]
    C = system.C if system.C.ndim == A.ndim else system.C[..., None, :]
    return A, B, C


def plain(system: Any) -> truth.Plain:
    """The full matrices, conjugate pairs written out."""
    fields = {name: getattr(system, name) for name in system.ARRAYS if getattr(system, name) is not None}
    return truth.plain(fields, conj_pairs=getattr(system, "conj_pairs", False))


def run(
    system: Any, u: np.ndarray, initial: np.ndarray | None = None, reset: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The plain recurrence of a discrete system: (y, last state as the system stores it)."""
    if initial is not None and getattr(system, "conj_pairs", False):
        initial = np.concatenate([initial, np.conj(initial)], axis=-1)
    y, x = truth.recurrence(plain(system), u, initial, reset=reset)
    return y, x[..., : system.B.shape[system.poles.ndim - 1 if hasattr(system, "poles") else system.A.ndim - 2]]


def impulse_response(system: Any, length: int) -> np.ndarray:
    """C A^l B of a discrete system, as (..., M, P, length); 2 Re of it with conj_pairs."""
    several = replace(plain(system), single_input=False, single_output=False)
    return truth.kernel(several, length)


def arrays_of(system: Any, xp: Any) -> Any:
    """The system with its NumPy fields converted to another array library."""
    fields = {name: getattr(system, name) for name in system.ARRAYS}
    return replace(system, **{name: xp.asarray(x) for name, x in fields.items() if x is not None})


class Propagator:
    """What a discrete system does to states and inputs over many steps, by powers of its full matrix."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.A, self.B, self.C = matrices(system)
        self.several_inputs = system.B.ndim == self.A.ndim
        self.several_outputs = system.C.ndim == self.A.ndim

    def _times(self, k: int, x: np.ndarray) -> np.ndarray:
        return (np.linalg.matrix_power(self.A, k) @ x[..., None])[..., 0]

    def kernel(self, length: int) -> np.ndarray:
        K = impulse_response(self.system, length)
        K = K if self.several_inputs else K[..., 0, :]
        return K if self.several_outputs else K[..., 0, :, :] if self.several_inputs else K[..., 0, :]

    def respond(self, states: np.ndarray, T: int) -> np.ndarray:
        powers = [self.C @ np.linalg.matrix_power(self.A, t + 1) for t in range(T)]
        y = np.stack([states @ np.swapaxes(W, -1, -2) for W in powers], axis=-1)  # (..., A, M, T)
        y = 2 * y.real if getattr(self.system, "conj_pairs", False) else y
        return np.swapaxes(y, -2, -3) if self.several_outputs else y[..., 0, :]

    def gather(self, u: np.ndarray) -> np.ndarray:
        u = u if self.several_inputs else u[..., None, :, :]
        T = u.shape[-1]
        powers = [np.linalg.matrix_power(self.A, T - 1 - t) @ self.B for t in range(T)]
        return sum(np.swapaxes(W @ u[..., t], -1, -2) for t, W in enumerate(powers))

    def spread(self, state: np.ndarray, A: int, T: int) -> np.ndarray:
        return np.stack([self._times(a * T, state) for a in range(A)], axis=-2)

    def combine(self, ends: np.ndarray, T: int) -> np.ndarray:
        return self.carry(ends, T, np.zeros_like(ends[..., 0, :]))[..., -1, :]

    def carry(self, ends: np.ndarray, T: int, initial: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        x, after = initial, []
        for a in range(ends.shape[-2]):
            x = self._times(T, x) * (1 if keep is None else keep[..., a, None]) + ends[..., a, :]
            after.append(x)
        return np.stack(after, axis=-2)

    def advance(self, state: np.ndarray, k: Any, largest: int) -> np.ndarray:
        if isinstance(k, int):
            return self._times(k, state)
        every = np.stack([self._times(j, state) for j in range(largest + 1)])
        return np.take_along_axis(every, np.broadcast_to(k, every.shape[1:])[None], axis=0)[0]


def check_propagator(found: Any, system: Any, batch: tuple[int, ...], xp: Any) -> None:
    """Compare every method of a propagator with that of the full matrix."""
    wanted = Propagator(system)
    for call, (method, arguments) in _propagations(system, batch).items():
        y = getattr(found, method)(*(xp.asarray(x) if isinstance(x, np.ndarray) else x for x in arguments))
        z = getattr(wanted, method)(*arguments)
        np.testing.assert_allclose(np.asarray(y), z, rtol=1e-10, atol=1e-12, err_msg=call)


def _propagations(system: Any, batch: tuple[int, ...]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Calls of a propagator, as (method, arguments), by name."""
    rng = np.random.default_rng(1)
    A, B, _ = matrices(system)
    N, P = A.shape[-1], ((B.shape[-1],) if system.B.ndim == A.ndim else ())

    def states(*axes: int) -> np.ndarray:
        return rng.normal(size=(*axes, N)) + 1j * rng.normal(size=(*axes, N))

    return {
        "kernel of one step": ("kernel", (1,)),
        "kernel": ("kernel", (13,)),
        "respond": ("respond", (states(*batch, 3), 5)),
        "respond to a batch": ("respond", (states(2, *batch, 3), 5)),
        "gather": ("gather", (rng.normal(size=(*batch, *P, 3, 5)),)),
        "gather a batch": ("gather", (rng.normal(size=(2, *batch, *P, 3, 5)),)),
        "gather complex inputs": ("gather", (rng.normal(size=(*batch, *P, 3, 5)) + 1j,)),
        "spread": ("spread", (states(*batch), 4, 3)),
        "combine": ("combine", (states(*batch, 5), 3)),
        "combine one": ("combine", (states(*batch, 1), 3)),
        "carry": ("carry", (states(*batch, 6), 3, states(*batch))),
        "carry one": ("carry", (states(*batch, 1), 3, states(*batch))),
        "carry with gates": ("carry", (states(*batch, 6), 2, states(*batch), rng.uniform(size=(*batch, 6)).round())),
        "advance": ("advance", (states(*batch), 7, 7)),
        "advance by nothing": ("advance", (states(*batch), 0, 9)),
        "advance each by its own": ("advance", (states(3, *batch), np.arange(3).reshape(3, *(1,) * len(batch), 1), 2)),
    }
