"""Mamba-2: z, v, r = W_in u; x, B, C = silu(conv(v)); S = exp(dt A) S + dt x B^T; y = W_out n((S C + D x) silu(z))."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import Mamba2

from ...dispatched import GATES
from ...truth.gated import normed, of_heads, silu, softplus, ssd_step, tap
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..instance import STEPS
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    inner, P, N = options["expand"] * options["d_model"], options["head_dim"], options["d_state"]
    heads, G, K = inner // P, options["n_groups"], options["d_conv"]
    convolved, A = inner + 2 * G * N, -np.exp(params["A_log"])

    def advance(u: Array, state: States, scale: Any) -> tuple[Array, States]:
        window, S = state
        z, v, r = np.split(linear(params, "in_proj_", u), [inner, inner + convolved])
        v, window = tap(window, v, params["conv_weight"], params.get("conv_bias", 0.0))
        x, B, C = np.split(silu(v), [inner, inner + G * N])
        x = x.reshape(heads, P)
        B, C = (of_heads(rows.reshape(G, N), heads) for rows in (B, C))
        dt = scale * np.clip(softplus(r + params["dt_bias"]), *options["dt_limit"])
        y, S = ssd_step(S, x, dt, A, B, C)
        y = (y + params["D"][:, None] * x).reshape(-1) * silu(z)
        y = normed(y.reshape(G, -1), options["epsilon"]).reshape(-1)
        return linear(params, "out_proj_", params["norm_weight"] * y), (window, S)

    return Steps(advance, ((convolved, K - 1), (heads, P, N)), options["d_model"])


CASES = GatedCases(
    layer=Mamba2,
    truth=steps,
    instances={
        "Mamba2": {"d_state": 3, "head_dim": 4, **STEPS},
        "Mamba2_groups_biases_limits": {
            "d_state": 5,
            "head_dim": 2,
            "n_groups": 2,
            "d_conv": 3,
            "bias": True,
            "dt_limit": (0.1, 0.6),
            "epsilon": 1e-2,
            "chunk": 7,
            **STEPS,
        },
        "Mamba2_one_tap": {
            "d_state": 2,
            "head_dim": 1,
            "n_groups": 4,
            "d_conv": 1,
            "conv_bias": False,
            "expand": 1,
            "A_min": 0.1,
            "A_max": 0.5,
            **STEPS,
        },
    },
    ones=("Mamba2_groups_biases_limits",),
    least={"head_dim": 2},
    parameters="in_proj_weight conv_weight conv_bias dt_bias A_log D norm_weight out_proj_weight",
    no_weight_decay="dt_bias A_log D",
    rests_on=("fold", "ssd", *GATES),
    small={
        "chunk": ({"d_model": 2, "d_conv": 2, "n_groups": 2, "chunk": 4, "d_state": 4, "head_dim": 2, **STEPS}, "auto")
    },
    modules={"Mamba2": {"d_model": 4, "d_state": 3, "head_dim": 2, "n_groups": 2, "bias": True, "chunk": 16, **STEPS}},
    refusals=(
        *(
            (wrong, "needs 0 < A_min <= A_max")
            for wrong in (
                {"A_min": 0},
                {"A_min": 17.0},
                {"A_max": 0.5},
                {"A_max": np.inf},
                {"A_min": np.nan},
                {"A_max": "a"},
                {"A_min": None},
            )
        ),
        *(
            ({"dt_limit": limit}, "dt_limit = .* two numbers, 0 <= low <= high")
            for limit in ((1.0, 0.5), (-1.0, 1.0), (0.0,), (0.0, 1.0, 2.0), (0.0, np.nan), ("a", "b"), None, 3, "01")
        ),
    ),
)
