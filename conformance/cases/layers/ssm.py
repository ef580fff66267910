"""SSM: x' = A x + B u with full matrices in every channel."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import SSM

from ...dispatched import MIXING, MODES
from ...truth.layers import Options, Params, System, copies, of_matrices
from ..instance import STEPS
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    A, B = (copies(params[name], options) for name in ("A", "B"))
    return of_matrices(A, B, params["C"], np.exp(params["log_dt"]), options["discretization"])


CASES = TimeInvariantCases(
    layer=SSM,
    truth=system,
    instances={
        "SSM": {"d_state": 5, **STEPS},
        "SSM_fout_zoh_copies_channels": {
            "d_state": 4,
            "init": "fout",
            "discretization": "zoh",
            "n_ssm": 2,
            "channels": 2,
            **STEPS,
        },
    },
    parameters="log_dt A B C",
    no_weight_decay="log_dt A B",
    rests_on=(*MODES, *MIXING),
    extensions=("fft", "linalg"),
    small={"conv": ({"d_model": 2, "d_state": 3, **STEPS}, "conv")},
    modules={"SSM": {"d_model": 4, "d_state": 5, **STEPS}},
    refusals=(
        ({"init": "lin"}, "unknown init 'lin'. Known: 'legs'"),
        ({"init": None}, "unknown init None"),
        ({"d_state": 5, "init": "fout"}, "d_state = 5 is odd, but 'fout' has its states in pairs"),
    ),
)
