"""RG-LRU: x = conv(W_x u); h = a h + sqrt(1 - a^2) sigmoid(i) x, and sigmoid(i) x at first; y = W_out h gelu(W_y u)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_core.layers import RGLRU

from ...truth.gated import tap
from ...truth.layers import ACTIVATIONS, Array, Options, Params, States, Steps
from ...truth.vectors import rg_lru_step
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    W, heads = options["lru_width"] or options["d_model"], options["heads"]

    def mapped(name: str, x: Array) -> Array:
        return params[f"{name}_weight"] @ x + params[f"{name}_bias"]

    def gate(name: str, x: Array) -> Array:
        weight, bias = params[f"rg_lru_{name}_gate_weight"], params[f"rg_lru_{name}_gate_bias"]
        return (np.einsum("hi,hij->hj", x.reshape(heads, -1), weight) + bias).reshape(-1)

    def advance(u: Array, state: States, scale: Any) -> tuple[Array, States]:
        window, h, begun = state
        x, window = tap(window, mapped("linear_x", u), params["conv_1d_weight"], params["conv_1d_bias"])
        h, begun = rg_lru_step(h, begun, x, gate("input", x), gate("recurrent", x), params["rg_lru_recurrent_param"])
        y = h * ACTIVATIONS[options["activation"]](mapped("linear_y", u))
        return mapped("linear_out", y), (window, h, begun)

    return Steps(advance, ((W, options["d_conv"] - 1), (W,), ()), options["d_model"])


CASES = GatedCases(
    layer=RGLRU,
    truth=steps,
    instances={
        "RGLRU": {"heads": 2},
        "RGLRU_wide_silu": {"lru_width": 6, "heads": 3, "d_conv": 2, "activation": "silu", "a_min": 0.3, "a_max": 0.6},
        "RGLRU_one_tap": {"d_conv": 1, "activation": "gelu"},
    },
    parameters=(
        "linear_x_weight linear_x_bias linear_y_weight linear_y_bias linear_out_weight linear_out_bias conv_1d_weight "
        "conv_1d_bias rg_lru_recurrent_param rg_lru_input_gate_weight rg_lru_input_gate_bias "
        "rg_lru_recurrent_gate_weight rg_lru_recurrent_gate_bias"
    ),
    no_weight_decay="rg_lru_recurrent_param",
    rests_on=("driven", "linear_scan", "sigmoid", "softplus", "gelu", "affine"),
    small={"scan": ({"d_model": 2, "lru_width": 4, "heads": 2, "d_conv": 2}, "auto")},
    modules={"RGLRU": {"d_model": 4, "lru_width": 6, "heads": 2}},
    refusals=(
        ({"heads": 3}, "heads = 3 must divide lru_width = 4"),
        *(({"lru_width": width}, "lru_width = .*whole number of at least 1") for width in (0, -1, 1.5, "4")),
        ({"activation": "relu"}, "unknown activation 'relu'. Known: 'gelu_tanh'"),
        *(
            (wrong, "needs 0 < a_min <= a_max < 1")
            for wrong in ({"a_min": 0}, {"a_min": 0.9999}, {"a_max": 1.0}, {"a_max": np.nan}, {"a_min": "a"})
        ),
    ),
    timed=False,
)
