"""DSS: x_k = e^(dt A) x_{k-1} + 1 / (A s) u_k, y = Re(W x), s the sum of e^(dt A j) over j < length, term by term."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import DSS

from ...dispatched import LONG, MIXING, SCAN
from ...truth.layers import Array, Options, Params, System, complex_of, copies
from ..instance import STEPS
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    A, dt = copies(complex_of(params, "A"), options), np.exp(params["log_dt"])[:, None]
    last = options["length"] - 1
    # Relative to its largest term, so that the epsilon means the same for decaying and growing modes.
    largest = np.where(A.real > 0, last * dt * A, 0)
    s = np.exp((dt * A)[..., None] * np.arange(last + 1) - largest[..., None]).sum(-1)
    inverse = s.conj() / (np.abs(s) ** 2 + options["epsilon"]) * np.exp(-largest)
    W = complex_of(params, "W")

    def advance(x: Array, u: Array, scale: float | Array) -> Array:
        scale = scale[:, None] if np.ndim(scale) else scale
        return np.exp(scale * dt * A) * x + scale * inverse / A * u[:, None]

    return System(advance, lambda x: np.einsum("rhn,hn->rh", W, x).real, A.shape)


def growing(params: Params) -> None:
    params["A_re"][..., 0] = 0.02


CASES = TimeInvariantCases(
    layer=DSS,
    truth=system,
    instances={
        "DSS": {"d_state": 6, "length": 40, **STEPS},
        "DSS_copies_channels": {"d_state": 6, "length": 25, "n_ssm": 2, "channels": 2, "epsilon": 1e-2, **STEPS},
        "DSS_growing": {"d_state": 6, "length": 90, **STEPS},
    },
    edits={"DSS_growing": growing},
    ones=("DSS_growing",),
    scaled=("DSS_growing",),
    least={"length": 6},
    parameters="log_dt A_re A_im W_re W_im",
    no_weight_decay="log_dt A_re A_im",
    rests_on=(*LONG, *SCAN, *MIXING),
    extensions=("fft",),
    small={"conv": ({"d_model": 2, "length": 9, "d_state": 4, **STEPS}, "conv")},
    modules={"DSS": {"d_model": 4, "length": 20, "d_state": 6, **STEPS}},
    refusals=(
        ({"d_state": 7}, r"d_state = 7 is odd, .* Use d_state=8\."),
        *(({"epsilon": epsilon}, r"epsilon = .* must lie in \[0, 1\)") for epsilon in (-1e-7, 1, np.nan, "a", None)),
    ),
)
