"""mLSTM: C and n over e^m, h = C^T q / max(|n . q|, e^{-m}), y = W_out (sigmoid(W_o u) layer_norm(h))."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import MLSTM

from ...dispatched import GATES
from ...truth.decay import remembered, sigmoid, standardized
from ...truth.gated import softplus
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    d_model, heads, cap = options["d_model"], options["heads"], options["gate_soft_cap"]
    K, V = (int(options[e] * d_model) // heads for e in ("qk_dim_factor", "v_dim_factor"))

    def advance(u: Array, memory: States, scale: float) -> tuple[Array, States]:
        q, k, v = (linear(params, f"{n}_", u).reshape(heads, -1) for n in "qkv")
        i, f = (cap * np.tanh(linear(params, f"{n}gate_preact_", u) / cap) for n in "if")
        rule = {"normalize": "max", "epsilon": options["epsilon"]}
        y, memory = remembered((q, k, v, -softplus(-f), i), memory, (heads, K, V), **rule)
        y = standardized(y, options["norm_epsilon"]).reshape(-1) * params["multihead_norm_weight"]
        y = y + params.get("multihead_norm_bias", 0.0)
        return linear(params, "out_proj_", sigmoid(linear(params, "ogate_preact_", u)) * y), memory

    return Steps(advance, ((heads, K, V), (heads, K), (heads,)), d_model)


def open_gates(params: Params) -> None:
    """Gates as after training: of the input, neither shut nor open."""
    rng = np.random.default_rng(0)
    params["igate_preact_bias"] = rng.normal(size=params["igate_preact_bias"].shape)
    params["fgate_preact_bias"] = params["fgate_preact_bias"] - 4


CASES = GatedCases(
    layer=MLSTM,
    truth=steps,
    instances={
        "MLSTM": {"heads": 2, "chunk": 8, "norm_epsilon": 1e-2},
        "MLSTM_biases": {
            "heads": 1, "qk_dim_factor": 1.0, "v_dim_factor": 0.5, "gate_soft_cap": 2.0, "bias": True,
            "norm_bias": True, "epsilon": 1e-2, "norm_epsilon": 1e-2, "chunk": 5,
        },
    },
    edits={"MLSTM": open_gates, "MLSTM_biases": open_gates, "chunk": open_gates},
    least={"heads": 2},
    parameters="q_weight k_weight v_weight ogate_preact_weight igate_preact_weight igate_preact_bias "
    "fgate_preact_weight fgate_preact_bias multihead_norm_weight out_proj_weight",
    no_weight_decay="igate_preact_bias fgate_preact_bias",
    rests_on=("fold", "ssd", *GATES),
    small={"chunk": ({"d_model": 4, "heads": 1, "chunk": 4, "norm_epsilon": 1e-2}, "auto")},
    modules={"MLSTM": {"d_model": 4, "heads": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"heads": 3}, r"heads = 3 must divide qk_dim_factor \* d_model = 2"),
        ({"gate_soft_cap": 0}, "gate_soft_cap = 0 must be a positive number"),
    ),
)  # fmt: skip
