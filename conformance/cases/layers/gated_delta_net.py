"""Gated DeltaNet: S = e^g S + beta k (v - e^g S^T k)^T with a decay a head, y = W_o (n(S^T q) silu(W_g u))."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import GatedDeltaNet

from ...dispatched import GATES
from ...truth.delta import convolved, delta_step, gated_norm, of_norm_one, read, shapes, sigmoid, sizes
from ...truth.gated import of_heads, silu, softplus
from ...truth.layers import Array, Options, Params, States, Steps
from ..instance import STEPS
from ..layer import GatedCases

GROUPS = (
    ({"num_v_heads": 3}, "heads = 2 must divide num_v_heads = 3"),
    ({"num_v_heads": 0}, "num_v_heads = 0 must be a whole number"),
    ({"expand_v": np.inf}, "expand_v = inf must be a positive number"),
    ({"expand_v": 0.3}, r"expand_v \* head_dim = .* must be a whole number"),
)


def steps(options: Options, params: Params) -> Steps:
    G, H, K, V = sizes(options)

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        (q, k, v), inputs = convolved(params, u, state[:3])
        q, k = (of_heads(of_norm_one(x.reshape(G, K)), H) for x in (q, k))
        beta = (2 if options["negative_eigenvalues"] else 1) * sigmoid(params["b_proj_weight"] @ u)
        g = -np.exp(params["A_log"]) * softplus(params["a_proj_weight"] @ u + params["dt_bias"])
        S = delta_step(state[3], k, v.reshape(H, V), g[:, None], beta)
        gate = silu(params["g_proj_weight"] @ u) if options["output_gate"] else 1.0
        return gated_norm(params, read(S, q), gate, options["epsilon"]), (*inputs, S)

    return Steps(advance, shapes(options), options["d_model"])


CASES = GatedCases(
    layer=GatedDeltaNet,
    truth=steps,
    instances={
        "GatedDeltaNet": {"heads": 2, "head_dim": 2, "epsilon": 1e-2, "chunk": 8, **STEPS},
        "GatedDeltaNet_groups_reflections": {
            "heads": 2,
            "head_dim": 2,
            "num_v_heads": 4,
            "expand_v": 1.5,
            "d_conv": 3,
            "conv_bias": True,
            "negative_eigenvalues": True,
            "epsilon": 1e-2,
            "chunk": 5,
            **STEPS,
        },
        "GatedDeltaNet_no_gate_one_tap": {
            "heads": 1,
            "head_dim": 3,
            "expand_v": 1.0,
            "d_conv": 1,
            "output_gate": False,
            "epsilon": 1e-2,
            **STEPS,
        },
    },
    ones=("GatedDeltaNet_groups_reflections",),
    least={"heads": 2, "head_dim": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight q_conv1d_weight k_conv1d_weight v_conv1d_weight "
    "a_proj_weight b_proj_weight A_log dt_bias g_proj_weight o_norm_weight o_proj_weight",
    no_weight_decay="A_log dt_bias",
    rests_on=("fold", "gated_delta", *GATES),
    small={
        "chunk": (
            {
                "d_model": 2,
                "heads": 1,
                "head_dim": 2,
                "expand_v": 1.0,
                "d_conv": 2,
                "epsilon": 1e-2,
                "chunk": 4,
                **STEPS,
            },
            "auto",
        )
    },
    modules={"GatedDeltaNet": {"d_model": 4, "heads": 1, "head_dim": 2, "num_v_heads": 2, "chunk": 16, **STEPS}},
    timed=False,
    refusals=(
        *GROUPS,
        ({"negative_eigenvalues": 1}, "negative_eigenvalues = 1 must be True or False"),
        ({"output_gate": None}, "output_gate = None must be True or False"),
    ),
)
