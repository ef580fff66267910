"""LinOSS: z' = -A y + B u, y' = z of free oscillators, by the equations of the scheme; the implicit one solved."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import LinOSS

from ...dispatched import LONG, MIXING, SCAN
from ...truth.layers import Array, Options, Params, System, complex_of
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    """(z, y) of real and imaginary parts."""
    A, dt = np.maximum(params["A_diag"], 0), 1 / (1 + np.exp(-params["steps"]))
    B, C, P = complex_of(params, "B"), complex_of(params, "C"), len(A)

    def advance(x: Array, u: Array, scale: float) -> Array:
        z, y = (x[:P, i] + 1j * x[P:, i] for i in (0, 1))
        F = B @ u
        if options["scheme"] == "im":
            one = np.ones_like(A)
            left = np.stack([np.stack([one, dt * A], -1), np.stack([-dt, one], -1)], -2)  # [1, dt A; -dt, 1]
            found = np.linalg.inv(left) @ np.stack([z + dt * F, y], axis=-1)[..., None]
            z, y = found[..., 0, 0], found[..., 1, 0]
        else:
            z = z + dt * (-A * y + F)
            y = y + dt * z
        return np.stack([np.concatenate([q.real, q.imag]) for q in (z, y)], axis=-1)

    def observe(x: Array) -> Array:
        return np.einsum("rhp,p->rh", C, x[:P, 1] + 1j * x[P:, 1]).real

    return System(advance, observe, (2 * P, 2))


CASES = TimeInvariantCases(
    layer=LinOSS,
    truth=system,
    joint=True,
    timed=False,
    instances={"LinOSS": {"d_state": 3}, "LinOSS_im": {"d_state": 3, "scheme": "im", "output": "linear"}},
    ones=("LinOSS_im",),
    parameters="A_diag steps B_re B_im C_re C_im",
    no_weight_decay="A_diag steps",
    rests_on=(*LONG, *SCAN, *MIXING),
    extensions=("fft",),
    small={
        "im": ({"d_model": 2, "d_state": 3, "scheme": "im"}, "chunk"),
        "imex": ({"d_model": 2, "d_state": 3}, "scan"),
    },
    modules={
        "LinOSS": {"d_model": 4, "d_state": 3, "scheme": "im"},
        "LinOSS_bidirectional": {"d_model": 4, "d_state": 3, "bidirectional": True, "output": "half_glu2"},
    },
    refusals=(
        ({"scheme": "explicit"}, "unknown scheme 'explicit'. Known: 'im', 'imex'"),
        ({"scheme": None}, "unknown scheme None"),
    ),
)
