"""D-LinOSS: z' = -A x - G z + B u, x' = z of damped oscillators, the damping implicit, as the scheme says."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import DLinOSS

from ...dispatched import LONG, MIXING, SCAN
from ...truth.layers import Array, Options, Params, System, complex_of
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    """(z, x) of real and imaginary parts."""
    dt, G = 1 / (1 + np.exp(-params["steps"])), np.maximum(params["G_diag"], 0)
    center, reach = 2 + dt * G, 2 * np.sqrt(1 + dt * G)
    A = np.clip(params["A_diag"], (center - reach) / dt**2, (center + reach) / dt**2)
    B, C, P = complex_of(params, "B"), complex_of(params, "C"), len(A)

    def advance(state: Array, u: Array, scale: float) -> Array:
        z, x = (state[:P, i] + 1j * state[P:, i] for i in (0, 1))
        z = (z + dt * (-A * x + B @ u)) / (1 + dt * G)  # the equation of z_k, solved for it
        x = x + dt * z
        return np.stack([np.concatenate([q.real, q.imag]) for q in (z, x)], axis=-1)

    def observe(state: Array) -> Array:
        return np.einsum("rhp,p->rh", C, state[:P, 1] + 1j * state[P:, 1]).real

    return System(advance, observe, (2 * P, 2))


def beyond(params: Params) -> None:
    """A below and above its bounds, and a negative G."""
    params["A_diag"][:2] = -1.0, 100.0
    params["G_diag"][-1] = -0.5


CASES = TimeInvariantCases(
    layer=DLinOSS,
    truth=system,
    joint=True,
    timed=False,
    instances={
        "DLinOSS": {"d_state": 3, "r_max": 0.95, "theta_max": 2.0},
        "DLinOSS_beyond": {"d_state": 3, "output": "linear", "theta_max": 0.5, "r_min": 0.5, "dt_std": 0.0},
    },
    edits={"DLinOSS_beyond": beyond},
    parameters="A_diag G_diag steps B_re B_im C_re C_im",
    no_weight_decay="A_diag G_diag steps",
    rests_on=(*LONG, *SCAN, *MIXING),
    extensions=("fft",),
    small={"chunk": ({"d_model": 2, "d_state": 3}, "chunk")},
    modules={"DLinOSS": {"d_model": 4, "d_state": 3}},
    refusals=(
        ({"r_min": 0.0}, "needs 0 < r_min <= r_max <= 1"),
        ({"r_max": 1.1}, "r_max: 1.1"),
        ({"theta_max": 4}, r"theta_max = 4 must lie in \[0, pi\]"),
        ({"dt_std": -1}, r"dt_std = -1 must lie in \[0, 4\]"),
    ),
)
