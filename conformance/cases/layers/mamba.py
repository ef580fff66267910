"""Mamba: h, g = W_in u; h = silu(conv(h)); r, B, C = W_x h; x = exp(dt A) x + dt B h; y = W_out (C x + D h) silu(g)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import Mamba

from ...dispatched import GATES, SCAN
from ...truth.gated import normed, selective_step, silu, softplus, tap
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..instance import STEPS
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    inner, N, K = options["expand"] * options["d_model"], options["d_state"], options["d_conv"]
    rank, A = params["dt_proj_weight"].shape[1], -np.exp(params["A_log"])

    def advance(u: Array, state: States, scale: Any) -> tuple[Array, States]:
        window, x = state
        h, gate = np.split(linear(params, "in_proj_", u), [inner])
        h, window = tap(window, h, params["conv_weight"], params.get("conv_bias", 0.0))
        h = silu(h)
        parts = np.split(params["x_proj_weight"] @ h, [rank, rank + N])
        if options["norm_epsilon"] is not None:
            weights = (params.get(f"{part}_norm_weight", 1.0) for part in ("dt", "B", "C"))
            parts = [normed(part, options["norm_epsilon"]) * w for part, w in zip(parts, weights, strict=True)]
        r, B, C = parts
        dt = scale * softplus(params["dt_proj_weight"] @ r + params["dt_proj_bias"])
        y, x = selective_step(x, h, dt, A, B, C, options["discretization"])
        return linear(params, "out_proj_", (y + params["D"] * h) * silu(gate)), (window, x)

    return Steps(advance, ((inner, K - 1), (inner, N)), options["d_model"])


CASES = GatedCases(
    layer=Mamba,
    truth=steps,
    instances={
        "Mamba": {"d_state": 3, **STEPS},
        "Mamba_zoh_norms_biases": {
            "d_state": 4,
            "d_conv": 2,
            "expand": 1,
            "dt_rank": 3,
            "bias": True,
            "norm_epsilon": 1e-3,
            "discretization": "zoh",
            **STEPS,
        },
        "Mamba_norm_weights": {"d_state": 3, "dt_rank": 2, "norm_epsilon": 1e-2, "norm_weights": True, **STEPS},
        "Mamba_one_tap": {"d_state": 2, "d_conv": 1, "expand": 3, "conv_bias": False, **STEPS},
    },
    parameters="in_proj_weight conv_weight conv_bias x_proj_weight dt_proj_weight dt_proj_bias A_log D out_proj_weight",
    no_weight_decay="dt_proj_bias A_log D",
    rests_on=("selective_scan", *SCAN, *GATES),
    small={"scan": ({"d_model": 2, "d_state": 3, "d_conv": 3, **STEPS}, "auto")},
    modules={"Mamba": {"d_model": 4, "d_state": 3, **STEPS}},
    refusals=(
        *(({"dt_rank": rank}, "dt_rank = .*whole number of at least 1") for rank in (0, -1, 1.5, "4")),
        ({"discretization": "bilinear"}, "unknown discretization 'bilinear'. Known: 'mamba', 'zoh'"),
        ({"discretization": None}, "unknown discretization None"),
        ({"discretization": ["zoh"]}, r"unknown discretization \('zoh',\)"),
    ),
)
