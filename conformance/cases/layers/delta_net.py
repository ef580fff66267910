"""DeltaNet: S = S + beta k (v - S^T k)^T, y = W_o n(S^T q)."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import DeltaNet

from ...dispatched import GATES
from ...truth.delta import convolved, delta_step, gated_norm, of_norm_one, read, sigmoid
from ...truth.gated import silu
from ...truth.layers import Array, Options, Params, States, Steps
from ..layer import GatedCases


def steps(options: Options, params: Params) -> Steps:
    d_model, heads, taps = options["d_model"], options["heads"], options["d_conv"] - 1
    K, V = (int(options[e] * d_model) // heads for e in ("expand_k", "expand_v"))

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        (q, k, v), inputs = convolved(params, u, state[:3])
        q, k, v = of_norm_one(q.reshape(heads, K)), of_norm_one(k.reshape(heads, K)), v.reshape(heads, V)
        beta = (2 if options["negative_eigenvalues"] else 1) * sigmoid(params["b_proj_weight"] @ u)
        S = delta_step(state[3], k, v, beta=beta)
        gate = silu(params["g_proj_weight"] @ u) if options["output_gate"] else 1.0
        return gated_norm(params, read(S, q), gate, options["epsilon"]), (*inputs, S)

    keys, values = (heads * K, taps), (heads * V, taps)
    return Steps(advance, (keys, keys, values, (heads, K, V)), d_model)


CASES = GatedCases(
    layer=DeltaNet,
    truth=steps,
    instances={
        "DeltaNet": {"heads": 2, "epsilon": 1e-2, "chunk": 8},
        "DeltaNet_reflections_gate": {
            "heads": 1,
            "expand_k": 0.5,
            "expand_v": 2.0,
            "d_conv": 2,
            "conv_bias": True,
            "negative_eigenvalues": True,
            "output_gate": True,
            "epsilon": 1e-2,
            "chunk": 5,
        },
    },
    least={"heads": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight q_conv1d_weight k_conv1d_weight v_conv1d_weight "
    "b_proj_weight o_norm_weight o_proj_weight",
    no_weight_decay="",
    rests_on=("fold", "gated_delta", *GATES),
    small={"chunk": ({"d_model": 2, "heads": 1, "d_conv": 2, "epsilon": 1e-2, "chunk": 4}, "auto")},
    modules={"DeltaNet": {"d_model": 4, "heads": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"heads": 3}, r"heads = 3 must divide expand_k \* d_model = 4"),
        ({"expand_v": np.nan}, "expand_v = nan must be a positive number"),
        ({"negative_eigenvalues": 1}, "negative_eigenvalues = 1 must be True or False"),
        ({"output_gate": None}, "output_gate = None must be True or False"),
    ),
)
