"""HGRN: a = b + (1 - b) sigmoid(W_f u); h = a h + (1 - a) silu(W_i u); y = W_o (n(h) silu(W_g u))."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import HGRN

from ...dispatched import GATES
from ...truth.gated import normed, silu
from ...truth.layers import Array, Options, Params, States, Steps
from ...truth.vectors import sigmoid
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    bound = options["lower_bound"]

    def advance(u: Array, state: States, scale: Any) -> tuple[Array, States]:
        i, f, g = (params[f"{name}_proj_weight"] @ u for name in "ifg")
        a = bound + (1 - bound) * sigmoid(f)
        h = a * state[0] + (1 - a) * silu(i)
        y = params["g_norm_weight"] * normed(h, options["epsilon"]) * silu(g)
        return params["o_proj_weight"] @ y, (h,)

    return Steps(advance, ((options["expand"] * options["d_model"],),), options["d_model"])


CASES = GatedCases(
    layer=HGRN,
    truth=steps,
    instances={"HGRN": {}, "HGRN_bounded": {"expand": 2, "lower_bound": 0.6, "epsilon": 1e-2}},
    parameters="i_proj_weight f_proj_weight g_proj_weight g_norm_weight o_proj_weight",
    no_weight_decay="",
    rests_on=("linear_scan", *GATES),
    small={"scan": ({"d_model": 2, "expand": 2, "lower_bound": 0.2}, "auto")},
    modules={"HGRN": {"d_model": 4, "expand": 2, "lower_bound": 0.25}},
    refusals=tuple(
        ({"lower_bound": bound}, r"lower_bound = .* must lie in \[0, 1\)") for bound in (-0.1, 1, np.nan, "a", None)
    ),
    timed=False,
)
