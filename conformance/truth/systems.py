"""Systems as full matrices with explicit axes of inputs and outputs, one step after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .functions import expm, held_input, over_batch

Array = np.ndarray


@dataclass(frozen=True)
class Plain:
    """A system as full matrices: A (..., n, n), B (..., n, P), C (..., M, n), D (..., M, P)."""

    A: Array
    B: Array
    C: Array
    D: Array
    real: bool  # the output to a real input is real
    single_input: bool
    single_output: bool

    def direct(self, u: Array) -> Any:
        """D u for u (..., P); a number is a multiple of the identity."""
        return _apply(self.D, u) if self.D.ndim else self.D * u if self.D else 0.0


def plain(fields: dict[str, Any], *, conj_pairs: bool = False) -> Plain:
    """The full matrices of a Diagonal (poles) or Dense (A) system; pairs are written out."""
    diagonal = "poles" in fields
    lead = fields["poles"] if diagonal else fields["A"][..., 0]
    single_input, single_output = fields["B"].ndim == lead.ndim, fields["C"].ndim == lead.ndim
    B = fields["B"][..., None] if single_input else fields["B"]
    C = fields["C"][..., None, :] if single_output else fields["C"]
    if conj_pairs:
        lead = np.concatenate([lead, lead.conj()], axis=-1)
        B, C = np.concatenate([B, B.conj()], axis=-2), np.concatenate([C, C.conj()], axis=-1)
    A = lead[..., :, None] * np.eye(lead.shape[-1]) if diagonal else fields["A"]
    D = np.asarray(0.0 if fields.get("D") is None else fields["D"])
    if D.ndim:
        D = D[..., None] if single_input else D
        D = D[..., None, :] if single_output else D
    real = conj_pairs or not any(np.iscomplexobj(x) for x in (A, B, C))
    return Plain(A, B, C, D, real, single_input, single_output)


def _real(x: Array) -> Array:
    assert np.all(np.abs(x.imag) <= 1e-10 * (1 + np.abs(x.real))), "the truth of a real system must be real"
    return x.real


# Discretization ------------------------------------------------------------------------------------------------------

ALPHA = {"euler": 0.0, "bilinear": 0.5, "backward_euler": 1.0}


def discretize(A: Array, B: Array, dt: Any, method: str, alpha: float | None = None) -> tuple[Array, Array]:
    """Ab and Bb of full matrices A (..., n, n), B (..., n, P) for steps dt (...)."""

    def one(A: Array, B: Array, dt: Array) -> tuple[Array, Array]:
        if method == "dirac":
            return expm(dt * A), B + 0 * A[:, :1]
        if method == "zoh":
            return expm(dt * A), held_input(A, float(dt)) @ B
        a = ALPHA.get(method, alpha)
        left = np.linalg.inv(np.eye(len(A)) - a * dt * A)
        return left @ (np.eye(len(A)) + (1 - a) * dt * A), dt * (left @ B)

    return over_batch(one, (2, 2, 0), A, B, dt)  # type: ignore[return-value]


def discretize_poles(poles: Array, dt: Any, method: str, alpha: float | None = None) -> tuple[Array, Array]:
    """The discrete poles, and the factors of B, of every pole by itself; dt broadcasts against the poles."""
    z = dt * poles
    if method in ("zoh", "dirac"):
        gain = np.where(z == 0, dt, np.expm1(z) / np.where(z == 0, 1, poles)) if method == "zoh" else np.ones_like(z)
        return np.exp(z), gain
    a = ALPHA.get(method, alpha)
    return (1 + (1 - a) * z) / (1 - a * z), dt / (1 - a * z)


def discrete(system: Plain, dt: Any, method: str = "zoh", alpha: float | None = None) -> Plain:
    """The discrete system; dt () or (...) as the batch axes, or (..., n) per stored state of a diagonal A."""
    dt, n = np.asarray(dt), system.A.shape[-1]
    poles = np.diagonal(system.A, axis1=-2, axis2=-1)
    if np.any(system.A - poles[..., None] * np.eye(n)):
        A, B = discretize(system.A, system.B, dt, method, alpha)
    else:
        per_state = dt.ndim == system.A.ndim - 1 and dt.ndim > 0
        dt = dt if per_state else dt[..., None]
        dt = np.concatenate([dt, dt], axis=-1) if dt.shape[-1] * 2 == n else dt  # of pairs written out
        poles, gain = discretize_poles(poles, dt, method, alpha)
        A, B = poles[..., None] * np.eye(n), gain[..., None] * system.B
    return replace(system, A=A, B=B)


# Systems over time ---------------------------------------------------------------------------------------------------


def kernel(system: Plain, length: int) -> Array:
    """C A^l B by one matrix power after another: (...[, M][, P], L)."""

    def one(A: Array, B: Array, C: Array) -> tuple[Array]:
        taps, power = [], np.eye(len(A))
        for _ in range(length):
            taps.append(C @ power @ B)
            power = A @ power
        return (np.stack(taps, axis=-1),)

    (K,) = over_batch(one, (2, 2, 2), system.A, system.B, system.C)
    K = K[..., 0, :] if system.single_input else K
    K = (K[..., 0, :] if system.single_input else K[..., 0, :, :]) if system.single_output else K
    return _real(K) if system.real else K


def recurrence(
    systems: Plain | Sequence[Plain],
    u: Array,
    state: Array | None = None,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """x_k = A x_{k-1} + B u_k, y_k = C x_k + D u_k in a loop; one system, or one for every step.

    u (..., L) or (..., P, L); state (..., n); y and the last state, at the length where lengths are given.
    """
    first = systems if isinstance(systems, Plain) else systems[0]
    u = u[..., None, :] if first.single_input else u
    L = u.shape[-1]
    batch = np.broadcast_shapes(
        u.shape[:-2], first.A.shape[:-2], first.B.shape[:-2], first.C.shape[:-2],
        () if state is None else state.shape[:-1], () if reset is None else reset.shape[:-1],
        () if lengths is None else lengths.shape,
    )  # fmt: skip
    x = np.zeros((*batch, first.A.shape[-1])) if state is None else np.broadcast_to(state, (*batch, first.A.shape[-1]))
    outputs = []
    for k in range(L):
        s = systems if isinstance(systems, Plain) else systems[k]
        before = x if reset is None else np.where(reset[..., k, None], 0, x)
        after = _apply(s.A, before) + _apply(s.B, u[..., k])
        x = after if lengths is None else np.where((k < lengths)[..., None], after, x)
        outputs.append(_apply(s.C, after) + s.direct(u[..., k]))
    y = np.stack(outputs, axis=-1)
    y = y[..., 0, :] if first.single_output else y
    return (_real(y) if first.real and not np.iscomplexobj(u) else y), x


def _apply(matrix: Array, x: Array) -> Array:
    return (matrix @ x[..., None])[..., 0]


def frequency_response(system: Plain, omega: Array, is_discrete: bool) -> Array:
    """C (i w - A)^-1 B + D, or C (I - A e^-iw)^-1 B + D, frequency by frequency."""
    one = np.eye(system.A.shape[-1])
    values = []
    for w in omega:
        left = one - system.A * np.exp(-1j * w) if is_discrete else 1j * w * one - system.A
        values.append(system.C @ np.linalg.solve(left, system.B + 0j) + system.D)
    H = np.stack(values, axis=-1)
    H = H[..., 0, :] if system.single_input else H
    return (H[..., 0, :] if system.single_input else H[..., 0, :, :]) if system.single_output else H
