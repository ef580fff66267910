"""The S4 family as plain loops over time in NumPy float64; of ssm_core only the names of options and parameters.

Every system is its full matrix: conjugate pairs are written out, states are those of all modes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import truth
from .truth_layers import mixed

Array = np.ndarray


@dataclass(frozen=True)
class System:
    """What a layer runs: advance(x, u (B, H), rate) on full states, observe(x) -> (B, rows, H), states in and out."""

    advance: Callable[[Array, Array, Any], Array]
    observe: Callable[[Array], Array]
    shape: tuple[int, ...]  # of a full state
    full: Callable[[Array], Array] = lambda state: state
    stored: Callable[[Array], Array] = lambda x: x


def run(
    name: str,
    options: dict[str, Any],
    params: dict[str, Array],
    u: Array,
    state: Array | None = None,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
    rate: Any = 1.0,
    step_scale: Array | None = None,
) -> tuple[Array, Array]:
    """y (B, L, ...) and the last state for u (B, L, H), step by step."""
    options = WITHOUT | options
    system = SYSTEMS[name](options, params)
    x = np.zeros((len(u), *system.shape)) if state is None else system.full(state)
    over = (slice(None), *(None,) * len(system.shape))  # (B,) against the states
    rows = []
    for k in range(u.shape[1]):
        before = x if reset is None else np.where(reset[:, k][over], 0, x)
        after = system.advance(before, u[:, k], rate if step_scale is None else rate * step_scale[:, k][over])
        x = after if lengths is None else np.where((k < lengths)[over], after, x)
        rows.append(system.observe(after))
    return mixed(options, params, np.stack(rows, axis=1), u), system.stored(x)


def kernel(name: str, options: dict[str, Any], params: dict[str, Array], length: int, rate: Any = 1.0) -> Array:
    """(rows, H, L) of a layer with a system a channel: the answers to an impulse in every channel."""
    system = SYSTEMS[name](options, params)
    x, taps = np.zeros((1, *system.shape)), []
    for k in range(length):
        x = system.advance(x, np.full((1, options["d_model"]), float(k == 0)), rate)
        taps.append(system.observe(x)[0])
    return np.stack(taps, axis=-1)


def both_directions(
    name: str, options: dict[str, Any], params: dict[str, Array], u: Array, lengths: Array | None = None
) -> Array:
    """A system a channel: the second half of C on the future from the next sample on. The joint ones: a second run."""
    options = WITHOUT | options
    L = u.shape[1]
    u = u if lengths is None else np.where((np.arange(L) < lengths[:, None])[..., None], u, 0)
    if name in JOINT:
        system = SYSTEMS[name](options, params)

        def states(u: Array) -> Array:
            x, found = np.zeros((len(u), *system.shape)), []
            for k in range(L):
                x = system.advance(x, u[:, k], 1.0)
                found.append(system.observe(x))
            return np.stack(found, axis=1)  # (B, L, rows, H)

        v = states(u)[:, :, :1] + states(u[:, ::-1])[:, ::-1, 1:]
        return mixed(options, params, v, u)
    channels = options["channels"]
    K = kernel(name, options, params, L)
    v = np.zeros((len(u), L, channels, u.shape[2]))
    for t in range(L):
        for j in range(L):
            tap = K[:channels, :, t - j] if j <= t else K[channels:, :, j - t - 1]
            v[:, t] += tap * u[:, j, None, :]
    return mixed(options, params, v, u)


def _complex(params: dict[str, Array], name: str) -> Array:
    return params[f"{name}_re"] + 1j * params[f"{name}_im"]


def _copies(x: Array, options: dict[str, Any]) -> Array:
    """Copy h mod S for channel h."""
    return x[np.arange(options["d_model"]) % len(x)]


def _with_conjugates(x: Array) -> Array:
    return np.concatenate([x, x.conj()], axis=-1)


def _matrices(A: Array, B: Array, C: Array, dt: Array, method: str, full: Any = None, stored: Any = None) -> System:
    """One system a channel with full matrices: A (H, M, M), B (H, M), C (rows, H, M), dt (H,)."""
    found: dict[bytes, Any] = {}

    def advance(x: Array, u: Array, rate: Any) -> Array:
        steps = np.broadcast_to(dt * rate, dt.shape)
        key = steps.tobytes()
        if key not in found:
            found[key] = truth.discretize(A, B[..., None], steps, method)
        Ab, Bb = found[key]
        return (Ab @ x[..., None])[..., 0] + Bb[..., 0] * u[..., None]

    def observe(x: Array) -> Array:
        y = np.einsum("rhm,bhm->brh", C, x)
        assert not np.iscomplexobj(y) or np.abs(y.imag).max() <= 1e-9 * (1 + np.abs(y.real).max())
        return y.real

    same = lambda x: x  # noqa: E731
    return System(advance, observe, (len(dt), A.shape[-1]), full or same, stored or same)


def s4(options: dict[str, Any], params: dict[str, Array]) -> System:
    """A = diag([p, p*]) - sum_r [P_r, P_r*] [P_r, P_r*]^H."""
    poles = _copies(-np.exp(params["log_A_re"]) + 1j * params["A_im"], options)
    P = _with_conjugates(_copies(_complex(params, "P"), options))
    B, C = _copies(_complex(params, "B"), options), _complex(params, "C")
    full, n = _with_conjugates(poles), poles.shape[-1]
    A = full[..., None] * np.eye(2 * n) - np.swapaxes(P, -1, -2) @ P.conj()
    dt, method = np.exp(params["log_dt"]), options["discretization"]
    B, C = _with_conjugates(B), _with_conjugates(C)
    return _matrices(A, B, C, dt, method, _with_conjugates, lambda x: x[..., :n])


def ssm(options: dict[str, Any], params: dict[str, Array]) -> System:
    A, B = (_copies(params[name], options) for name in ("A", "B"))
    return _matrices(A, B, params["C"], np.exp(params["log_dt"]), options["discretization"])


def lmu(options: dict[str, Any], params: dict[str, Array]) -> System:
    """theta x' = A x + B u with A[n, k] = (2n + 1) (-1 if n < k else (-1)^(n-k+1)) and B[n] = (2n + 1) (-1)^n."""
    H, n = options["d_model"], np.arange(options["d_state"])
    signs = np.where(n[:, None] < n, -1.0, (-1.0) ** (n[:, None] - n + 1))
    A, B = (2 * n[:, None] + 1) * signs, (2 * n + 1) * (-1.0) ** n
    A, B = np.broadcast_to(A, (H, *A.shape)), np.broadcast_to(B, (H, *B.shape))
    return _matrices(A, B, params["C"], np.full(H, 1 / options["theta"]), options["discretization"])


