"""GDN-2: S = diag(e^g) S + k (w v - (diag(e^g) S)^T (b k))^T with gates b and w of every channel."""

from __future__ import annotations

from ssm_core.layers import GDN2

from ...dispatched import GATES
from ...truth.delta import convolved, delta_step, gated_norm, of_norm_one, read, shapes, sigmoid, sizes
from ...truth.gated import of_heads
from ...truth.layers import Array, Options, Params, States, Steps
from ..instance import STEPS
from ..layer import GatedCases
from .gated_delta_net import GROUPS
from .kda import BOUNDS, channel_decay, output_gate


def steps(options: Options, params: Params) -> Steps:
    G, H, K, V = sizes(options)

    def advance(u: Array, state: States, scale: float) -> tuple[Array, States]:
        (q, k, v), inputs = convolved(params, u, state[:3])
        erase = (2 if options["negative_eigenvalues"] else 1) * sigmoid(params["b_proj_weight"] @ u)
        write = sigmoid(params["w_proj_weight"] @ u).reshape(H, V)
        q, k, erase, g = (
            of_heads(x, H)
            for x in (
                of_norm_one(q.reshape(G, K)),
                of_norm_one(k.reshape(G, K)),
                erase.reshape(G, K),
                channel_decay(options, params, u, G),
            )
        )
        S = delta_step(state[3], k, v.reshape(H, V), g, erase=erase, write=write)
        return gated_norm(params, read(S, q), output_gate(params, u), options["epsilon"]), (*inputs, S)

    return Steps(advance, shapes(options), options["d_model"])


CASES = GatedCases(
    layer=GDN2,
    truth=steps,
    instances={
        "GDN2": {"heads": 2, "head_dim": 2, "epsilon": 1e-2, "chunk": 8, **STEPS},
        "GDN2_groups_bound": {
            "heads": 1,
            "head_dim": 2,
            "num_v_heads": 2,
            "expand_v": 1.5,
            "d_conv": 2,
            "conv_bias": True,
            "negative_eigenvalues": True,
            "lower_bound": -5.0,
            "epsilon": 1e-2,
            "chunk": 5,
            **STEPS,
        },
    },
    ones=("GDN2_groups_bound",),
    least={"heads": 2, "head_dim": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight q_conv1d_weight k_conv1d_weight v_conv1d_weight "
    "f_a_proj_weight f_b_proj_weight b_proj_weight w_proj_weight A_log dt_bias g_a_proj_weight g_b_proj_weight "
    "g_b_proj_bias o_norm_weight o_proj_weight",
    no_weight_decay="A_log dt_bias",
    rests_on=("fold", "gated_delta", *GATES),
    small={
        "chunk": (
            {"d_model": 2, "heads": 1, "head_dim": 2, "d_conv": 2, "epsilon": 1e-2, "chunk": 4, **STEPS},
            "auto",
        )
    },
    modules={"GDN2": {"d_model": 4, "heads": 1, "head_dim": 2, "num_v_heads": 2, "chunk": 16, **STEPS}},
    timed=False,
    refusals=(*GROUPS, *BOUNDS, ({"negative_eigenvalues": 1}, "negative_eigenvalues = 1 must be True or False")),
)
