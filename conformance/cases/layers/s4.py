"""S4: A = diag([p, p*]) - sum_r [P_r, P_r*] [P_r, P_r*]^H in every channel."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import S4

from ...dispatched import MIXING, MODES
from ...truth.layers import Options, Params, System, complex_of, copies, of_matrices, with_conjugates
from ..instance import STEPS
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    poles = copies(-np.exp(params["log_A_re"]) + 1j * params["A_im"], options)
    P = with_conjugates(copies(complex_of(params, "P"), options))
    B, C = with_conjugates(copies(complex_of(params, "B"), options)), with_conjugates(complex_of(params, "C"))
    full, n = with_conjugates(poles), poles.shape[-1]
    A = full[..., None] * np.eye(2 * n) - np.swapaxes(P, -1, -2) @ P.conj()
    dt, method = np.exp(params["log_dt"]), options["discretization"]
    return of_matrices(A, B, C, dt, method, with_conjugates, lambda x: x[..., :n])


CASES = TimeInvariantCases(
    layer=S4,
    truth=system,
    instances={
        "S4": {"d_state": 6, **STEPS},
        "S4_legt_copies_channels": {"d_state": 6, "init": "legt", "n_ssm": 2, "channels": 3, **STEPS},
        "S4_zoh_rank_2": {"d_state": 4, "rank": 2, "discretization": "zoh", "n_ssm": 1, "activation": "tanh", **STEPS},
        "S4_normal": {"d_state": 4, "init": "legsd", "discretization": "backward_euler", "output": None, **STEPS},
    },
    both=("S4", "S4_legt_copies_channels", "S4_zoh_rank_2"),
    parameters="log_dt log_A_re A_im P_re P_im B_re B_im C_re C_im",
    no_weight_decay="log_dt log_A_re A_im P_re P_im B_re B_im",
    rests_on=(*MODES, *MIXING),
    extensions=("fft", "linalg"),
    small={"chunk": ({"d_model": 2, "d_state": 4, "init": "legt", "channels": 2, "n_ssm": 1, **STEPS}, "chunk")},
    modules={
        "S4": {"d_model": 4, "d_state": 6, **STEPS},
        "S4_legt_copies_channels": {
            "d_model": 4,
            "d_state": 6,
            "init": "legt",
            "n_ssm": 2,
            "channels": 2,
            "discretization": "zoh",
            **STEPS,
        },
    },
    refusals=(
        ({"d_state": 7}, r"d_state = 7 is odd, .* Use d_state=8\."),
        ({"init": "lin"}, "unknown init 'lin'. Known: 'legs', 'legsd', 'legt'"),
        ({"init": ["legs"]}, r"unknown init \('legs',\)"),
        ({"rank": 0}, "rank = 0, but init 'legs' needs rank 1"),
        ({"rank": 1.0}, r"rank = 1\.0"),
        ({"init": "legt", "rank": 1}, "rank = 1, but init 'legt' needs rank 2"),
        ({"min_decay": 0}, "min_decay = 0 must be positive: log_A_re is its logarithm"),
        ({"min_decay": "a"}, "min_decay = 'a'"),
    ),
)