def dss(options: dict[str, Any], params: dict[str, Array]) -> System:
    """x_k = e^(dt A) x_{k-1} + 1 / (A s) u_k, y = Re(W x), s the sum of e^(dt A j) over j < length, term by term."""
    A, dt = _copies(_complex(params, "A"), options), np.exp(params["log_dt"])[:, None]
    last = options["length"] - 1
    # Relative to its largest term, so that the epsilon means the same for decaying and growing modes.
    largest = np.where(A.real > 0, last * dt * A, 0)
    s = np.exp((dt * A)[..., None] * np.arange(last + 1) - largest[..., None]).sum(-1)
    inverse = s.conj() / (np.abs(s) ** 2 + options["epsilon"]) * np.exp(-largest)
    W = _complex(params, "W")

    def advance(x: Array, u: Array, rate: Any) -> Array:
        rate = rate[..., None] if np.ndim(rate) == 1 else rate  # (H,)
        return np.exp(rate * dt * A) * x + inverse / A * u[..., None]

    return System(advance, lambda x: np.einsum("rhn,bhn->brh", W, x).real, A.shape)


def s5(options: dict[str, Any], params: dict[str, Array]) -> System:
    """Several inputs and outputs; without conj_sym the output is Re(C x) of all modes."""
    real = params["A_re"]
    if options["clip_eigs"]:
        real = np.minimum(real, -options["max_real"])
    A, B, C = real + 1j * params["A_im"], _complex(params, "B"), _complex(params, "C")
    factor = 2 if options["conj_sym"] else 1

    def advance(x: Array, u: Array, rate: Any) -> Array:
        Ab, gain = truth.discretize_poles(A, rate * np.exp(params["log_dt"]), options["discretization"])
        driven = gain * (u @ B.T)
        return (Ab + driven if options["liquid"] else Ab) * x + driven

    return System(advance, lambda x: factor * np.einsum("rhn,bn->brh", C, x).real, A.shape)


