"""LMU: theta x' = A x + B u with A[n, k] = (2n + 1) (-1 if n < k else (-1)^(n-k+1)) and B[n] = (2n + 1) (-1)^n."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import LMU

from ...dispatched import MIXING, MODES
from ...truth.layers import Options, Params, System, of_matrices
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    H, n = options["d_model"], np.arange(options["d_state"])
    signs = np.where(n[:, None] < n, -1.0, (-1.0) ** (n[:, None] - n + 1))
    A, B = (2 * n[:, None] + 1) * signs, (2 * n + 1) * (-1.0) ** n
    A, B = np.broadcast_to(A, (H, *A.shape)), np.broadcast_to(B, (H, *B.shape))
    return of_matrices(A, B, params["C"], np.full(H, 1 / options["theta"]), options["discretization"])


CASES = TimeInvariantCases(
    layer=LMU,
    truth=system,
    instances={
        "LMU": {"d_state": 5, "theta": 20},
        "LMU_bilinear_channels": {"d_state": 3, "theta": 7.5, "discretization": "bilinear", "channels": 2},
    },
    parameters="C",
    no_weight_decay="",
    rests_on=(*MODES, *MIXING),
    extensions=("fft", "linalg"),
    small={"chunk": ({"d_model": 2, "d_state": 4, "theta": 8}, "chunk")},
    modules={
        "LMU_bidirectional": {"d_model": 4, "d_state": 5, "theta": 10, "bidirectional": True},
        "LMU": {"d_model": 4, "d_state": 5, "theta": 10},
    },
    refusals=tuple(
        ({"theta": theta}, "theta = .* must be a positive number of steps")
        for theta in (0, -1.0, np.nan, np.inf, "a", None)
    ),
)
