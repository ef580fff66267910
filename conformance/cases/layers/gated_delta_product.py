"""Gated DeltaProduct: Gated DeltaNet with several keys and values a step, of which the first decays."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import GatedDeltaProduct

from ...dispatched import GATES
from ...truth.delta import convolved, delta_step, gated_norm, of_norm_one, read, shapes, sigmoid, sizes
from ...truth.gated import of_heads, silu, softplus
from ...truth.layers import Array, Options, Params, States, Steps
from ..instance import STEPS
from ..layer import GatedCases
from .gated_delta_net import GROUPS


def steps(options: Options, params: Params) -> Steps:
    (G, H, K, V), R = sizes(options), options["num_householder"]

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        (q, k, v), inputs = convolved(params, u, state[:3])
        q, keys = of_heads(of_norm_one(q.reshape(G, K)), H), of_norm_one(k.reshape(R, G, K))
        beta = (2 if options["negative_eigenvalues"] else 1) * sigmoid(params["b_proj_weight"] @ u).reshape(R, H)
        g, S = np.zeros(H), state[3]
        if options["forget_gate"]:
            g = -np.exp(params["A_log"]) * softplus(params["a_proj_weight"] @ u + params["dt_bias"])
        for j in range(R):
            decay = g[:, None] if j == 0 else 0.0
            S = delta_step(S, of_heads(keys[j], H), v.reshape(R, H, V)[j], decay, beta[j])
        gate = silu(params["g_proj_weight"] @ u) if options["output_gate"] else 1.0
        return gated_norm(params, read(S, q), gate, options["epsilon"]), (*inputs, S)

    return Steps(advance, shapes(options, R), options["d_model"])


CASES = GatedCases(
    layer=GatedDeltaProduct,
    truth=steps,
    instances={
        "GatedDeltaProduct": {"heads": 2, "head_dim": 2, "epsilon": 1e-2, "chunk": 8, **STEPS},
        "GatedDeltaProduct_three_groups": {
            "heads": 1,
            "head_dim": 2,
            "num_v_heads": 2,
            "expand_v": 1.0,
            "num_householder": 3,
            "d_conv": 2,
            "conv_bias": True,
            "negative_eigenvalues": False,
            "epsilon": 1e-2,
            "chunk": 5,
            **STEPS,
        },
        "GatedDeltaProduct_one_no_gates": {
            "heads": 2,
            "head_dim": 2,
            "num_householder": 1,
            "forget_gate": False,
            "output_gate": False,
            "epsilon": 1e-2,
        },
    },
    ones=("GatedDeltaProduct_three_groups",),
    least={"heads": 2, "head_dim": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight q_conv1d_weight k_conv1d_weight v_conv1d_weight "
    "b_proj_weight a_proj_weight A_log dt_bias g_proj_weight o_norm_weight o_proj_weight",
    no_weight_decay="A_log dt_bias",
    rests_on=("fold", "gated_delta", *GATES),
    small={
        "chunk": (
            {
                "d_model": 2,
                "heads": 1,
                "head_dim": 4,
                "expand_v": 1.0,
                "d_conv": 2,
                "epsilon": 1e-2,
                "chunk": 4,
                **STEPS,
            },
            "auto",
        )
    },
    modules={"GatedDeltaProduct": {"d_model": 4, "heads": 1, "head_dim": 2, "num_v_heads": 2, "chunk": 16, **STEPS}},
    timed=False,
    refusals=(
        *GROUPS,
        ({"num_householder": 0}, "num_householder = 0 must be a whole number"),
        ({"forget_gate": 1}, "forget_gate = 1 must be True or False"),
        ({"output_gate": None}, "output_gate = None must be True or False"),
    ),
)
