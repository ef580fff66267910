"""KDA: the gated delta rule with a decay a channel, of a map of low rank, and a gate of the output of another."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import KDA

from ...dispatched import GATES
from ...truth.delta import convolved, delta_step, gated_norm, of_norm_one, read, shapes, sigmoid, sizes
from ...truth.gated import of_heads, softplus
from ...truth.layers import Array, Options, Params, States, Steps
from ..instance import STEPS
from ..layer import GatedCases
from .gated_delta_net import GROUPS

BOUNDS = tuple(
    ({"lower_bound": bound}, "lower_bound = .* must be None or a negative number") for bound in (0.0, 5.0, np.nan, "a")
)


def channel_decay(options: Options, params: Params, u: Array, heads: int) -> Array:
    f = (params["f_b_proj_weight"] @ (params["f_a_proj_weight"] @ u) + params["dt_bias"]).reshape(heads, -1)
    rate = np.exp(params["A_log"])[:, None]
    bound = options["lower_bound"]
    return -rate * softplus(f) if bound is None else bound * sigmoid(rate * f)


def output_gate(params: Params, u: Array) -> Array:
    gate = params["g_b_proj_weight"] @ (params["g_a_proj_weight"] @ u)
    return sigmoid(gate + params.get("g_b_proj_bias", 0.0))


def steps(options: Options, params: Params) -> Steps:
    G, H, K, V = sizes(options)

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        (q, k, v), inputs = convolved(params, u, state[:3])
        q, k = (of_heads(of_norm_one(x.reshape(G, K)), H) for x in (q, k))
        beta = (2 if options["negative_eigenvalues"] else 1) * sigmoid(params["b_proj_weight"] @ u)
        S = delta_step(state[3], k, v.reshape(H, V), channel_decay(options, params, u, H), beta)
        return gated_norm(params, read(S, q), output_gate(params, u), options["epsilon"]), (*inputs, S)

    return Steps(advance, shapes(options), options["d_model"])


CASES = GatedCases(
    layer=KDA,
    truth=steps,
    instances={
        "KDA": {"heads": 2, "head_dim": 2, "epsilon": 1e-2, "chunk": 8, **STEPS},
        "KDA_groups_bound": {
            "heads": 1,
            "head_dim": 2,
            "num_v_heads": 2,
            "expand_v": 1.5,
            "d_conv": 2,
            "conv_bias": True,
            "gate_bias": True,
            "negative_eigenvalues": True,
            "lower_bound": -5.0,
            "epsilon": 1e-2,
            "chunk": 5,
            **STEPS,
        },
    },
    ones=("KDA_groups_bound",),
    least={"heads": 2, "head_dim": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight q_conv1d_weight k_conv1d_weight v_conv1d_weight "
    "f_a_proj_weight f_b_proj_weight b_proj_weight A_log dt_bias g_a_proj_weight g_b_proj_weight o_norm_weight "
    "o_proj_weight",
    no_weight_decay="A_log dt_bias",
    rests_on=("fold", "gated_delta", *GATES),
    small={
        "chunk": (
            {"d_model": 2, "heads": 1, "head_dim": 2, "d_conv": 2, "epsilon": 1e-2, "chunk": 4, **STEPS},
            "auto",
        )
    },
    modules={"KDA": {"d_model": 4, "heads": 1, "head_dim": 2, "num_v_heads": 2, "chunk": 16, **STEPS}},
    timed=False,
    refusals=(*GROUPS, *BOUNDS, ({"gate_bias": None}, "gate_bias = None must be True or False")),
)
