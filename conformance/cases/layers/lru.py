"""LRU: x_k = lambda x_{k-1} + gamma B u_k, lambda = exp(-exp(nu) + i exp(theta)), y = Re(C x)."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import LRU

from ...dispatched import MIXING, SCAN
from ...truth.layers import Options, Params, System, complex_of
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    poles = np.exp(-np.exp(params["nu_log"]) + 1j * np.exp(params["theta_log"]))
    B = np.exp(params["gamma_log"])[:, None] * complex_of(params, "B")
    C = complex_of(params, "C")
    return System(lambda x, u, scale: poles * x + B @ u, lambda x: np.einsum("rhn,n->rh", C, x).real, poles.shape)


CASES = TimeInvariantCases(
    layer=LRU,
    truth=system,
    joint=True,
    timed=False,
    instances={
        "LRU": {"d_state": 8},
        "LRU_ring_bare": {
            "d_state": 6,
            "r_min": 0.7,
            "r_max": 0.95,
            "max_phase": 0.6,
            "output": None,
            "activation": None,
            "skip": False,
        },
        "LRU_gate_alone": {"d_state": 4, "output": "half_glu2"},
    },
    parameters="nu_log theta_log gamma_log B_re B_im C_re C_im",
    no_weight_decay="nu_log theta_log gamma_log",
    rests_on=(*SCAN, *MIXING),
    extensions=("fft",),
    small={"scan": ({"d_model": 2, "d_state": 4}, "scan")},
    modules={"LRU": {"d_model": 4, "d_state": 6}},
    refusals=(
        ({"d_state": 7}, "d_state = 7 is odd"),
        ({"r_min": 0.9, "r_max": 0.5}, r"0 <= r_min < r_max <= 1 \(r_min: 0\.9, r_max: 0\.5\)"),
        ({"r_min": -0.1}, "r_min"),
        ({"r_max": 1.1}, "r_max"),
        ({"r_min": 0.5, "r_max": 0.5}, "r_min < r_max"),
        ({"r_max": np.nan}, "r_max"),
        ({"r_min": "a"}, "r_min"),
        ({"max_phase": 0}, r"max_phase = 0 must lie in \(0, 2 pi\]"),
        ({"max_phase": 7.0}, r"max_phase = 7\.0"),
        ({"max_phase": "a"}, "max_phase = 'a'"),
    ),
)
