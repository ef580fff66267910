"""GLA: S = diag(e^g) S + k v^T with g = log sigmoid(W_2 W_1 u + b) / 16, y = W_o (n(S^T q) silu(W_g u))."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import GLA

from ...dispatched import GATES
from ...truth.decay import remembered
from ...truth.gated import normed, silu, softplus
from ...truth.layers import Array, Options, Params, States, Steps, linear
from ..layer import GatedCases

FEATURES = {None: lambda x: x, "silu": silu}


def steps(options: Options, params: Params) -> Steps:
    d_model, heads = options["d_model"], options["heads"]
    K, V = (int(options[e] * d_model) // heads for e in ("expand_k", "expand_v"))

    def advance(u: Array, memory: States, scale: float) -> tuple[Array, States]:
        q, k, v = (linear(params, f"{n}_proj_", u) for n in "qkv")
        q, k = (FEATURES[options["feature_map"]](x) for x in (q, k))
        g = -softplus(-linear(params, "gk_proj_1_", linear(params, "gk_proj_0_", u))) / options["gate_normalizer"]
        g = g if options["lower_bound"] is None else np.maximum(g, options["lower_bound"])
        q, k, v, g = (
            np.repeat(x.reshape(-1, n), heads // (x.size // n), axis=0) for x, n in ((q, K), (k, K), (v, V), (g, K))
        )
        y, memory = remembered((q, k, v, g), memory, (heads, K, V))
        y = (normed(y, options["epsilon"]) * params["g_norm_weight"]).reshape(-1)
        y = y * silu(linear(params, "g_proj_", u)) if options["output_gate"] else y
        return linear(params, "o_proj_", y), memory

    return Steps(advance, ((heads, K, V),), d_model)


CASES = GatedCases(
    layer=GLA,
    truth=steps,
    instances={
        "GLA": {"heads": 2, "gate_normalizer": 1.0, "gate_rank": 3, "chunk": 8},
        "GLA_no_gate": {
            "heads": 1,
            "expand_k": 1.0,
            "expand_v": 2.0,
            "output_gate": False,
            "epsilon": 1e-2,
            "chunk": 5,
        },
        "GLA_shared_heads": {
            "heads": 2,
            "kv_heads": 1,
            "expand_k": 1.0,
            "feature_map": "silu",
            "lower_bound": -0.04,
            "chunk": 8,
        },
    },
    least={"heads": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight g_proj_weight gk_proj_0_weight gk_proj_1_weight "
    "gk_proj_1_bias g_norm_weight o_proj_weight",
    no_weight_decay="",
    rests_on=("fold", "channel_decay", *GATES),
    small={"chunk": ({"d_model": 2, "heads": 1, "gate_rank": 1, "gate_normalizer": 1.0, "chunk": 4}, "auto")},
    modules={"GLA": {"d_model": 4, "heads": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"heads": 3}, r"heads = 3 must divide expand_k \* d_model = 2"),
        ({"expand_v": np.nan}, "expand_v = nan must be a positive number"),
        ({"gate_normalizer": -1.0}, "gate_normalizer = -1.0 must be a positive number"),
        ({"kv_heads": 3}, "kv_heads = 3 must divide heads = 2"),
        ({"feature_map": "swish"}, "unknown feature_map 'swish'. Known: 'elu'"),
        ({"lower_bound": 0.0}, "lower_bound = 0.0 must be None or a negative number"),
        ({"gate_rank": 0}, "gate_rank = 0 must be a whole number"),
        ({"output_gate": None}, "output_gate = None must be True or False"),
    ),
)
