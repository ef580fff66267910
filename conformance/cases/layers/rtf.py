"""RTF: w_k = u_k - sum_j a_j w_{k-j}, y_k = h_0 u_k + sum_j b_j w_{k-j}."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import RTF

from ...dispatched import MIXING, MODES
from ...truth.layers import Array, Options, Params, System
from ..layer import TimeInvariantCases


def system(options: Options, params: Params) -> System:
    """States (w_k, ..., w_{k-N}), and w_{k-1} first after a step: u_k is w_k + sum_j a_j w_{k-j} again."""
    a, b, direct = params["a"], params["b"], params["h_0"]
    if options["constraint"] is not None:
        a = a / (np.abs(a).sum(-1) + np.abs(params["slack"]) + 1e-6)[..., None]
    a = np.repeat(a, options["d_model"] // a.shape[1], axis=1)  # each serves consecutive channels

    def advance(x: Array, u: Array, scale: float) -> Array:
        w = u - np.sum(a * x[..., :-1], axis=-1)
        return np.concatenate([w[..., None], x[..., :-1]], axis=-1)

    def observe(x: Array) -> Array:
        u = x[..., 0] + np.sum(a * x[..., 1:], axis=-1)
        return direct * u + np.sum(b * x[..., 1:], axis=-1)

    rows, H, N = b.shape
    return System(advance, observe, (rows, H, N + 1), lambda state: state[None], lambda x: x[0])


CASES = TimeInvariantCases(
    layer=RTF,
    truth=system,
    timed=False,
    instances={
        "RTF": {"d_state": 4},
        "RTF_montel_copies": {"d_state": 3, "init": "montel", "constraint": "montel", "n_ssm": 2},
    },
    ones=("RTF_montel_copies",),
    parameters="a b h_0",
    no_weight_decay="a",
    rests_on=(*MODES, "ratio", *MIXING),
    extensions=("fft",),
    small={"conv": ({"d_model": 2, "d_state": 3, "constraint": "montel", "n_ssm": 1}, "conv")},
    modules={"RTF": {"d_model": 4, "d_state": 3, "init": "montel", "constraint": "montel"}},
)
