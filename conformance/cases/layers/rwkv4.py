"""RWKV-4: k, v, r of u and the input before it; means of values with weights e^k that decay; y = W_o (r mean)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import RWKV4

from ...dispatched import SCAN
from ...truth.layers import Array, Options, Params, States, Steps
from ...truth.vectors import rwkv4_step, sigmoid
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    H, A = options["d_model"], options["width"] or options["d_model"]

    def advance(u: Array, state: States, scale: Any) -> tuple[Array, States]:
        def mixed(name: str) -> Array:
            share = params[f"time_mix_{name}"]
            return params[f"{name}_weight"] @ (share * u + (1 - share) * state[0])

        w, bonus = -np.exp(params["time_decay"]), params["time_first"]
        y, sums = rwkv4_step(state[1:], mixed("key"), mixed("value"), w, bonus)
        return params["output_weight"] @ (sigmoid(mixed("receptance")) * y), (u, *sums)

    return Steps(advance, ((H,), (A,), (A,), (A,)), H)


CASES = GatedCases(
    layer=RWKV4,
    truth=steps,
    instances={
        "RWKV4": {"chunk": 4},
        "RWKV4_wide_late": {"width": 6, "layer_idx": 2, "num_layers": 3, "chunk": 7},
    },
    parameters=(
        "time_decay time_first time_mix_key time_mix_value time_mix_receptance key_weight value_weight "
        "receptance_weight output_weight"
    ),
    no_weight_decay="time_decay time_first",
    rests_on=(*SCAN, "sigmoid", "affine"),
    small={"chunk": ({"d_model": 2, "width": 3, "chunk": 4}, "auto")},
    modules={"RWKV4": {"d_model": 4, "width": 6, "chunk": 16}},
    refusals=(
        *(({"layer_idx": place}, r"layer_idx = .* must lie in \[0, num_layers = 1\)") for place in (-1, 1, 0.0)),
        *(({name: 0}, f"{name} = 0 must be a whole number of at least 1") for name in ("width", "num_layers")),
    ),
    timed=False,
)
