"""Linear attention: S = S + f(k) v^T, y = W_o n(S^T f(q) / (n . f(q)))."""

from __future__ import annotations

import numpy as np

from ssm_core.layers import LinearAttention

from ...dispatched import GATES
from ...truth.decay import elu, remembered
from ...truth.gated import normed, silu
from ...truth.layers import Array, Options, Params, States, Steps, linear, same
from ..layer import GatedCases


def softmax(x: Array) -> Array:
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


MAPS = {"elu": elu, "relu": lambda x: np.maximum(x, 0), "silu": silu, "softmax": softmax, None: same}


def steps(options: Options, params: Params) -> Steps:
    d_model, heads, f = options["d_model"], options["heads"], MAPS[options["feature_map"]]
    K, V = (int(options[e] * d_model) // heads for e in ("expand_k", "expand_v"))
    rule = {"normalize": "sum" if options["normalize"] else None, "epsilon": 1e-10}

    def advance(u: Array, memory: States, scale: float) -> tuple[Array, States]:
        q, k, v = (linear(params, f"{n}_proj_", u).reshape(heads, -1) for n in "qkv")
        y, memory = remembered((f(q), f(k), v, np.zeros(heads)), memory, (heads, K, V), **rule)
        y = normed(y, options["epsilon"]) * params["norm_weight"] if options["output_norm"] else y
        return linear(params, "o_proj_", y.reshape(-1)), memory

    shapes = ((heads, K, V), (heads, K)) if options["normalize"] else ((heads, K, V),)
    return Steps(advance, shapes, d_model)


CASES = GatedCases(
    layer=LinearAttention,
    truth=steps,
    instances={
        "LinearAttention": {"heads": 2, "chunk": 7},
        "LinearAttention_bare": {
            "heads": 1, "normalize": False, "feature_map": None, "expand_k": 0.5, "expand_v": 1.5, "output_norm": False,
        },
        "LinearAttention_softmax": {"heads": 2, "feature_map": "softmax", "normalize": False},
        "LinearAttention_silu": {"heads": 2, "feature_map": "silu", "normalize": False},
    },
    least={"heads": 2},
    parameters="q_proj_weight k_proj_weight v_proj_weight norm_weight o_proj_weight",
    no_weight_decay="",
    rests_on=("fold", "ssd", *GATES),
    small={"sums": ({"d_model": 2, "heads": 1, "chunk": 4}, "auto")},
    modules={"LinearAttention": {"d_model": 4, "heads": 2, "chunk": 16}},
    timed=False,
    refusals=(
        ({"heads": 3}, r"heads = 3 must divide expand_k \* d_model = 4"),
        ({"expand_k": 0}, "expand_k = 0 must be a positive number"),
        ({"feature_map": "dpfp"}, "unknown feature_map 'dpfp'. Known: 'elu', 'relu'"),
        ({"normalize": 1}, "normalize = 1 must be True or False"),
    ),
)  # fmt: skip
