"""S5: one system of several inputs and outputs; without conj_sym the output is Re(C x) of all modes."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import S5

from ...dispatched import MIXING, SCAN
from ...truth import discretize_poles
from ...truth.layers import Array, Options, Params, System, complex_of
from ..instance import STEPS
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    real = params["A_re"]
    if options["clip_eigs"]:
        real = np.minimum(real, -options["max_real"])
    A, B, C = real + 1j * params["A_im"], complex_of(params, "B"), complex_of(params, "C")
    factor = 2 if options["conj_sym"] else 1

    def advance(x: Array, u: Array, scale: float) -> Array:
        Ab, gain = discretize_poles(A, scale * np.exp(params["log_dt"]), options["discretization"])
        driven = gain * (B @ u)
        return (Ab + driven if options["liquid"] else Ab) * x + driven

    return System(advance, lambda x: factor * np.einsum("rhn,n->rh", C, x).real, A.shape)


def positive(params: Params) -> None:
    params["A_re"][0] = 0.3


ALL_MODES = {"conj_sym": False, **STEPS}
CASES = TimeInvariantCases(
    layer=S5,
    truth=system,
    joint=True,
    instances={
        "S5": {"d_state": 6, **STEPS},
        "S5_all_modes_blocks": {
            "d_state": 8,
            "blocks": 2,
            "output": "half_glu",
            "activation": "gelu_tanh",
            **ALL_MODES,
        },
        "S5_clipped_bilinear": {
            "d_state": 6,
            "clip_eigs": True,
            "max_real": 0.05,
            "discretization": "bilinear",
            **STEPS,
        },
        # The input moves the gate: only the recurrence.
        "S5_liquid": {"d_state": 6, "liquid": True, **STEPS},
        "S5_liquid_all_modes": {"d_state": 6, "liquid": True, **ALL_MODES},
    },
    edits={"S5_clipped_bilinear": positive},
    only_modes=dict.fromkeys(("S5_liquid", "S5_liquid_all_modes"), ("scan", "auto")),
    scaled=("S5", "S5_all_modes_blocks", "S5_clipped_bilinear", "S5_liquid", "S5_liquid_all_modes"),
    both=("S5", "S5_all_modes_blocks", "S5_clipped_bilinear"),
    parameters="log_dt A_re A_im B_re B_im C_re C_im",
    no_weight_decay="log_dt A_re A_im B_re B_im",
    rests_on=("exp", *SCAN, *MIXING),
    extensions=("fft",),
    small={"scan": ({"d_model": 2, "d_state": 4, "output": "half_glu", **STEPS}, "scan")},
    modules={
        "S5": {"d_model": 4, "d_state": 6, "output": "half_glu", **STEPS},
        "S5_all_modes_bidirectional": {
            "d_model": 4,
            "d_state": 6,
            "clip_eigs": True,
            "bidirectional": True,
            **ALL_MODES,
        },
        "S5_liquid": {"d_model": 4, "d_state": 6, "liquid": True, **STEPS},
    },
    refusals=(
        ({"d_state": 7}, "d_state = 7 is odd"),
        ({"d_state": 8, "blocks": 3}, "blocks = 3 must divide d_state / 2 = 4"),
        *(
            ({"max_real": max_real}, "max_real = .* must be at least 0")
            for max_real in (-1.0, np.nan, np.inf, "a", None)
        ),
    ),
)
