"""H3: the shift's state moves on, its output times v drives a diagonal system, whose output meets q."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import H3

from ...dispatched import LONG, SCAN
from ...truth import discretize_poles
from ...truth.layers import Array, Options, Params, States, Steps, complex_of, linear
from ..instance import STEPS
from ..layer import MODES, GatedCases


def steps(options: Options, params: Params) -> Steps:
    H, N, D = options["d_model"], options["d_state"], options["head_dim"]
    poles, dt = -np.exp(params["log_A_re"]) + 1j * params["A_im"], np.exp(params["log_dt"])[:, None]
    Ab, gain = discretize_poles(poles, dt, options["discretization"])
    B, C = complex_of(params, "B"), complex_of(params, "C")
    shift_B, shift_C, shift_D = (params[f"ssm_k_{n}"] for n in "BCD")

    def advance(u: Array, state: States, scale: Any) -> tuple[Array, States]:
        keys, x = state
        q, k, v = (linear(params, f"{n}_proj_", u) for n in "qkv")
        keys = np.concatenate([keys, k[:, None]], axis=1)[:, 1:]  # the last N - 1 and this one
        shifted = np.zeros((H, N))  # the shift's state: the recurrence over all keys that it remembers
        for key in keys.T:
            shifted = np.concatenate([np.zeros((H, 1)), shifted[:, :-1]], axis=1) + shift_B * key[:, None]
        k = np.sum(shift_C * shifted, axis=1) + shift_D * k
        y = np.zeros((D, H // D))
        after = np.zeros(x.shape, np.complex128)
        for h in range(H // D):
            for i in range(D):
                for j in range(D):
                    z = k[h * D + i] * v[h * D + j]
                    after[i, j, h] = Ab[h] * x[i, j, h] + gain[h] * B[h] * z
                    y[j, h] += (2 * np.sum(C[h] * after[i, j, h]).real + params["D"][h] * z) * q[h * D + i]
        return linear(params, "output_", y.reshape(-1)), (keys, after)

    def enter(state: States) -> States:
        keys, x = state
        return np.concatenate([np.zeros((H, 1)), keys], axis=1), x[..., : N // 2] + 1j * x[..., N // 2 :]

    def leave(state: States) -> States:
        keys, x = state
        return keys[:, 1:], np.concatenate([x.real, x.imag], axis=-1)

    return Steps(advance, ((H, N), (D, D, H // D, N // 2)), H, enter, leave)


CASES = GatedCases(
    layer=H3,
    truth=steps,
    instances={
        "H3": {"d_state": 6, **STEPS},
        "H3_heads_zoh": {"d_state": 4, "head_dim": 2, "discretization": "zoh", "init": "inv", **STEPS},
    },
    ones=("H3_heads_zoh",),
    parameters=(
        "q_proj_weight q_proj_bias k_proj_weight k_proj_bias v_proj_weight v_proj_bias ssm_k_B ssm_k_C ssm_k_D log_dt "
        "log_A_re A_im B_re B_im C_re C_im D output_weight output_bias"
    ),
    no_weight_decay="ssm_k_B log_dt log_A_re A_im B_re B_im",
    rests_on=(*LONG, *SCAN, "affine", "causal_conv1d"),
    extensions=("fft",),
    small={mode: ({"d_model": 2, "d_state": 2, "head_dim": 2, **STEPS}, mode) for mode in MODES[:3]},
    modules={"H3": {"d_model": 4, "d_state": 4, "head_dim": 2}},
    refusals=(
        ({"d_state": 7}, "d_state = 7 is odd.*Use d_state=8"),
        ({"head_dim": 3}, "head_dim = 3 must divide d_model = 4"),
        ({"init": "legt"}, "unknown init 'legt'. Known: 'legs', 'lin'"),
        ({"discretization": "gbt"}, "unknown discretization 'gbt'"),
    ),
    timed=False,
)