def lru(options: dict[str, Any], params: dict[str, Array]) -> System:
    poles = np.exp(-np.exp(params["nu_log"]) + 1j * np.exp(params["theta_log"]))
    B = np.exp(params["gamma_log"])[:, None] * _complex(params, "B")
    C = _complex(params, "C")
    return System(lambda x, u, rate: poles * x + u @ B.T, lambda x: np.einsum("rhn,bn->brh", C, x).real, poles.shape)


def rtf(options: dict[str, Any], params: dict[str, Array]) -> System:
    """w_k = u_k - sum_j a_j w_{k-j}, y_k = h_0 u_k + sum_j b_j w_{k-j}; states (w_k, ..., w_{k-N}), and w_{k-1} first
    after a step: u_k is w_k + sum_j a_j w_{k-j} again."""
    a, b, direct = params["a"], params["b"], params["h_0"]
    if options["constraint"] is not None:
        a = a / (np.abs(a).sum(-1) + np.abs(params["slack"]) + 1e-6)[..., None]
    a = np.repeat(a, options["d_model"] // a.shape[1], axis=1)  # each serves consecutive channels

    def advance(x: Array, u: Array, rate: Any) -> Array:
        w = u[:, None, :] - np.sum(a * x[..., :-1], axis=-1)
        return np.concatenate([w[..., None], x[..., :-1]], axis=-1)

    def observe(x: Array) -> Array:
        u = x[..., 0] + np.sum(a * x[..., 1:], axis=-1)
        return direct * u + np.sum(b * x[..., 1:], axis=-1)

    rows, H, N = b.shape
    return System(advance, observe, (rows, H, N + 1), lambda state: state[:, None], lambda x: x[:, 0])


def linoss(options: dict[str, Any], params: dict[str, Array]) -> System:
    """(z, x) of real and imaginary parts, by the equations of the scheme; the implicit one solved for both."""
    A, dt = np.maximum(params["A_diag"], 0), 1 / (1 + np.exp(-params["steps"]))
    B, C, P = _complex(params, "B"), _complex(params, "C"), len(A)

    def advance(x: Array, u: Array, rate: Any) -> Array:
        z, y = x[..., 0], x[..., 1]
        z, y = z[:, :P] + 1j * z[:, P:], y[:, :P] + 1j * y[:, P:]
        F = u @ B.T
        if options["scheme"] == "im":
            one = np.ones_like(A)
            left = np.stack([np.stack([one, dt * A], -1), np.stack([-dt, one], -1)], -2)  # [1, dt A; -dt, 1]
            found = np.linalg.inv(left) @ np.stack([z + dt * F, y], axis=-1)[..., None]
            z, y = found[..., 0, 0], found[..., 1, 0]
        else:
            z = z + dt * (-A * y + F)
            y = y + dt * z
        return np.stack([np.concatenate([q.real, q.imag], axis=-1) for q in (z, y)], axis=-1)

    def observe(x: Array) -> Array:
        y = x[..., 1]
        return np.stack([((y[:, :P] + 1j * y[:, P:]) @ row.T).real for row in C], axis=1)

    return System(advance, observe, (2 * P, 2))


SYSTEMS = {"S4": s4, "SSM": ssm, "LMU": lmu, "DSS": dss, "S5": s5, "LRU": lru, "RTF": rtf, "LinOSS": linoss}
WITHOUT: dict[str, Any] = {"skip": False, "channels": 1}  # what a layer has no option for
JOINT = ("S5", "LRU", "LinOSS")  # the second direction is a second run
